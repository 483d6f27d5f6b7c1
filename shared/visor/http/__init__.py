"""Guarded, polite HTTP: the fetch client, its SSRF guard and its limits."""
