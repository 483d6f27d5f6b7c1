"""Stores: where do objects, documents and messages live, and what do they promise?"""
