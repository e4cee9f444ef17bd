"""The three records that travel: what actors make, what learners eat, what networks return.

Letters of shapes: T time, E environments, B batch, A actions, K numbers per return (1, atoms or quantiles).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


class Steps(NamedTuple):
    """Rows of experience as an actor makes them, `[T, E, ...]`.

    A row holds an observation, the action chosen there, and what followed from it. The final observation of an
    episode has a row of its own, right after the row with `done`; its action was ignored and its reward is 0.
    So the next observation of row t is always row t + 1, at termination and truncation alike.
    """

    obs: Array  # [T, E, *shape]
    action: Array  # [T, E] int64
    reward: Array  # [T, E], as the environment gave it
    terminated: Array  # [T, E] bool: nothing is to be bootstrapped from what follows
    done: Array  # [T, E] bool: the episode ended here, terminated or truncated
    mask: Array | None = None  # [T, E, A] bool: the actions allowed at obs; None where all always are
    lost: Array | None = (
        None  # [T, E] bool: what followed is not known; the episode was cut before; None where nobody's
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions as a learner eats them, `[B, ...]`.

    `discount` carries gamma, n and termination at once: gamma^m where the return runs over m <= n steps, and 0
    where it ended in termination. No loss ever sees gamma, n or done.
    """

    obs: Tensor  # [B, *shape]
    action: Tensor  # [B] int64
    reward: Tensor  # [B] float32, the discounted sum over m steps
    discount: Tensor  # [B] float32
    next_obs: Tensor  # [B, *shape], m steps later
    mask: Tensor | None = None  # [B, A] bool: the actions allowed at obs; None where all always are
    next_mask: Tensor | None = None  # [B, A] bool: those allowed at next_obs

    def to(self, device: torch.device) -> "Batch":
        """The same transitions on another device."""

        def moved(column: Tensor | None) -> Any:
            return None if column is None else column.to(device)

        return Batch(*(moved(getattr(self, name)) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Dist:
    """The distribution of the return of every action, as a network returns it.

    `z` is `[..., A, K]`: K = 1 for a plain value, else atoms' logits or quantile values; `tau` `[..., K]` are the
    quantile levels of a network that chooses its own.
    """

    z: Tensor
    tau: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Episode:
    """A finished episode: the undiscounted sum of raw rewards, the number of steps, and where it was played."""

    episode_return: float
    length: int
    env: int


@dataclass(frozen=True, slots=True)
class Space:
    """What the parts need to know of an environment: its encoded observation and its number of actions.

    `categories` is n where the observation is one integer in 0..n-1 (`shape` is then `()`), else 0. `low` and
    `high` `[*shape]` are the bounds that a Box of floats declares, infinite where it has none. `masked` says that the
    environment tells which actions are allowed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    num_actions: int
    categories: int = 0
    low: Array | None = None
    high: Array | None = None
    masked: bool = False


class Envs(Protocol):
    """A batch of environments under qlearn's one contract (see `qlearn.envs`)."""

    space: Space
    num_envs: int

    @property
    def mask(self) -> Array | None:
        """The actions allowed at the observations last returned, `[E, A]` bool; None where all always are."""

    @property
    def lost(self) -> Array | None:
        """Whose last step came to nothing, `[E]` bool: the next episode has begun; None where nobody's."""

    def reset(self) -> Array:
        """Start an episode in every environment; returns observations `[E, *shape]`."""

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        """Actions `[E]` to observations, rewards, terminated, done, each `[E, ...]`."""

    def abandon(self, env: int) -> None:
        """End the episode of one environment as a time limit would: its next step starts another."""

    def close(self) -> None:
        """Release what the environments hold."""


class Tick(NamedTuple):
    """One turn of the training loop, as it is yielded."""

    steps: int = 0  # environment steps so far, all environments together
    updates: int = 0  # gradient updates so far
    epsilon: float | Array = 1.0  # the exploration rate of this turn, or `[E]` of each environment
    episodes: Sequence[Episode] = ()  # those that ended in this turn
