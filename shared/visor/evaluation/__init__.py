"""Evaluation: how well labelled pictures are found."""
