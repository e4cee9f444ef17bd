"""What an update of Rainbow costs in updates of DQN: `python benchmarks/cpu/updates.py [--repeats 10]`.

Both are the shipped presets on CartPole-v1, compiled, with one thread, and with the same hidden layers and minibatches.
Timed is `learner.update` alone, on minibatches that are drawn before: no environment, no sampling, no priorities. The
two take turns in one process; the result is benchmarks/results/cpu-updates.json.
"""

import argparse
import os
import time
from typing import Any

import numpy as np
import torch
from compare import ratio, write

from qlearn import presets
from qlearn.build import Parts, build
from qlearn.config import check, override
from qlearn.dqn import Learner

SHAPES = {"16-16-16, batch 32": ((16, 16, 16), 32), "128-128, batch 128": ((128, 128), 128)}
PRESETS = ("dqn", "rainbow")
ROWS, DRAWN = 10_000, 64  # environment steps in the ring; minibatches


def parts(preset: str, hidden: tuple[int, ...], batch_size: int) -> Parts:
    """A run with random steps in its ring."""
    changes: dict[str, Any] = {
        "network": {"hidden": hidden},
        "learner": {"batch_size": batch_size},
        "runtime": {"compile": "compiled", "threads": 1},
    }
    made = build(check(override(presets.get(preset, "CartPole-v1"), changes)))
    assert made.replay is not None
    for _ in range(ROWS):
        made.replay.append(made.actor.rollout(1.0)[0])
    return made


def microseconds(run: Parts, updates: int) -> float:
    """Of one update, the mean of many."""
    learner, replay = run.learner, run.replay
    assert isinstance(learner, Learner)
    assert replay is not None
    drawn = [replay.sample(run.config.learner.batch_size) for _ in range(DRAWN)]
    began = time.perf_counter()
    for k in range(updates):
        learner.update(*drawn[k % DRAWN])
    return 1e6 * (time.perf_counter() - began) / updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--updates", type=int, default=5_000, help="of each repeat")
    given = parser.parse_args()
    torch.set_num_threads(1)
    times: dict[str, dict[str, list[float]]] = {}
    told: dict[str, dict[str, Any]] = {}
    loads = []
    for shape, (hidden, batch_size) in SHAPES.items():
        runs = {preset: parts(preset, hidden, batch_size) for preset in PRESETS}
        for run in runs.values():
            microseconds(run, 500)  # compiles
            assert isinstance(run.learner, Learner)
            assert run.learner.descent.compiled
        times[shape] = {preset: [] for preset in PRESETS}
        for _ in range(given.repeats):
            loads.append(os.getloadavg()[0])
            for preset, run in runs.items():
                times[shape][preset].append(microseconds(run, given.updates))
        told[shape] = {
            **{preset: round(float(np.median(taken)), 2) for preset, taken in times[shape].items()},
            "rainbow_over_dqn": ratio(times[shape]["rainbow"], times[shape]["dqn"]),
        }
        print(shape, told[shape], flush=True)
    write(
        "cpu-updates",
        f"--repeats {given.repeats} --updates {given.updates}",
        loads,
        {"qlearn": "qlearn"},
        median_microseconds=told,
        microseconds=times,
    )


if __name__ == "__main__":
    main()
