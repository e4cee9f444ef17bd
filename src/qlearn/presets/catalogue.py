"""The presets' settings, as changes to the defaults of `qlearn.config`."""

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Any]

# Three-step returns and a slow target keep the values from running away: docs/benchmarks.md shows CartPole without
# them. The falling learning rate is for a last network that is as good as any before it; it stays at its end, so a
# longer run still learns.
DQN: Changes = {
    "steps": 100_000,
    "network": {"hidden": (128, 128)},
    "replay": {"capacity": 100_000, "warmup_steps": 1_000, "n_step": 3, "gamma": 0.99},
    "learner": {
        "batch_size": 128,
        "replay_ratio": 0.5,
        "target_update_steps": 500,
        "loss": "huber",
        "max_grad_norm": 10.0,
    },
    "optimizer": {"learning_rate": 1e-3, "end_learning_rate": 5e-5, "decay_steps": 100_000},
    "exploration": {"start": 1.0, "end": 0.05, "decay_steps": 10_000},
}

WIDE: Changes = {
    "network": {"hidden": (256, 256)},
    "replay": {"n_step": 1},
    "learner": {"replay_ratio": 1.0, "target_update_steps": 250},
    "optimizer": {"learning_rate": 6e-4},
    "exploration": {"end": 0.1},
}

DQN_TUNED: Mapping[str, Changes] = {
    "CartPole": {
        "until_solved": True,
        "optimizer": {"decay_steps": 50_000},
        "exploration": {"decay_steps": 8_000},
    },
    # Both want more updates of a wider network on one-step returns, and more exploration to the end; the values are
    # near rl-baselines3-zoo's, with a learning rate that falls.
    "Acrobot": WIDE,
    "LunarLander": {**WIDE, "replay": {"n_step": 1, "capacity": 50_000}},
    # Random actions never reach the flag, greedy ones on hopeful first values do: so explore greedily early, and let
    # what was tried in vain fall in value fast, over ten steps at a time. The velocity's range of 0.07 is invisible
    # beside the position's until both are brought to [-1, 1].
    "MountainCar": {
        "network": {"rescale": True},
        "replay": {"n_step": 10},
        "optimizer": {"learning_rate": 4e-3, "end_learning_rate": 1e-4},
        "exploration": {"decay_steps": 2_000},
    },
}

# The tutorial's own values, all of them. It draws a minibatch without replacement and stores the end of the time
# limit as a termination; here minibatches are drawn with replacement and truncation bootstraps.
INTRO: Changes = {
    "steps": 1_000_000,  # 5,000 episodes of CartPole-v0 at their longest
    "until_solved": True,
    "max_episodes": 5_000,
    "network": {"torso": "mlp", "hidden": (16, 16, 16)},
    "replay": {"capacity": 10_000, "warmup_steps": 1_000, "gamma": 0.99},
    "learner": {
        "batch_size": 32,
        "replay_ratio": 1.0,
        "target_update_steps": 2_500,
        "loss": "squared",
        "max_grad_norm": 0.0,
    },
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "exploration": {"start": 0.05, "end": 0.05, "decay_steps": 0},
}

# Greedy evaluation, mean of the seeds with its 95 % interval, as benchmarks/results/ has it; a test holds them equal.
DQN_EXPECTED: Mapping[str, str] = {
    "CartPole-v1": "499.8 (499.5 to 500.2), 10 seeds",
    "Acrobot-v1": "-77.3 (-81.9 to -72.6), 5 seeds",
    "MountainCar-v0": "-101.6 (-104.1 to -99.0), 5 seeds",
    "LunarLander-v3": "223.6 (154.7 to 292.4), 5 seeds",
    "Taxi-v4": "-190.3 (-216.5 to -164.1), 3 seeds",
}

INTRO_EXPECTED: Mapping[str, str] = {
    "CartPole-v0": "200.0 (200.0 to 200.0), 10 seeds",
}
