"""Ingest: from a catalogue to vectors in the index."""
