"""Web: what does the search function answer over HTTP?"""
