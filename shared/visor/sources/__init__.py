"""Sources read catalogues. `base` is what a plug-in's author needs; each built-in kind is a module of its own."""
