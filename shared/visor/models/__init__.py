"""Models: which weights make which vector, how are they built and how are they run?"""
