"""Benchmarks of the index and of the models: time, memory and size, next to the alternatives."""
