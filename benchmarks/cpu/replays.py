"""One library's loop with uniform and with prioritised replay of a million steps: `python replays.py LIBRARY`.

DQN on CartPole-v1: hidden layers 128-128, minibatches of 128, three-step returns, an update every two steps, and one
thread. Each memory is full before the clock runs: of random play, over and over, with random priorities. The learning
rate is next to nothing, so the policy, and with it what the starts of episodes cost, stays the same. The two loops take
turns in this process, which prints a line of JSON: the steps per second of each turn.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

CAPACITY, TILE = 1_000_000, 10_000
HIDDEN, BATCH, N_STEP, EVERY, TARGET, LEARNING_RATE, EPSILON = (128, 128), 128, 3, 2, 500, 1e-9, 0.05
ALPHA, BETA = 0.6, 0.4
KINDS = ("uniform", "prioritized")

Advance = Callable[[int], None]  # the loop, so many environment steps further


def qlearn(kind: str, seed: int) -> Advance:
    """The presets `dqn` and `per`."""
    from qlearn import presets
    from qlearn.build import build
    from qlearn.config import check, override
    from qlearn.prioritized import Prioritized
    from qlearn.types import Steps

    changes: dict[str, Any] = {
        "seed": seed,
        "steps": 10**9,
        "network": {"hidden": HIDDEN},
        "replay": {"capacity": CAPACITY, "warmup_steps": 0, "n_step": N_STEP},
        "learner": {"batch_size": BATCH, "replay_ratio": 1 / EVERY, "target_update_steps": TARGET},
        "optimizer": {"learning_rate": LEARNING_RATE, "end_learning_rate": None},
        "exploration": {"start": EPSILON, "end": EPSILON, "decay_steps": 0},
        "runtime": {"threads": 1, "compile": "compiled"},
    }
    preset = "dqn" if kind == "uniform" else "per"
    parts = build(check(override(presets.get(preset, "CartPole-v1"), changes)))
    replay = parts.replay
    assert replay is not None
    rows = [parts.actor.rollout(1.0)[0] for _ in range(TILE)]
    tile = Steps(*(np.concatenate(column) for column in list(zip(*rows, strict=True))[:5]))
    for _ in range(CAPACITY // TILE):
        replay.append(tile)
    ticks = parts.train()
    next(ticks)
    if isinstance(replay, Prioritized):
        replay.sample(BATCH)
        leaves = replay.tree.leaves
        errors = np.random.default_rng(seed).random(len(leaves))
        replay.tree.set(np.arange(len(leaves)), np.where(leaves > 0, errors**ALPHA, 0.0))
    assert replay.ring.fill == 1.0

    def advance(steps: int) -> None:
        for _ in range(steps):
            next(ticks)

    return advance


def tianshou(kind: str, seed: int) -> Advance:
    """Tianshou 2: its collector and its update in turn, as its trainer calls them."""
    import gymnasium as gym
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch, Collector, CollectStats, PrioritizedReplayBuffer, ReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net
    from tianshou.utils.torch_utils import policy_within_training_step

    torch.manual_seed(seed)
    np.random.seed(seed)
    env = gym.make("CartPole-v1")
    space = env.action_space
    assert isinstance(space, gym.spaces.Discrete)
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=(4,), action_shape=int(space.n), hidden_sizes=HIDDEN),
        action_space=space,
        eps_training=EPSILON,
    )
    algorithm = DQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=LEARNING_RATE),
        n_step_return_horizon=N_STEP,
        target_update_freq=TARGET // EVERY,
        is_double=False,
    )
    full = ReplayBuffer.from_data(**played(env, seed))
    buffer = full
    if kind == "prioritized":
        buffer = PrioritizedReplayBuffer(CAPACITY, alpha=ALPHA, beta=BETA)
        buffer.update(full)
        buffer.update_weight(np.arange(CAPACITY), np.random.default_rng(seed).random(CAPACITY))
    assert len(buffer) == CAPACITY
    envs = DummyVectorEnv([lambda: gym.make("CartPole-v1")])
    collector = Collector[CollectStats](policy, envs, buffer, exploration_noise=True)
    collector.reset_env()
    assert isinstance(collector.buffer[0], Batch)

    def advance(steps: int) -> None:
        with policy_within_training_step(policy):
            for _ in range(steps // EVERY):
                collector.collect(n_step=EVERY)
                algorithm.update(buffer=buffer, sample_size=BATCH)

    return advance


def played(env: Any, seed: int) -> dict[str, Any]:
    """A million steps as columns: random play, over and over."""
    rows, rng = [], np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    for _ in range(TILE):
        action = int(rng.integers(env.action_space.n))
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, action, float(reward), terminated, truncated, terminated or truncated, following))
        obs = env.reset()[0] if terminated or truncated else following
    names = ("obs", "act", "rew", "terminated", "truncated", "done", "obs_next")
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return {n: np.tile(c, (CAPACITY // TILE, *[1] * (c.ndim - 1))) for n, c in zip(names, columns, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=["qlearn", "tianshou"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4_000, help="of each turn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    make = {"qlearn": qlearn, "tianshou": tianshou}[given.library]
    loops = {kind: make(kind, given.seed) for kind in KINDS}
    speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for advance in loops.values():
        advance(1_000)
    for _ in range(given.turns):
        for kind, advance in loops.items():
            began = time.perf_counter()
            advance(given.steps)
            speeds[kind].append(given.steps / (time.perf_counter() - began))
    print(json.dumps(speeds))


if __name__ == "__main__":
    main()
