"""The demo shop: pictures from a package that a registry ships, behind a marketplace's API on this machine."""
