"""Commands: one module a command of the `visor` command line."""
