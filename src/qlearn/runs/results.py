"""The results of a suite: a row for each run that is done, in one file, and what is said of them together."""

import json
import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from qlearn.config import Config, to_dict
from qlearn.errors import UsageError
from qlearn.runs import metrics
from qlearn.runs.files import reading, replace_file
from qlearn.scores import bootstrap_interval, iqm

RESULTS, FIGURE, POINTS = "results.json", "suite.png", 200
PROTOCOL = (
    "greedy policy of the last checkpoint (of Atari's with the epsilon in evaluation.protocol), {episodes} episodes a "
    "seed, reset seeds that training did not use; "
    "a seed's score is their mean, ci95 the percentile bootstrap interval of the interquartile mean (iqm) of the seeds"
)

Row = dict[str, Any]


def is_suite(path: Path) -> bool:
    """Whether `path` is the directory of a suite that has results, or a file of results."""
    return (path / RESULTS).exists() or (path.is_file() and path.suffix == ".json")


def read(path: Path) -> list[Row]:
    """The rows of the suite in the directory `path`, or of a file of results.

    Raises:
        UsageError: it has none. RunError: the file is damaged.
    """
    if not is_suite(path):
        raise UsageError(f"{path} is no suite: it has no {RESULTS}")
    file = path / RESULTS if path.is_dir() else path
    with reading(file):
        rows = json.loads(file.read_bytes())["rows"]
        return [{**row, "score": float(row["evaluation"]["mean"]), "run": str(row["run"])} for row in rows]


def write(path: Path, header: dict[str, Any], rows: Sequence[Row]) -> None:
    """Replace the results of the suite in `path`: the header, what is said of the rows together, the rows."""
    bare = [{k: v for k, v in row.items() if k != "score"} for row in rows]
    data = {**header, "aggregate": aggregate(rows), "human_normalized": beside_humans(rows), "rows": bare}
    replace_file(path / RESULTS, json.dumps(data, indent=1).encode() + b"\n")


def row(config: Config, label: str, path: Path, run: str, outcome: dict[str, Any]) -> Row:
    """The row of the run in `path` that has just ended; `outcome` has its evaluation and its summary.

    With its configuration and its curve it says all that tables and figures need, also where the run is gone.
    """
    return {
        "env": config.env.id,
        "preset": config.preset,
        "label": label,
        "seed": config.seed,
        "run": run,
        "config": to_dict(config),
        "curve": curve(path),
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "evaluation": outcome["evaluation"],
        "summary": outcome["summary"],
        "score": outcome["evaluation"]["mean"],
    }


def curve(path: Path) -> list[tuple[int, float]]:
    """Environment steps and the running mean of the returns, at no more than `POINTS` ends of episodes."""
    with reading(path):
        points = [(int(r["steps"]), round(float(r["mean_return"]), 3)) for r in metrics.read(path, "episode")]
    return [points[i] for i in np.unique(np.linspace(0, len(points) - 1, POINTS).astype(int))] if points else []


def aggregate(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each environment and label: the environments by name, the best label of each first."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for each in rows:
        groups[each["env"], each["label"]].append(each)
    lines = []
    for (env, label), of in groups.items():
        scores = np.array([each["score"] for each in of])
        low, high = bootstrap_interval([scores])
        lines.append(
            {
                "env": env,
                "label": label,
                "seeds": len(of),
                "iqm": float(iqm(scores)),
                "ci95_low": float(low),
                "ci95_high": float(high),
                "mean": float(scores.mean()),
                "worst_seed": float(scores.min()),
                "median_wall_seconds": float(np.median([each["summary"]["wall_seconds"] for each in of])),
            }
        )
    return sorted(lines, key=lambda line: (line["env"], -line["iqm"], line["label"]))


def beside_humans(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each label that has Atari games: the human-normalised scores of all its games and seeds together.

    iqm is over games and seeds, its interval a bootstrap over the seeds of each game; median and mean are over the
    games' means.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in rows:
        if "human_normalized" in each["evaluation"]:
            found[each["label"]][each["env"]].append(float(each["evaluation"]["human_normalized"]))
    lines = []
    for label, games in found.items():
        strata = [np.array(scores) for scores in games.values()]
        low, high = bootstrap_interval(strata)
        means = np.array([scores.mean() for scores in strata])
        lines.append(
            {
                "label": label,
                "games": len(games),
                "runs": sum(map(len, strata)),
                "iqm": float(iqm(np.concatenate(strata))),
                "ci95_low": float(low),
                "ci95_high": float(high),
                "median": float(np.median(means)),
                "mean": float(means.mean()),
            }
        )
    return sorted(lines, key=lambda line: (-line["iqm"], line["label"]))


def machine() -> dict[str, Any]:
    """What it was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("qlearn", "torch", "gymnasium", "numpy")},
    }
