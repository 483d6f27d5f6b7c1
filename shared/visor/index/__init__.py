"""Index: how are vectors kept, merged and searched, and how sure is an answer?"""
