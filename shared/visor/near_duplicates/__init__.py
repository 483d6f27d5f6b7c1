"""Near-duplicates: fingerprints, alignment, and whether two pictures are the same."""
