"""The presets' settings, as changes to the defaults of `qlearn.config`."""

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Any]

DQN: Changes = {}

DQN_TUNED: Mapping[str, Changes] = {}

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
