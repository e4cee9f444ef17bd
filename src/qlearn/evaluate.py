"""Evaluation: full episodes with raw rewards under a policy that does not learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qlearn.actor import Window
from qlearn.scores import mean_interval
from qlearn.types import Array, Envs

MAX_EPISODE_STEPS = 100_000  # an environment without a limit of its own must not keep an evaluation for ever


@dataclass(frozen=True)
class Evaluation:
    """The returns of an evaluation, in the order of the episodes' seeds, and how they came about."""

    env_id: str
    returns: list[float]
    protocol: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The object that `qlearn evaluate --json` prints; ci is the 95 % interval of the mean over episodes."""
        returns = np.asarray(self.returns)
        low, high = mean_interval(returns)
        return {
            "env_id": self.env_id,
            "episodes": len(returns),
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "median": float(np.median(returns)),
            "ci_low": low,
            "ci_high": high,
            "returns": self.returns,
            "protocol": self.protocol,
        }


def play(policy: Callable[[Array], Array], envs: Envs, episodes: int, *, stack: int = 1) -> tuple[list[float], int]:
    """Returns of `episodes` whole episodes in the order of their seeds, and how many of them had to be cut.

    Episode number n is played by environment n mod E, so short episodes are not favoured, and the returns do not
    depend on how many environments share the work. `policy` maps `[E, *shape]` to actions `[E]`.
    """
    lanes = envs.num_envs
    obs = envs.reset()
    window = Window(obs, stack)
    totals, lengths = np.zeros(lanes), np.zeros(lanes, np.int64)
    number = np.arange(lanes)  # the episode that each environment plays
    ended = np.zeros(lanes, np.bool_)
    returns: dict[int, float] = {}
    cut = 0
    while len(returns) < episodes:
        obs, reward, _, done = envs.step(policy(window.view()))
        window.push(obs, ended)
        totals += reward
        lengths += ~ended
        number += lanes * ended
        ended = done
        too_long = ~ended & (lengths >= MAX_EPISODE_STEPS)
        for lane in np.flatnonzero(ended | too_long):
            if number[lane] < episodes and number[lane] not in returns:
                returns[int(number[lane])] = float(totals[lane])
                cut += int(too_long[lane])
            if ended[lane]:
                totals[lane], lengths[lane] = 0.0, 0
    return [returns[n] for n in range(episodes)], cut


def evaluate(
    policy: Callable[[Array], Array],
    envs: Envs,
    episodes: int,
    *,
    env_id: str,
    stack: int = 1,
    protocol: dict[str, Any],
) -> Evaluation:
    """Play `episodes` whole episodes; the protocol is recorded with the returns."""
    returns, cut = play(policy, envs, episodes, stack=stack)
    return Evaluation(env_id, returns, {**protocol, "episodes_cut": cut, "max_episode_steps": MAX_EPISODE_STEPS})
