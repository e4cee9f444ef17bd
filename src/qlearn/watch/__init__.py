"""The page of a run: what it does, what it values, and how it learned. Served to this machine alone, or as one file."""

from qlearn.watch.export import export
from qlearn.watch.server import Server, serve

__all__ = ["Server", "export", "serve"]
