"""The process of one run of a suite, started by `qlearn.runs.workers`: train it to its end, then evaluate it.

Its task is a line of JSON on standard input, and standard input ends where the suite does. What it has to say are lines
of JSON on standard output, so whatever an environment prints goes to standard error.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import qlearn
from qlearn.config import Config, check, override
from qlearn.envs import import_environments
from qlearn.errors import QlearnError, RunError
from qlearn.runs import directory, suite
from qlearn.runs.progress import Progress

SECONDS = 0.5  # between two lines on how far it is
PATIENCE = 60.0  # seconds in which the process of a suite that was killed must have saved itself


class Teller:
    """A display (`qlearn.runs.display.Display`) that tells the suite."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._next = out, 0.0

    def tell(self, **what: Any) -> None:
        """A line; where nobody listens any more, none."""
        with suppress(OSError):
            self._out.write(json.dumps(what) + "\n")
            self._out.flush()

    def start(self, total_steps: int) -> None:
        """Nothing."""

    def update(self, progress: Progress, statistics: dict[str, float]) -> None:  # noqa: ARG002
        """How far it is, now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS
            self.tell(steps=progress.tick.steps, mean_return=progress.mean_return)

    def say(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def main() -> int:
    """Do the task; returns the exit code."""
    teller = Teller(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow, daemon=True).start()
    path = Path(task["path"])
    try:
        import_environments(task["module"])
        _wait(path)
        suite.train(check(override(Config(), task["config"])), path, task["command"], teller)
        evaluation = qlearn.evaluate(path, episodes=task["episodes"]).summary()
        summary = json.loads((path / directory.SUMMARY).read_bytes())
    except QlearnError as error:
        teller.tell(error=" ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    teller.tell(outcome={"evaluation": evaluation, "summary": summary})
    return 0


def _follow() -> None:
    """Stop and save when the suite has gone."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _wait(path: Path) -> None:
    """Until the process of a suite that was killed has left the run."""
    end = time.monotonic() + PATIENCE
    while path.is_dir():
        try:
            with directory.alone(path):
                return
        except RunError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
