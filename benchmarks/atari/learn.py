"""Does it learn Atari? `python benchmarks/atari/learn.py CLAIM [--seeds 2] [--jobs 2]`.

Each seed is `qlearn train` as a process of its own, then 30 full games of its last network with epsilon 0.05 (Nature's)
and as many with 0.001, and of a random player. Rows go to benchmarks/results/atari-CLAIM.json as they come; the runs
stay in --runs.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))
from compare import write

import qlearn
from qlearn.envs import make_envs
from qlearn.evaluate import evaluate
from qlearn.runs.results import curve
from qlearn.scores import mean_interval

EPISODES = 30
RAM = "--env.obs-type ram --network.torso mlp --network.hidden 256 256 --steps 300000"
CLAIMS = {
    "pong": "ALE/Pong-v5 --preset atari-quick",
    "breakout-ram": f"ALE/Breakout-v5 --preset atari-quick {RAM}",
    "breakout": "ALE/Breakout-v5 --preset atari-quick",
}


def one(claim: str, seed: int, folder: Path, threads: int) -> dict[str, Any]:
    """A seed's row."""
    path = folder / f"{claim}-seed{seed}"
    words = shlex.split(CLAIMS[claim])
    program = Path(sys.executable).parent / "qlearn"
    given = [
        "--seed",
        str(seed),
        "--run-dir",
        str(path),
        "--runtime.threads",
        str(threads),
        "--runtime.compile",
        "compiled",
    ]
    began = time.perf_counter()
    subprocess.run([program, "train", *words, *given], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    told = qlearn.evaluate(path, episodes=EPISODES, num_envs=5, epsilon=0.05)
    greedy = qlearn.evaluate(path, episodes=EPISODES, num_envs=5, epsilon=0.001)
    summary = json.loads((path / "summary.json").read_text())
    return {
        "seed": seed,
        "wall_seconds": round(seconds, 1),
        "evaluation": told.summary(),
        "evaluation_epsilon_0.001": greedy.summary()["mean"],
        "summary": summary,
        "curve": curve(path),
    }


def random_player(claim: str) -> float:
    """The mean score of random actions over as many games."""
    env_id = CLAIMS[claim].split()[0]
    envs = make_envs(env_id, 5, seed=1, stream="evaluate", kwargs={"protocol": "nature"})
    actions = envs.space.num_actions
    told = evaluate(lambda obs: torch.zeros(len(obs), actions), envs, EPISODES, env_id=env_id, epsilon=1.0)
    return float(np.mean(told.returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, with one thread each if more than one")
    parser.add_argument("--runs", type=Path, default=Path("runs-atari"))
    given = parser.parse_args()
    loads, rows = [os.getloadavg()[0]], []
    with ThreadPoolExecutor(given.jobs) as pool:
        threads = 1 if given.jobs > 1 or "ram" in given.claim else 0
        waiting = [pool.submit(one, given.claim, seed, given.runs, threads) for seed in range(1, given.seeds + 1)]
        for future in waiting:
            rows.append(future.result())
            loads.append(os.getloadavg()[0])
            scores = np.array([row["evaluation"]["mean"] for row in rows])
            low, high = mean_interval(scores)
            write(
                f"atari-{given.claim}",
                f"{given.claim} --seeds {given.seeds} --jobs {given.jobs}",
                loads,
                {"qlearn": "qlearn", "ale": "ale-py"},
                folder="atari",
                train=f"qlearn train {CLAIMS[given.claim]} --seed SEED",
                random_player=random_player(given.claim),
                aggregate={"mean": float(scores.mean()), "ci95_low": low, "ci95_high": high, "seeds": len(rows)},
                rows=rows,
            )
            print(given.claim, rows[-1]["seed"], rows[-1]["evaluation"]["mean"], flush=True)


if __name__ == "__main__":
    main()
