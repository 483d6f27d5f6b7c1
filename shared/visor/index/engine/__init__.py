"""An index whose rows are in a vector engine (`visor.storage.engine`) and not in segments."""
