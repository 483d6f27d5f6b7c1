"""Image readers: web, file, bucket and thumbnail addresses to bytes."""
