"""What tests/test_durability.py does, at length: `python benchmarks/durability/survive.py kills|damage|failing`.

kills: runs killed by SIGKILL at random instants, again and again, each compared with the run that was not.
damage: files of a run damaged in seven ways, and then read.
failing: CartPole-v1 that raises, returns NaN, hangs and ends its process now and then, beside one that does not.
Results go to benchmarks/results/durability-*.json.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))

import gymnasium as gym
import numpy as np
import torch
from compare import write

from qlearn import presets
from qlearn.config import check, override
from qlearn.runs import archive, session
from qlearn.scores import mean_interval
from tests import test_durability as tests

NAMES = ("MANIFEST", "networks", "training", "state", "rows", "metrics")


def kills(count: int) -> dict[str, Any]:
    """Kills survived, by preset, and how many of them were in a save."""
    archive.SIZE = 1_500  # several segments, though the memory is small
    told: dict[str, Any] = {}
    dice = random.Random(1)
    for preset, env_id, changes, share in tests.KILLED:
        config = tests.small(preset, env_id, **{"runtime": {"checkpoint_steps": 10, "precision": "fp32"}, **changes})
        left, runs, in_saves = round(count * share / 25), 0, 0
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            process = tests.child(partial(session.start, config, run_dir=Path(folder) / "whole"))
            assert os.waitpid(process, 0)[1] == 0
            seconds, whole = time.monotonic() - began, tests.content(Path(folder) / "whole")
            total = left
            while left > 0:
                run = Path(folder) / f"killed-{runs}"
                some = min(left, 10)
                in_saves += tests.killed_until_done(config, run, some, seconds, dice)
                tests.require_equal(tests.content(run), whole)
                left, runs = left - some, runs + 1
                print(preset, total - left, "kills,", in_saves, "in a save; all runs equal", flush=True)
        told[f"{preset}, {env_id}"] = {"kills": total, "in_a_save": in_saves, "runs": runs, "equal": runs}
    return told


def damage(count: int) -> dict[str, Any]:
    """Cases by how a file was damaged; none was read silently."""
    archive.SIZE = 1_500
    dice, told = random.Random(1), dict.fromkeys(tests.HURTS, 0)
    with tempfile.TemporaryDirectory() as folder:
        finished = Path(folder) / "finished"
        session.start(tests.small(steps=200, replay={"prioritized": True}), run_dir=finished)
        for case in range(count):
            how = dice.choice(tests.HURTS)
            copy = Path(folder) / f"copy-{case}"
            tests.damaged_and_read(finished, copy, dice.choice(NAMES), how, dice.random(), dice.randrange(8))
            told[how] += 1
    return told


class Failing(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that fails in every way, once in 500 steps."""

    def step(self, action: Any) -> Any:
        obs, reward, *others = super().step(action)
        if random.random() < 1 / 500:
            how = random.randrange(4)
            if how == 0:
                raise RuntimeError("the motor is stuck")
            if how == 1:
                obs = obs * np.float32("nan")
            if how == 2:
                os._exit(3)
            if how == 3:
                time.sleep(60)
        return obs, reward, *others


def failing(seeds: int) -> list[dict[str, Any]]:
    """Evaluations of CartPole-v1's preset, in an environment that fails and in one that does not."""
    gym.register("Failing-v0", lambda **given: Failing(gym.make("CartPole-v1", **given)))
    rows = []
    for seed in range(1, seeds + 1):
        for env_id in ("Failing-v0", "CartPole-v1"):
            changes: dict[str, Any] = {"id": env_id, "isolated": True, "timeout_seconds": 0.5, "max_restarts": 1_000}
            config = override(presets.get("dqn", "CartPole-v1"), {"seed": seed, "steps": 50_000, "env": changes})
            config = check(override(config, {"until_solved": False, "runtime": {"threads": 1}}))
            with tempfile.TemporaryDirectory() as folder:
                run = session.start(config, run_dir=Path(folder) / "r")
                envs = gym.make("CartPole-v1")
                returns = [played(run.agent, envs, 10_000 + episode) for episode in range(100)]
            rows.append({"env_id": env_id, "seed": seed, "restarts": run.summary["env_restarts"]})
            rows[-1] |= {"evaluation": float(np.mean(returns)), "seconds": round(run.summary["wall_seconds"], 1)}
            print(rows[-1], flush=True)
    return rows


def played(agent: Any, env: Any, seed: int) -> float:
    """The return of a greedy episode."""
    obs, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
        total, over = total + float(reward), terminated or truncated
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=("kills", "damage", "failing"))
    parser.add_argument("--count", type=int, help="of kills (500), damages (1,000), or seeds (3)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = given.count or {"kills": 500, "damage": 1_000, "failing": 3}[given.claim]
    loads = [os.getloadavg()[0]]
    measured: dict[str, Any]
    if given.claim == "failing":
        rows = failing(count)
        means = {}
        for env_id in ("Failing-v0", "CartPole-v1"):
            scores = np.array([row["evaluation"] for row in rows if row["env_id"] == env_id])
            low, high = mean_interval(scores)
            means[env_id] = {"mean": float(scores.mean()), "ci95_low": low, "ci95_high": high}
        measured = {"rows": rows, "aggregate": means}
    else:
        measured = {"survived": {"kills": kills, "damage": damage}[given.claim](count)}
    loads.append(os.getloadavg()[0])
    words = f"{given.claim} --count {count}"
    write(f"durability-{given.claim}", words, loads, {"qlearn": "qlearn"}, folder="durability", count=count, **measured)


if __name__ == "__main__":
    main()
