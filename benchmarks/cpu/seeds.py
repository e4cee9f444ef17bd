"""What ten seeds in one process cost in seeds of one: `python benchmarks/cpu/seeds.py [--repeats 3]`.

Each measurement is the command as a user types it, `qlearn train CartPole-v1 ... --seeds N`, from the start of the
process to its end, libraries cached; N = 1 and N = 10 take turns. Beside it, the ten as two processes of five at a
time. The result is benchmarks/results/cpu-seeds.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from compare import ratio, write

SETTINGS = {
    "16-16-16, batch 32, an update every step": (
        *("--preset", "intro", "--steps", "30000", "--no-until-solved", "--network.hidden", "16", "16", "16"),
        *("--learner.batch-size", "32", "--learner.replay-ratio", "1", "--replay.capacity", "10000"),
    ),
    "120-84, batch 128, an update every 10 steps": (
        *("--preset", "intro", "--steps", "30000", "--no-until-solved", "--network.hidden", "120", "84"),
        *("--learner.batch-size", "128", "--learner.replay-ratio", "0.1", "--replay.capacity", "10000"),
    ),
}
WAYS = {"one": ((0, 1),), "ten": ((0, 10),), "two of five": ((0, 5), (5, 5))}  # processes: first seed, and how many


def seconds(setting: str, way: str) -> float:
    """From the start of the first process to the end of the last."""
    program = Path(sys.executable).parent / "qlearn"
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        running = [
            subprocess.Popen(
                [program, "train", "CartPole-v1", *SETTINGS[setting], "--seed", str(first), "--seeds", str(count)],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for first, count in WAYS[way]
        ]
        if any(process.wait() for process in running):
            raise RuntimeError(f"{way} failed")
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    loads, taken, ratios = [], {}, {}
    for setting in SETTINGS:
        taken[setting] = {way: list[float]() for way in WAYS}
        for way in WAYS:
            seconds(setting, way)  # compiles
        for repeat in range(given.repeats):
            for way in WAYS:
                loads.append(os.getloadavg()[0])
                taken[setting][way].append(round(seconds(setting, way), 3))
            print(setting, {way: f"{np.median(times):.1f} s" for way, times in taken[setting].items()}, flush=True)
            if repeat:
                one = taken[setting]["one"]
                ratios[setting] = {way: ratio(times, one) for way, times in taken[setting].items() if way != "one"}
            write(
                "cpu-seeds",
                f"--repeats {given.repeats}",
                loads,
                {"qlearn": "qlearn"},
                settings={name: " ".join(words) for name, words in SETTINGS.items()},
                seconds=taken,
                times_one_seed=ratios,
            )


if __name__ == "__main__":
    main()
