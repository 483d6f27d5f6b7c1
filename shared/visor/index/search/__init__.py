"""Search: the reader of an index and the scan through it."""
