"""Bench: how fast, small and right is the index, measured on this machine against what else there is?"""
