"""Imaging: bytes to upright RGB pixels within limits."""
