"""The command line: one file a verb, no logic of its own."""

from qlearn.cli.main import main

__all__ = ["main"]
