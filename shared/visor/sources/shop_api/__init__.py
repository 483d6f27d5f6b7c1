"""A shop's JSON API."""
