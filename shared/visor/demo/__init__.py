"""The demo shop: pictures from a package that a registry ships, behind a marketplace's API on this machine."""

SHOP_PORT = 8091
"""Port on which the shop listens by default. Part of the image URLs: an image at another URL is embedded again."""
