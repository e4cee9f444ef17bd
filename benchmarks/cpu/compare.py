"""qlearn beside its peers, in one run: `python benchmarks/cpu/compare.py SETTING ... [--repeats 5]`.

Each measurement is a process of its own; libraries take turns, so what else the machine does falls on all of them. A
ratio is of two neighbours in time; its interval is Student's t over the logarithms of the repeats. Results go to
benchmarks/results/cpu-SETTING.json as they come. Run it on a quiet machine: the load average is in the file.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from agents import SETTINGS

from qlearn.runs.results import machine
from qlearn.scores import mean_interval

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
LIBRARIES = {"qlearn": "qlearn", "qlearn-eager": "qlearn", "sb3": "stable-baselines3", "sbx": "sbx-rl"}


def measure(library: str, setting: str, seed: int) -> float:
    """Steps per second of one process."""
    return float(told("agents.py", library, setting, "--seed", seed)["steps_per_second"])


def told(script: str, *words: object) -> dict[str, Any]:
    """The line of JSON that a script beside this one ends with, run as a process of its own with one thread."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    )
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """How many times faster, with its 95 % interval."""
    logs = np.log(np.array(ours) / np.array(theirs))
    low, high = mean_interval(logs)
    return {"ratio": float(np.exp(logs.mean())), "ci95_low": float(np.exp(low)), "ci95_high": float(np.exp(high))}


def write(
    name: str, arguments: str, loads: list[float], packages: dict[str, str], *, folder: str = "cpu", **measured: Any
) -> None:
    """The file of a result: where, when and of what it was measured, then what was."""
    script = Path(sys.argv[0]).name
    header = {
        "name": name,
        "command": f"python benchmarks/{folder}/{script} {arguments}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average": [round(load, 2) for load in loads],
        "versions": {library: version(package) for library, package in packages.items()},
    }
    (RESULTS / f"{name}.json").write_text(json.dumps({**header, **measured}, indent=1) + "\n")


def compare(setting: str, repeats: int) -> None:
    """All libraries in turn, and the file."""
    speeds: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    loads = []
    measure("qlearn", setting, 0)  # compiles
    for repeat in range(repeats):
        for name in LIBRARIES:
            loads.append(os.getloadavg()[0])
            speeds[name].append(measure(name, setting, repeat))
            print(setting, name, f"{speeds[name][-1]:,.0f} steps/s", flush=True)
        write(
            f"cpu-{setting}",
            f"{setting} --repeats {repeats}",
            loads,
            LIBRARIES,
            setting=SETTINGS[setting].__dict__,
            steps_per_second=speeds,
            ratios={name: ratio(speeds["qlearn"], speeds[name]) for name in LIBRARIES if name != "qlearn" and repeat},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", choices=[[], *SETTINGS], metavar="SETTING")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    for setting in given.settings or SETTINGS:
        compare(setting, given.repeats)


if __name__ == "__main__":
    main()
