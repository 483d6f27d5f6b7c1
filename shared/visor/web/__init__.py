"""Web: what does the search function say over HTTP?"""
