"""Pictures in a bucket."""
