"""qlearn: Q-learning, from its first lesson to its last result."""

from qlearn import dqn
from qlearn.agent import Agent
from qlearn.api import evaluate, load, resume, train
from qlearn.errors import QlearnError
from qlearn.runs import Run

__all__ = ["Agent", "QlearnError", "Run", "dqn", "evaluate", "load", "resume", "train"]
