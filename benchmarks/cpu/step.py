"""Where the time of a step goes: `python benchmarks/cpu/step.py`. The result is benchmarks/results/cpu-profile.json.

The settings are those of compare.py. Methods of a run are timed from outside, the inner ones taken off the outer; what
a clock costs, a tenth of a microsecond twice a call, is not taken off.
"""

import argparse
import os
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from agents import SETTINGS, qlearn
from compare import write

from qlearn import actor, dqn, replay
from qlearn.envs import lockstep
from qlearn.runs import session

PARTS = {  # in their order from the inside
    "the environment, with Gymnasium's wrappers": (lockstep.GymEnvs, "step"),
    "the greedy action": (dqn.Learner, "q_values"),
    "the rest of acting": (actor.Actor, "rollout"),
    "storing": (replay.Uniform, "append"),
    "drawing minibatches": (replay.Uniform, "sample"),
    "updates": (dqn.Learner, "update"),
    "log, metrics, checkpoints": (session.Session, "_take"),
}


def timed(found: dict[str, int], name: str, method: Any) -> Any:
    """The method, whose nanoseconds are added up."""

    def call(*given: Any, **named: Any) -> Any:
        began = time.perf_counter_ns()
        result = method(*given, **named)
        found[name] += time.perf_counter_ns() - began
        return result

    return call


def taken_apart(setting: str) -> dict[str, float]:
    """Microseconds a step of each part, of a run whose libraries are there already."""
    found: dict[str, int] = defaultdict(int)
    before = {name: getattr(owner, method) for name, (owner, method) in PARTS.items()}
    for name, (owner, method) in PARTS.items():
        setattr(owner, method, timed(found, name, before[name]))
    try:
        steps_per_second = qlearn(SETTINGS[setting], 0)
    finally:
        for name, (owner, method) in PARTS.items():
            setattr(owner, method, before[name])
    parts = {name: found[name] / 1e3 / SETTINGS[setting].steps for name in PARTS}
    environment, choice, *_ = parts.values()
    parts["the rest of acting"] -= environment + choice
    parts["all else"] = 1e6 / steps_per_second - sum(parts.values())
    return parts | {"together": 1e6 / steps_per_second}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    loads, medians = [], {}
    for setting in SETTINGS:
        qlearn(SETTINGS[setting], 0)  # compiles
        runs = []
        for _ in range(given.repeats):
            loads.append(os.getloadavg()[0])
            runs.append(taken_apart(setting))
        medians[setting] = {part: round(float(np.median([run[part] for run in runs])), 2) for part in runs[0]}
        print(setting, medians[setting], flush=True)
    write("cpu-profile", f"--repeats {given.repeats}", loads, {"qlearn": "qlearn"}, microseconds_a_step=medians)


if __name__ == "__main__":
    main()
