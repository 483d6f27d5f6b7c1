"""The embedded stores: a folder and SQLite."""
