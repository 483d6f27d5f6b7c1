"""Benchmarks of whole processes: what they bear, do and cost."""
