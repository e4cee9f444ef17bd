"""The run directory: configuration, metrics, checkpoints, resume. Durable writes live here and only here."""

from qlearn.runs.directory import command
from qlearn.runs.loading import load
from qlearn.runs.picture import plot
from qlearn.runs.progress import verdict, verdict_of_seeds
from qlearn.runs.seeds import can_share, start_seeds
from qlearn.runs.session import Interrupted, Run, resume, start
from qlearn.runs.workers import work

__all__ = [
    "Interrupted",
    "Run",
    "can_share",
    "command",
    "load",
    "plot",
    "resume",
    "start",
    "start_seeds",
    "verdict",
    "verdict_of_seeds",
    "work",
]
