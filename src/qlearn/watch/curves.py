"""The curves of a run: metrics.jsonl, read as it grows, and few enough points of it to be drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from qlearn.runs.directory import METRICS
from qlearn.runs.files import reading
from qlearn.runs.metrics import DESCRIPTIONS
from qlearn.types import Array
from qlearn.watch.plain import number

POINTS = 600  # of a curve, at most
TRAIN = tuple(name for name in DESCRIPTIONS["train"] if name not in ("mean_return", "episodes"))
PLACES = {name: place for place, name in enumerate(TRAIN, 1)}  # in a row of `Log.train`


class Log:
    """The metrics of a run in memory; `read` takes what has been written since.

    The format is the contract of the run directory: one JSON object a line. A resumed run cuts off what it had
    written after its checkpoint; then all is read anew.
    """

    def __init__(self, run: Path) -> None:
        self.path, self.version = run / METRICS, 0  # the version grows with each change
        self._forget()

    def _forget(self) -> None:
        self.size, self.last_step = 0, 0
        self._tail = b""  # the last bytes that were read, by which another file of the same name is known
        self.episodes: list[tuple[float, ...]] = []  # steps, return, length, mean return
        self.train: list[tuple[float | None, ...]] = []  # steps, and a number for each name of TRAIN

    def read(self) -> bool:
        """Take the new lines; returns whether there were any.

        Raises:
            RunError: the file cannot be read, or a line is not one of a run's.
        """
        if not self.path.exists():
            return False
        with reading(self.path), open(self.path, "rb") as file:
            file.seek(self.size - len(self._tail))
            if file.read(len(self._tail)) != self._tail:
                self._forget()
                file.seek(0)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]  # a line that is still being written comes next time
            if not whole:
                return False
            for line in whole.splitlines():
                self._add(json.loads(line))
        self.size, self._tail, self.version = self.size + len(whole), (self._tail + whole)[-256:], self.version + 1
        return True

    def _add(self, record: dict[str, Any]) -> None:
        kind, steps = record["kind"], number(record["steps"]) or 0.0
        self.last_step = max(self.last_step, int(steps))
        if kind == "episode":
            told = [number(record.get(name)) for name in ("return", "length", "mean_return")]
            self.episodes.append((steps, *(np.nan if value is None else value for value in told)))
        elif kind == "train":
            self.train.append((steps, *(number(record.get(name)) for name in TRAIN)))

    @property
    def last(self) -> dict[str, float | None]:
        """The newest training metrics by name."""
        return dict(zip(TRAIN, self.train[-1][1:], strict=True)) if self.train else {}

    def curves(self) -> dict[str, Any]:
        """The episodes and the training metrics, at no more than `POINTS` places each."""
        return {"episodes": self._episode_curve(), "train": self._train_curves()}

    def _episode_curve(self) -> dict[str, Any]:
        table = np.asarray(self.episodes, float).reshape(-1, 4)
        cuts = buckets(len(table))
        if not len(cuts):
            return {"count": 0, "steps": []}
        ends = np.append(cuts[1:], len(table)) - 1
        returns = table[:, 1]
        return {
            "count": len(table),
            "single": len(cuts) == len(table),
            "steps": table[ends, 0],
            "low": np.fmin.reduceat(returns, cuts),
            "high": np.fmax.reduceat(returns, cuts),
            "mean": average(returns, cuts),
            "length": average(table[:, 2], cuts),
            "mean_return": table[ends, 3],
            "best": float(np.nanmax(returns)) if np.isfinite(returns).any() else None,
        }

    def _train_curves(self) -> dict[str, Any]:
        table = np.asarray([[np.nan if v is None else v for v in row] for row in self.train], float)
        table = table.reshape(-1, 1 + len(TRAIN))
        cuts = buckets(len(table))
        curves: dict[str, Any] = {"count": len(table)}
        idle = table[:, PLACES["updates"]] == 0  # before the first update steps cost nothing
        if not idle.all():
            table[idle, PLACES["steps_per_second"]] = np.nan
        if len(cuts):
            ends = np.append(cuts[1:], len(table)) - 1
            curves["steps"] = table[ends, 0]
            for name, place in PLACES.items():
                if np.isfinite(table[:, place]).any():
                    extreme = np.fmax.reduceat(table[:, place], cuts) if name == "q_max" else None
                    curves[name] = average(table[:, place], cuts) if extreme is None else extreme
        return curves


def buckets(count: int) -> Array:
    """The first index of each of at most `POINTS` equal parts of `count` things."""
    return np.unique(np.linspace(0, count, min(count, POINTS), endpoint=False).astype(np.int64))


def average(values: Array, cuts: Array) -> Array:
    """The mean of the numbers in each part; NaN where there is none."""
    known = np.isfinite(values)
    count = np.add.reduceat(known.astype(float), cuts)
    with np.errstate(invalid="ignore"):
        mean: Array = np.add.reduceat(np.where(known, values, 0.0), cuts) / count
    return mean
