"""Export: how does an index become files that any server of static files can serve? The format: docs/formats.md."""
