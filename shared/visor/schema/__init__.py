"""Schema: what travels between the parts of Visor, and what a search takes and gives. It imports nothing else."""
