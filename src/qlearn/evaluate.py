"""Evaluation: full episodes with raw rewards under a policy that does not learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from qlearn.actor import Actor
from qlearn.atari57 import human_normalized, references
from qlearn.scores import mean_interval
from qlearn.types import Envs, Episode

MAX_EPISODE_STEPS = 100_000  # an environment without a limit of its own must not keep an evaluation for ever


@dataclass(frozen=True)
class Evaluation:
    """The returns of an evaluation, in the order of the episodes' seeds, and how they came about."""

    env_id: str
    returns: list[float]
    protocol: dict[str, Any]
    game: str = ""  # of Atari, by its ROM's name

    def summary(self) -> dict[str, Any]:
        """The object that `qlearn evaluate --json` prints; ci is the 95 % interval of the mean over episodes.

        Of an Atari game it has the human-normalised mean too, and what a random player and a human score.
        """
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
            **self._beside_humans(float(returns.mean())),
        }

    def _beside_humans(self, mean: float) -> dict[str, Any]:
        normalized = human_normalized(self.game, mean)
        if normalized is None:
            return {}
        random, human = references()[self.game]
        return {"human_normalized": normalized, "random_score": random, "human_score": human}


def evaluate(
    q_values: Callable[[Tensor], Tensor],
    envs: Envs,
    episodes: int,
    *,
    env_id: str,
    epsilon: float = 0.0,
    rng: np.random.Generator | None = None,
    stack: int = 1,
    limit: int | None = None,
    protocol: dict[str, Any] | None = None,
    game: str = "",
) -> Evaluation:
    """Play `episodes` whole episodes, greedily but for epsilon.

    Episode number n is played by environment n mod E, so short episodes are not favoured, and with epsilon 0 the
    returns do not depend on how many environments share the work.

    Args:
        q_values: observations `[E, *shape]` to Q-values `[E, A]`.
        envs: the environments, not yet reset.
        episodes: how many.
        env_id: their name, for the record.
        epsilon: probability of a random action, drawn from `rng`.
        rng: by default one with seed 0.
        stack: observations that the network sees at once.
        limit: steps after which an episode counts as cut, by the environment's own limit.
        protocol: what else the record should say.
        game: the ROM's name of an Atari game.
    """
    actor = Actor(
        envs, q_values, rng or np.random.default_rng(0), stack=stack, limit=max(limit or 0, MAX_EPISODE_STEPS)
    )
    number = np.arange(envs.num_envs)  # of the episode that each environment plays
    finished: dict[int, Episode] = {}
    while len(finished) < episodes:
        for episode in actor.rollout(epsilon)[1]:
            if number[episode.env] < episodes:
                finished[int(number[episode.env])] = episode
            number[episode.env] += envs.num_envs
    limit = limit or MAX_EPISODE_STEPS
    cut = sum(episode.length >= limit for episode in finished.values())
    record = {"epsilon": epsilon, "max_episode_steps": limit, "episodes_cut": cut, **(protocol or {})}
    return Evaluation(env_id, [finished[n].episode_return for n in range(episodes)], record, game)
