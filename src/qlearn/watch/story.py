"""A run as the page tells it: what is quick to read as soon as it changes; what takes time, when there is time."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from qlearn.build import MakeNetwork
from qlearn.runs import directory, metrics
from qlearn.runs.progress import threshold
from qlearn.watch.card import card, held, saved_steps, status
from qlearn.watch.curves import Log
from qlearn.watch.plain import dumps
from qlearn.watch.study import study

PATIENCE = 50  # after a study, so many times what it took goes by before the next one of a run that is being trained
NEVER = -1  # the steps of a checkpoint that is not there
ATTENTION = 15.0  # seconds after a question for which somebody is thought to be looking


class Story:
    """The run in `path`, for any number of readers at once; `network` is that of a run that has one of your own.

    Raises:
        UsageError: there is no such run. RunError: it is damaged.
    """

    def __init__(self, path: Path, network: MakeNetwork | None = None) -> None:
        self.network = network
        self.path, self.config = path, directory.read_config(path)
        self.log, self.studied = Log(path), b"null"
        self.studied_steps: int | None = None
        self.goal = threshold(self.config)
        self._lock, self._asked, self._rested = threading.Lock(), 0.0, 0.0
        self._told: tuple[tuple[Any, ...], bytes] | None = None

    def state(self) -> tuple[str, bytes]:
        """All that is quick to tell, as JSON, and its version: it is another one when anything has changed."""
        self._asked = time.monotonic()
        with self._lock:
            self.config = directory.read_config(self.path)  # to go on for longer is to write it anew
            self.log.read()
            stands = status(self.path, self.config, self.log.last_step)
            version = (self.log.version, self.log.size, str(stands), self.studied_steps)
            if self._told is None or self._told[0] != version:
                self._told = version, dumps({"version": _text(version), **self._overview(stands)})
            return _text(version), self._told[1]

    def _overview(self, stands: dict[str, Any]) -> dict[str, Any]:
        config, episodes = self.config, self.log.episodes
        return {
            "env": config.env.id,
            "preset": config.preset,
            "seed": config.seed,
            "path": str(self.path),
            "goal": self.goal,
            "window": config.window,
            "max_grad_norm": config.learner.max_grad_norm,
            "status": stands,
            "episodes": len(episodes),
            "mean_return": episodes[-1][3] if episodes else None,
            "last": self.log.last,
            "curves": self.log.curves(),
            "meanings": metrics.DESCRIPTIONS["train"] | metrics.DESCRIPTIONS["episode"],
            "card": card(self.path, config),
            "studied": self.studied_steps,
        }

    def due(self) -> bool:
        """Whether it is time to study the newest checkpoint: it is a new one, somebody looks, and there was a rest.

        A study takes a processor for seconds, so while a run is being trained it is made once in `PATIENCE` times as
        long.
        """
        now = time.monotonic()
        if now - self._asked > ATTENTION or self.studied_steps == (saved_steps(self.path) or NEVER):
            return False
        return now >= self._rested or not held(self.path)

    def learn(self) -> None:
        """Study the newest checkpoint now."""
        started, saved = time.monotonic(), saved_steps(self.path)
        with self._lock:
            last = self.log.last
        self.studied = dumps(study(self.path, last, self.network))
        self.studied_steps = saved or NEVER
        self._rested = time.monotonic() + PATIENCE * (time.monotonic() - started)

    def whole(self) -> tuple[bytes, bytes]:
        """Everything at once, for a page that will not be able to ask."""
        self.state()
        self.learn()
        return self.state()[1], self.studied

    def errand(self, stop: threading.Event) -> None:
        """Study whenever it is due, until `stop`; for a thread of its own."""
        while not stop.wait(0.3):
            if self.due():
                if held(self.path):
                    step_back()
                self.learn()


def step_back() -> None:
    """Let this thread have what training leaves of the processor, from now on."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _text(version: tuple[Any, ...]) -> str:
    return "-".join(str(part) for part in version[:2] + version[3:]) + f"-{hash(version[2]) & 0xFFFFFFFF:x}"
