"""Words: which items contain the words of a query."""
