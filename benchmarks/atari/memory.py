"""What a replay memory of Atari frames takes: `python benchmarks/atari/memory.py`.

Steps of a random player go into each memory, and the resident size of the process is read as it fills: qlearn's, plain
and compressed, and Stable-Baselines3's, plain and with its `optimize_memory_usage`, as far as they fit the machine.
Each is a process of its own; the result is benchmarks/results/atari-memory.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))
from compare import write

from qlearn.types import Array

CAPACITY, EVERY = 1_000_000, 50_000
MOST = 18e9  # bytes, of a machine of 24 GB
WAYS = ("plain", "compressed", "sb3", "sb3-optimized")


def resident() -> int:
    """Bytes of this process that are in memory."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def frames(game: str) -> Array:
    """Frames of a random player, `[20,000, 84, 84]`, that are used again and again: what they take is what matters."""
    from qlearn.envs import make_envs

    envs, rng = make_envs(f"ALE/{game}-v5", 4, kwargs={"protocol": "nature"}), np.random.default_rng(0)
    envs.reset()
    return np.concatenate([envs.step(rng.integers(0, 3, 4))[0] for _ in range(5_000)])


def one(way: str, game: str, steps: int) -> list[tuple[int, float]]:
    """Steps and gigabytes, what the process had before taken off."""
    shown = frames(game)
    zeros = np.zeros(1)
    if way in ("plain", "compressed"):
        from qlearn.replay import Ring
        from qlearn.types import Space, Steps

        before = resident()
        ring = Ring(Space((84, 84), np.dtype(np.uint8), 6), CAPACITY, 1, stack=4, compress=32 * (way == "compressed"))

        def add(step: int) -> None:
            ring.append(Steps(shown[step % len(shown)][None, None], *(zeros[None],) * 4))
    else:
        from gymnasium.spaces import Box, Discrete
        from stable_baselines3.common.buffers import ReplayBuffer

        before = resident()
        space, optimized = Box(0, 255, (4, 84, 84), np.uint8), way.endswith("optimized")
        try:
            memory = ReplayBuffer(
                CAPACITY, space, Discrete(6), optimize_memory_usage=optimized, handle_timeout_termination=not optimized
            )
        except MemoryError as error:
            print(error, file=sys.stderr)
            return []  # the machine does not give so much

        def add(step: int) -> None:
            at = step % (len(shown) - 5)
            obs, after = shown[at : at + 4][None], shown[at + 1 : at + 5][None]
            memory.add(obs, after, np.zeros((1, 1)), zeros, zeros, [{}])

    found = []
    for step in range(steps):
        if step % EVERY == 0:
            found.append((step, round((resident() - before) / 1e9, 3)))
            if resident() > MOST:
                return found
        add(step)
    return [*found, (steps, round((resident() - before) / 1e9, 3))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=["Pong", "Breakout", "MsPacman"])
    parser.add_argument("--steps", type=int, default=CAPACITY)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "GAME"))
    given = parser.parse_args()
    if given.one:
        began = time.perf_counter()
        way, game = given.one
        curve = one(way, game, given.steps)
        print(json.dumps({"curve": curve, "seconds": round(time.perf_counter() - began, 1)}))
        return
    gigabytes: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for game in given.games:
        gigabytes[game] = {}
        for way in WAYS if game == given.games[0] else WAYS[1:2]:
            words = [sys.executable, __file__, "--one", way, game, "--steps", str(given.steps)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            gigabytes[game][way] = json.loads(done.stdout.splitlines()[-1])["curve"]
            print(game, way, gigabytes[game][way][-1:], flush=True)
            write(
                "atari-memory",
                f"--games {' '.join(given.games)} --steps {given.steps}",
                [],
                {"qlearn": "qlearn", "sb3": "stable-baselines3", "ale": "ale-py"},
                folder="atari",
                gigabytes_by_steps=gigabytes,
            )


if __name__ == "__main__":
    main()
