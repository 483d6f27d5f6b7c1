"""Search: from a query to an answer."""
