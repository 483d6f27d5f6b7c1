"""Is every part of an index there and readable, and what can be made again?"""
