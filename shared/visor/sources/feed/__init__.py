"""Product feeds: CSV, RSS, Atom, JSON lines."""
