"""`python -m tinylens` is the command `tinylens`."""

from tinylens.cli import main

main()
