"""Merge: shards and small segments into larger segments, and garbage collection."""
