"""What checkpoints cost: `python benchmarks/durability/cost.py`.

Whole runs with checkpoints and without, in turn: CartPole-v1 with the settings of benchmarks/cpu, Pong with Nature's.
Then a replay memory of a million steps of Pong is filled, with a checkpoint every 10,000 steps: seconds and bytes of
each. The result is benchmarks/results/durability-cost.json.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "atari"))
sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))
import agents
from agents import SETTINGS, speed
from compare import ratio, write
from memory import frames

import qlearn
from qlearn import presets
from qlearn.build import build
from qlearn.config import check
from qlearn.runs import checkpoint
from qlearn.types import Steps

CAPACITY, EVERY, NEVER = 1_000_000, 10_000, 10**9


def filling(folder: Path) -> list[dict[str, float]]:
    """A row for each checkpoint: steps, seconds, megabytes written, megabytes on the disk."""
    parts = build(check(presets.get("nature", "ALE/Pong-v5")))
    assert parts.replay is not None
    shown, zeros, rows = frames("Pong"), np.zeros((1, 1)), []
    for step in range(1, CAPACITY + 5 * EVERY + 1):
        parts.replay.append(Steps(shown[step % len(shown)][None, None], zeros, zeros, zeros, zeros))
        if step % EVERY == 0:
            before = {path for path in folder.rglob("*") if path.is_file()}
            began = time.perf_counter()
            checkpoint.save(parts, folder, step, {}, 2)
            seconds = time.perf_counter() - began
            now = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
            new = sum(size for path, size in now.items() if path not in before)
            rows.append({"steps": step, "seconds": round(seconds, 3), "mb_written": round(new / 1e6, 1)})
            rows[-1]["mb_on_disk"] = round(sum(now.values()) / 1e6, 1)
            if step % (10 * EVERY) == 0:
                print(rows[-1], flush=True)
    parts.envs.close()
    return rows


def cartpole(setting: str, every: int, seed: int) -> float:
    """Steps a second of a run with a checkpoint every so many steps."""
    longer = dataclasses.replace(SETTINGS[setting], steps=62_000)
    return float(agents.qlearn(longer, seed, runtime={"threads": 1, "compile": "compiled", "checkpoint_steps": every}))


def pong(every: int, seed: int) -> float:
    """The same of Pong from pixels with Nature's settings, 5,000 steps."""
    changes: dict[str, Any] = {
        "replay": {"capacity": 20_000, "warmup_steps": 500},
        "runtime": {"compile": "compiled", "log_steps": 500, "checkpoint_steps": every},
    }
    with tempfile.TemporaryDirectory() as folder:
        run = qlearn.train(
            "ALE/Pong-v5",
            preset="nature",
            seed=seed,
            steps=5_000,
            progress=False,
            run_dir=Path(folder) / "run",
            **changes,
        )
        return speed(run.path, 1_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    loads = [os.getloadavg()[0]]
    ways: dict[str, tuple[Callable[[int, int], float], int]] = {
        **{f"CartPole-v1, {name}": (partial(cartpole, name), EVERY) for name in SETTINGS},
        "Pong from pixels": (pong, 1_000),  # ten times as often as a run does
    }
    speeds: dict[str, dict[str, list[float]]] = {name: {"with": [], "without": []} for name in ways}
    for name, (measure, every) in ways.items():
        torch.set_num_threads(1)
        measure(NEVER, 0)  # compiles
        for repeat in range(given.repeats):
            for which, when in (("with", every), ("without", NEVER)):
                loads.append(os.getloadavg()[0])
                speeds[name][which].append(measure(when, repeat))
        print(name, {which: round(float(np.median(found)), 1) for which, found in speeds[name].items()}, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = filling(Path(folder))
    write(
        "durability-cost",
        f"--repeats {given.repeats}",
        loads,
        {"qlearn": "qlearn", "ale": "ale-py"},
        folder="durability",
        steps_per_second=speeds,
        ratios={name: ratio(found["with"], found["without"]) for name, found in speeds.items()},
        filling=rows,
    )


if __name__ == "__main__":
    main()
