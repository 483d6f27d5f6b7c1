"""Implementations of `visor.storage.engine`."""
