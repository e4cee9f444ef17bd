"""Metrics: one JSON object a line in metrics.jsonl, the truth, and the same numbers for TensorBoard."""

import hashlib
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qlearn.runs.directory import METRICS, TENSORBOARD
from qlearn.runs.files import reading, writing

log = logging.getLogger("qlearn")

# The names, in the order of the documentation's table. Episode lines have those of the first group, train lines,
# one every runtime.log_steps, those of the second; both have "kind" and "steps".
DESCRIPTIONS: dict[str, dict[str, str]] = {
    "episode": {
        "episode": "number of the episode, from 1, all environments together",
        "return": "sum of its raw rewards",
        "length": "its environment steps",
        "mean_return": "mean return of the last `window` episodes (100), or of all where there are fewer",
        "env": "the environment that played it",
    },
    "train": {
        "updates": "gradient updates so far",
        "epsilon": "probability of a random action; the mean over environments where each has its own",
        "replay_fill": "part of the replay memory in use, 0 to 1; where there is one",
        "loss": "mean loss of the last minibatch, before the update",
        "grad_norm": "norm of its gradient, before clipping",
        "td_error": "mean absolute difference between target and value on that minibatch, after the update",
        "q_mean": "mean over that minibatch of the largest Q-value",
        "q_max": "largest Q-value on that minibatch",
        "outside_support": "of c51: part of the targets' probability that lies beyond value.v_min and v_max",
        "states_visited": "of a table: states in which an action was ever tried; its q and error are of the table",
        "mean_return": "mean return of the last `window` episodes",
        "episodes": "episodes ended so far",
        "steps_per_second": "environment steps per second of wall time since the last line",
        "wall_seconds": "seconds of training so far",
    },
}


class Metrics:
    """The open log of a run.

    Lines that the disk does not take wait until it does: they never stop a run.

    Args:
        run: the run directory.
        before: what `sync` said at the checkpoint that a run continues from; what was written after that is cut off.
        steps: environment steps at that point.
    """

    def __init__(self, run: Path, *, before: Mapping[str, Any] | None = None, steps: int = 0) -> None:
        self.path, self._waiting = run / METRICS, bytearray()
        self._torn = self._told = False  # whether a write failed, of which a part may be there; whether that was told
        size, known = (before["bytes"], before["sha256"]) if before else (0, None)
        with writing(self.path):
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (open as long as the run)
            self._file.truncate(min(size, self._file.seek(0, os.SEEK_END)))
            self._file.seek(0)
            self._digest = hashlib.sha256(self._file.read())
            self._size = self._file.seek(0, os.SEEK_END)
        if known and (self._size, self._digest.hexdigest()) != (size, known):
            warnings.warn(f"{self.path} is damaged: it is not what it was at step {steps:,}", stacklevel=3)
        self._board = _Board(run / TENSORBOARD, steps)

    def write(self, kind: str, steps: int, values: dict[str, Any]) -> None:
        """Add a line."""
        line = json.dumps({"kind": kind, "steps": steps, **values}).encode() + b"\n"
        self._waiting += line
        self._digest.update(line)
        self._size += len(line)
        try:
            self._flush()
        except OSError as error:
            if not self._told:
                log.warning("%s cannot be written (%s); its lines wait, and the run goes on", self.path, error.strerror)
            self._told = True
        self._board.write(kind, steps, values)

    def sync(self) -> dict[str, Any]:
        """Wait until the lines are on the disk; their bytes and digest.

        Raises:
            RunError: the disk does not take them.
        """
        with writing(self.path):
            self._flush()
            os.fsync(self._file.fileno())
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):
            self._flush()
        with suppress(OSError):
            self._file.close()
        self._board.close()

    def _flush(self) -> None:
        descriptor = self._file.fileno()
        if self._torn:
            os.ftruncate(descriptor, self._size - len(self._waiting))
        self._torn = bool(self._waiting)
        while self._waiting:
            del self._waiting[: os.write(descriptor, self._waiting)]
        self._torn = self._told = False


def checked(before: Mapping[str, Any]) -> dict[str, Any]:
    """What `sync` said, as a checkpoint kept it. Raises ValueError where it cannot have said that."""
    size, sha256 = int(before["bytes"]), str(before["sha256"])
    if size < 0:
        raise ValueError(f"{size} bytes of metrics")
    return {"bytes": size, "sha256": sha256}


class _Board:
    """TensorBoard's file, one event a line; a failure there is told once and never stops a run.

    Its own writer hands every number to a thread, and the two wait for each other: with episodes of ten steps that
    took as long as training. This one writes at once, all numbers of a line together.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._file: Any = None
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter

            self._event, self._summary = event_pb2.Event, summary_pb2.Summary
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            self._file = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115 (open as long as the run)
            self._add(file_version="brain.Event:2")
            if steps:  # what a run wrote after the checkpoint that it continues from is not to be shown
                self._add(step=steps + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
            self._file.flush()
        except Exception as error:
            self._give_up(error)

    def write(self, kind: str, steps: int, values: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            told = [
                self._summary.Value(tag=f"{kind}/{name}", simple_value=value)
                for name, value in values.items()
                if name not in ("episode", "env") and value is not None
            ]
            self._add(step=steps, summary=self._summary(value=told))
            if kind == "train":
                self._file.flush()
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except Exception as error:
            self._give_up(error)

    def _add(self, **fields: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())

    def _give_up(self, error: Exception) -> None:
        self._file = None
        warnings.warn(f"TensorBoard's files are no longer written: {error}", stacklevel=4)


def read(run: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics, of one kind or all. A torn last line is left out.

    Raises:
        RunError: there are none, or a line is not one of a run's.
    """
    path = run / METRICS
    with reading(path):
        lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        with reading(f"line {number} of {path}"):
            record = json.loads(line)
            if kind in (None, record["kind"]):
                yield {"kind": record["kind"], "steps": record["steps"], **record}
