"""`python -m visor` is the command line."""

from visor.cli import main

main()
