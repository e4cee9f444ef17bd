"""Stable-Baselines3's DQN as the RL Zoo runs it: `python zoo.py ENV --seed N --every K --out FILE`.

The settings are those of rl-baselines3-zoo's hyperparams/dqn.yml, as of its commit 22e3ff2 (April 2026). Every K
environment steps a copy of the weights is put aside with the time; after the training all go to FILE. This process does
not import qlearn.
"""

import argparse
import time
from typing import Any

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

ZOO: dict[str, tuple[int, dict[str, Any]]] = {  # n_timesteps, and DQN's arguments
    "CartPole-v1": (
        50_000,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "LunarLander-v3": (
        100_000,
        {
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "buffer_size": 50_000,
            "learning_starts": 0,
            "gamma": 0.99,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": -1,
            "exploration_fraction": 0.12,
            "exploration_final_eps": 0.1,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
}


class Keep(BaseCallback):  # type: ignore[misc]
    """Puts the weights aside, with the environment steps and the time."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.kept = every, list[tuple[int, float, dict[str, torch.Tensor]]]()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            weights = {name: tensor.clone() for name, tensor in self.model.q_net.state_dict().items()}
            self.kept.append((self.num_timesteps, time.time(), weights))
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env", choices=ZOO)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    steps, settings = ZOO[given.env]
    keep = Keep(given.every)
    agent = DQN("MlpPolicy", given.env, seed=given.seed, device="cpu", **settings)
    agent.learn(steps, callback=keep)
    torch.save(keep.kept, given.out)


if __name__ == "__main__":
    main()
