"""What happened, row by row: in a replay memory, or in episodes that are played for the purpose."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qlearn.actor import Actor
from qlearn.types import Array

ROWS, WIDEST = 4_000, 200  # of observations from which the time is to be told: how many, and how wide at most
NEGLIGIBLE = 0.1  # of a return: what may be missing of it where an episode was cut


class Length(NamedTuple):
    """A whole episode: its steps, whether it terminated, and the environment and row of its last step."""

    steps: int
    terminated: bool
    env: int
    last: int


@dataclass(frozen=True)
class Trace:
    """Rows as in the ring (see `qlearn.types.Steps`), oldest first, `[T, E]` each.

    `value` is what the network said of each row's observation, NaN where it was not asked. `fresh` says that the first
    rows begin episodes.
    """

    reward: Array
    terminated: Array
    done: Array
    final: Array
    value: Array
    fresh: bool

    @property
    def rewards(self) -> Array:
        """Those of all steps, `[N]`."""
        found: Array = self.reward[~self.final]
        return found

    def episodes(self) -> list[Length]:
        """The whole ones."""
        found = []
        for env in range(self.reward.shape[1]):
            first = 0 if self.fresh else None
            for last in np.flatnonzero(self.done[:, env]).tolist():
                if first is not None:
                    found.append(Length(last - first + 1, bool(self.terminated[last, env]), env, last))
                first = last + 2  # after the final observation
        return found

    def sums(self) -> Array:
        """The undiscounted returns of the whole episodes, `[n]`."""
        return np.array([self.reward[e.last - e.steps + 1 : e.last + 1, e.env].sum() for e in self.episodes()])

    def realised(self, gamma: float) -> Array:
        """The discounted return from each row on, `[T, E]`.

        Where an episode was cut, by a time limit or by the end of the trace, what would have followed is missing. A row
        from which more than `NEGLIGIBLE` of it may be missing is NaN, and so are rows that are no steps.
        """
        total, missing = np.zeros(self.reward.shape[1]), np.ones(self.reward.shape[1])
        found = np.full(self.reward.shape, np.nan)
        for t in range(len(self.reward) - 1, -1, -1):
            cut = self.done[t] & ~self.terminated[t]
            total = self.reward[t] + gamma * np.where(self.done[t] | self.terminated[t], 0.0, total)
            missing = gamma * np.where(self.terminated[t], 0.0, np.where(cut, 1.0, missing))
            found[t] = np.where(self.final[t] | (missing > NEGLIGIBLE), np.nan, total)
        return found


class Watched:
    """A function from observations to Q-values that remembers what it last said."""

    def __init__(self, actor: Actor) -> None:
        self._asked, self.value = actor.q_values, np.full(actor.envs.num_envs, np.nan)
        self._actor = actor

    def __call__(self, obs: Tensor) -> Tensor:
        """Q-values `[E, A]`."""
        q = self._asked(obs)
        mask = self._actor.mask
        self.value = (q.numpy() if mask is None else np.where(mask, q.numpy(), -np.inf)).max(-1)
        return q


def play(actor: Actor, epsilon: float, turns: int, episodes: int, every: int = 20) -> tuple[Trace, Tensor]:
    """Play so many episodes in each environment, or so many turns; the rows, and each `every`th turn's observations."""
    rows: list[tuple[Array, ...]] = []
    seen: list[Array] = []
    ended = np.zeros(actor.envs.num_envs, np.int64)
    watched = actor.q_values = Watched(actor)
    for turn in range(turns):
        if turn % every == 0:
            seen.append(actor.seen.copy())
        watched.value = np.full(len(ended), np.nan)
        steps, _ = actor.rollout(epsilon)
        rows.append((steps.reward[0], steps.terminated[0], steps.done[0], actor.final, watched.value))
        ended += steps.done[0]
        if (ended >= episodes).all():
            break
    reward, terminated, done, final, value = (np.stack(column) for column in zip(*rows, strict=True))
    return Trace(reward, terminated, done, final, value, fresh=True), torch.from_numpy(np.concatenate(seen))


def clock(trace: Trace, at: Callable[[Array, int], Array], categories: int) -> float | None:
    """How well the step of an episode can be told from its observation; None where that is not asked.

    It is the part of its variance that a linear function of the observation explains, in the newest whole episodes.
    `at` gives the observations at rows of an environment. Large images are not asked: into so many numbers any time can
    be read.
    """
    seen, times, count = list[Array](), list[Array](), 0
    for episode in reversed(trace.episodes()):
        rows = np.arange(episode.last - episode.steps + 1, episode.last + 1)
        obs = at(rows, episode.env)
        seen.append(np.eye(categories)[obs] if categories <= WIDEST and obs.ndim == 1 else obs.reshape(len(rows), -1))
        times.append(np.arange(len(rows), dtype=np.float64))
        count += len(rows)
        if count >= ROWS or seen[0].shape[1] > WIDEST:
            break
    if not count or categories > WIDEST or seen[0].shape[1] > WIDEST or count < 10 * seen[0].shape[1]:
        return None
    step = np.concatenate(times)
    inputs = np.column_stack([np.concatenate(seen), np.ones(count)])
    left = step - inputs @ np.linalg.lstsq(inputs, step, rcond=None)[0]
    return float(1 - left.var() / step.var()) if step.var() else None
