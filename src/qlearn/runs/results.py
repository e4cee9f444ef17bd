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

from qlearn.errors import UsageError
from qlearn.runs.files import reading, replace_file
from qlearn.scores import bootstrap_interval, iqm

RESULTS, FIGURE = "results.json", "suite.png"
PROTOCOL = (
    "greedy policy of the last checkpoint, {episodes} episodes a seed, reset seeds that training did not use; "
    "a seed's score is their mean, ci95 the percentile bootstrap interval of the interquartile mean (iqm) of the seeds"
)

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The rows of the suite in `path`.

    Raises:
        UsageError: it has none. RunError: the file is damaged.
    """
    if not (path / RESULTS).exists():
        raise UsageError(f"{path} is no suite: it has no {RESULTS}")
    with reading(path / RESULTS):
        rows = json.loads((path / RESULTS).read_bytes())["rows"]
        return [{**row, "score": float(row["evaluation"]["mean"]), "run": str(row["run"])} for row in rows]


def write(path: Path, header: dict[str, Any], rows: Sequence[Row]) -> None:
    """Replace the results of the suite in `path`: the header, what is said of the rows together, the rows."""
    bare = [{k: v for k, v in row.items() if k != "score"} for row in rows]
    data = {**header, "aggregate": aggregate(rows), "rows": bare}
    replace_file(path / RESULTS, json.dumps(data, indent=1).encode() + b"\n")


def row(env: str, preset: str, label: str, seed: int, run: str, outcome: dict[str, Any]) -> Row:
    """The row of a run that has just ended; `outcome` has its evaluation and its summary."""
    return {
        "env": env,
        "preset": preset,
        "label": label,
        "seed": seed,
        "run": run,
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "evaluation": outcome["evaluation"],
        "summary": outcome["summary"],
        "score": outcome["evaluation"]["mean"],
    }


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
