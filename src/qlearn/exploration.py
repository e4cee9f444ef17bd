"""How an agent tries what it does not believe in: epsilon schedules and the epsilon-greedy choice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qlearn.types import Array


class Uniforms(Protocol):
    """What draws uniform numbers: a `numpy.random.Generator`, or several, a part of the numbers each."""

    def random(self, size: tuple[int, int]) -> Array:
        """Numbers in [0, 1), of this shape."""


@dataclass(frozen=True)
class Linear:
    """A rate that goes from `start` to `end` over `decay_steps` environment steps, and stays there.

    epsilon counts its steps from the end of the warm-up, as the original code of Mnih et al. (2015) does.
    """

    start: float = 1.0
    end: float = 0.05
    decay_steps: int = 10_000

    def __call__(self, step: int) -> float:
        """The rate at `step` (>= 0)."""
        if step >= self.decay_steps:
            return self.end
        return self.start + (self.end - self.start) * step / self.decay_steps


@dataclass(frozen=True)
class Ladder:
    """A rate of its own for each of E environments, from `start` to `end` in equal ratios (Horgan et al. 2018).

    Ape-X has 0.4^(1 + 7 i / (N - 1)) for environment i of N: start 0.4, end 0.4^8.
    """

    start: float
    end: float
    num_envs: int

    def __call__(self, step: int) -> Array:  # noqa: ARG002 (it is a rate at every step)
        """The rates, `[E]`, at any step."""
        return np.geomspace(self.start, self.end, self.num_envs)


def epsilon_greedy(
    greedy: Callable[[], Array],
    epsilon: float | Array,
    num_envs: int,
    num_actions: int,
    rng: Uniforms,
    mask: Array | None = None,
) -> Array:
    """An action per environment, `[E]` int64: random with probability epsilon, else greedy.

    Every environment tosses a coin of its own. `greedy` gives the greedy actions `[E]`; it is not called where
    all explore. With `mask` `[E, A]` a random action is one of those allowed.
    """
    coins, places = rng.random((2, num_envs))
    explore = coins < epsilon
    explorers = np.count_nonzero(explore)
    if not explorers:
        return greedy()
    if mask is None:
        random = (places * num_actions).astype(np.int64)
    else:  # the (k + 1)-th of the allowed
        nth = (places * mask.sum(-1)).astype(np.int64)
        random = (mask.cumsum(-1) > nth[:, None]).argmax(-1)
    return random if explorers == num_envs else np.where(explore, random, greedy())
