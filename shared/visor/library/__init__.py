"""The library: an index in this process (`visor.open`) or on a server (`visor.connect`), with the same methods."""
