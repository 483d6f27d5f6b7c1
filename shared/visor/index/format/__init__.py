"""Format: what an index is on disk, byte by byte."""
