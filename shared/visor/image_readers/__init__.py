"""Image readers: web, file, bucket and thumbnail URLs to bytes."""
