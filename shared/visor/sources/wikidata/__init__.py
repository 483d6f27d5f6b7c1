"""Wikidata and Commons."""
