"""Pipeline: what do crawl, embed, compact and search do, step by step?"""
