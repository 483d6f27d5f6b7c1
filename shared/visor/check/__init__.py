"""Is everything that an index is made of there and readable, and what can be made again?"""
