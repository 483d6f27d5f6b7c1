"""Visor: reverse image search that runs on a laptop, or on Google Cloud for $0 a month."""

__version__ = "0.1.0"
