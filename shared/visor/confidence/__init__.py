"""Confidence: how likely an answer is right, learned from the index without labels."""
