"""HTTP: guarded, polite fetching of addresses that strangers name."""
