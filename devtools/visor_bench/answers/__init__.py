"""Benchmarks of what is found, and of how sure answers are."""
