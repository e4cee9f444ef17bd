"""Agent steps a second of Atari from pixels, qlearn beside Stable-Baselines3: `python benchmarks/atari/throughput.py`.

Pong with Nature's settings in both: the same network, minibatches of 32, an update every four steps, one environment,
Adam for SB3's sake. Both use all cores. Each measurement is a process of its own, libraries take turns; timed are the
steps after the first updates. Results go to benchmarks/results/atari-throughput.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))
from agents import speed
from compare import ratio, write

WARMUP, AFTER, STEPS = 500, 600, 3_000  # random steps; steps that are not timed; steps
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "qlearn": {},
    "qlearn-fp32": {"runtime": {"precision": "fp32"}},
    "qlearn-compress": {"replay": {"compress": True}},
    "qlearn-eager-fp32": {"runtime": {"compile": "eager", "precision": "fp32"}},
    "sb3": {},
}


def qlearn(way: str, seed: int) -> float:
    """By the run's own metrics."""
    import qlearn as library

    changes: dict[str, Any] = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        run = library.train(
            "ALE/Pong-v5",
            preset="nature",
            seed=seed,
            progress=False,
            run_dir=Path(folder) / "run",
            steps=STEPS,
            replay={"capacity": 20_000, "warmup_steps": WARMUP, **changes.get("replay", {})},
            optimizer={"name": "adam", "learning_rate": 1e-4, "epsilon": 1e-8},
            exploration={"start": 0.1, "end": 0.1},
            runtime={"compile": "compiled", "log_steps": 100, **changes.get("runtime", {})},
        )
        return speed(run.path, AFTER)


def stable_baselines(seed: int) -> float:
    """With its Atari wrappers, as its zoo makes them."""
    import ale_py
    import gymnasium
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    class Clock(BaseCallback):  # type: ignore[misc]
        began = 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps == AFTER:
                self.began = time.perf_counter()
            return True

    gymnasium.register_envs(ale_py)
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=1, seed=seed), n_stack=4)
    agent = DQN(
        "CnnPolicy",
        env,
        learning_rate=1e-4,
        buffer_size=20_000,
        learning_starts=WARMUP,
        batch_size=32,
        train_freq=4,
        gradient_steps=1,
        target_update_interval=10_000,
        exploration_fraction=1.0,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        seed=seed,
        device="cpu",
    )
    clock = Clock()
    agent.learn(STEPS, callback=clock)
    return (STEPS - AFTER) / (time.perf_counter() - clock.began)


def told(way: str, seed: int) -> float:
    """The line that a process of its own ends with."""
    words = [sys.executable, __file__, "--one", way, "--seed", str(seed)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["steps_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--one", choices=list(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.one:
        found = stable_baselines(given.seed) if given.one == "sb3" else qlearn(given.one, given.seed)
        print(json.dumps({"way": given.one, "threads": torch.get_num_threads(), "steps_per_second": found}))
        return
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    loads = []
    for way in WAYS:
        if "eager" not in way and way != "sb3":
            told(way, 0)  # compiles
    for repeat in range(given.repeats):
        for way in WAYS:
            loads.append(os.getloadavg()[0])
            speeds[way].append(told(way, repeat))
            print(way, f"{speeds[way][-1]:,.1f} steps/s", flush=True)
        write(
            "atari-throughput",
            f"--repeats {given.repeats}",
            loads,
            {"qlearn": "qlearn", "sb3": "stable-baselines3", "ale": "ale-py"},
            folder="atari",
            steps_per_second=speeds,
            median={way: round(float(np.median(of)), 1) for way, of in speeds.items()},
            ratios={way: ratio(speeds["qlearn"], speeds[way]) for way in WAYS if way != "qlearn" and repeat},
        )


if __name__ == "__main__":
    main()
