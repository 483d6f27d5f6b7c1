"""Export: how does an index become files that any static file server can serve? The format: docs/formats.md."""
