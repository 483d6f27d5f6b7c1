"""Schema: what travels between the parts of Visor, and the request and answer of a search. It imports nothing else."""
