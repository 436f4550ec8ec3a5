"""The command line: one command, one short file."""
