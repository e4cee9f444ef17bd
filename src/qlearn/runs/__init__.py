"""The run directory: configuration, metrics, checkpoints, resume. Durable writes live here and only here."""

from qlearn.runs.directory import command
from qlearn.runs.picture import plot
from qlearn.runs.progress import verdict
from qlearn.runs.session import Interrupted, Run, load, resume, start
from qlearn.runs.workers import work

__all__ = ["Interrupted", "Run", "command", "load", "plot", "resume", "start", "verdict", "work"]
