"""`python -m ailab`: the command, where no script of that name is."""

from ailab.cli.main import main

main()
