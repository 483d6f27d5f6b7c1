"""`python -m visor` is the command line."""

from visor.cli.main import main

main()
