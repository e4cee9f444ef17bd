"""Prioritised experience replay (Schaul et al. 2016): what surprised is sampled again sooner."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlearn.engine import Mode, Program
from qlearn.exploration import Linear
from qlearn.replay import Ring, Uniform
from qlearn.types import Array, Steps

MIX = 1e-3  # the part of the draws that is uniform, as in DQN Zoo: no transition is ever out of reach
LEAST = 1e-6  # of an error, so that no transition of the ring has the priority 0 of rows that are none


class Prioritized:
    """Proportional prioritisation: P(i) = (1 - MIX) p_i^exponent / sum_k p_k^exponent + MIX / N.

    A transition that has not been sampled yet has the largest priority seen so far. Losses are weighted by
    w_i = (N P(i))^-beta, divided by the largest of the minibatch.

    Args:
        ring: the steps.
        rng: draws.
        exponent: of the errors; 0 is uniform, 1 fully proportional.
        beta: how much of the bias the weights correct, 0 to 1; or that by the environment steps stored so far.
        mode: how sampling and reweighing run: eager, or compiled into one call each.
    """

    def __init__(
        self,
        ring: Ring,
        rng: np.random.Generator,
        *,
        exponent: float = 0.6,
        beta: float | Callable[[int], float] = 0.4,
        mode: Mode = "eager",
    ) -> None:
        self.ring, self.rng, self.exponent = ring, rng, exponent
        self.beta = beta if callable(beta) else Linear(beta, beta, 0)
        self.steps = 0  # stored, also those that are overwritten since
        self.tree = SumTree(ring.rows * ring.num_envs)
        self.largest = 1.0  # priority seen, with its exponent
        self._uniform, self._final = Uniform(ring, rng), ring.storage.final.numpy()
        self._known = range(0)  # the ring's starts that are in the tree
        self.count = 0  # N: transitions among them
        self._most = 32 + 2 * ring.num_envs  # rows that enter and leave the tree in one call
        levels, many = self.tree.levels, len(self.tree.levels)
        self._sample, self._reweigh = (
            Program(function, levels, changes=many, in_place=True, mode=mode, name=name)
            for function, name in ((self._sampled, "prioritised sampling"), (self._reweighed, "reweighing"))
        )

    def append(self, steps: Steps) -> int:
        """Store rows `[T, E, ...]`."""
        transitions = self.ring.append(steps)
        self.steps += transitions
        return transitions

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Rows by their priorities, one from each of `batch_size` equal parts of their sum, and their weights."""
        rows, priority = self._changes()
        coins, places = self.rng.random((2, batch_size))
        parts = (np.arange(batch_size) + places) / batch_size
        instead = np.full(batch_size, -1)
        if chosen := int(np.count_nonzero(uniform := coins < MIX)):
            instead[uniform] = self._uniform.draw(chosen)
        numbers = np.array([self.count, self.beta(self.steps)])
        index, weight = self._sample(*map(torch.from_numpy, (rows, priority, parts, instead, numbers)))
        return index, weight

    def probability(self, index: Array) -> Array:
        """P(i) of rows `[B]`."""
        p: Array = (1 - MIX) * self.tree.leaves[index] / self.tree.total + MIX / self.count
        return p

    def reweigh(self, index: Tensor, error: Tensor) -> None:
        """Give the transitions at `index` `[B]` the priorities of their errors `[B]` (>= 0)."""
        (largest,) = self._reweigh(index, error.cpu())
        self.largest = max(self.largest, largest.item())

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The ring's, the priorities, and the largest."""
        self._follow()
        arrays, state = self.ring.state()
        return {**arrays, "priority": self.tree.leaves}, {**state, "largest": self.largest, "steps": self.steps}

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """Take back what `state` gave.

        Raises:
            ValueError: it is not that of such a memory.
        """
        priority, largest, steps = arrays["priority"], float(state["largest"]), int(state["steps"])
        fits = priority.shape == self.tree.leaves.shape and priority.dtype == self.tree.leaves.dtype
        if not (fits and np.isfinite(priority).all() and (priority >= 0).all() and 0 < largest < np.inf and steps >= 0):
            raise ValueError(f"priorities {priority.shape} {priority.dtype}, the largest {largest}, of {steps} steps")
        self.ring.restore({k: v for k, v in arrays.items() if k != "priority"}, state)
        self.tree.set(np.arange(len(priority)), priority)
        self.largest, self.steps, self._known = largest, steps, self.ring.starts
        self.count = int(np.count_nonzero(priority))

    def _sampled(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Levels; rows and their priorities to enter first; places from 0 to 1, rows to take instead of what is found
        there or -1; and N and beta. To the rows found, and their weights.
        """
        *levels, rows, priority, parts, instead, numbers = arguments
        put(levels, rows, priority)
        total, leaves = levels[-1].sum(), levels[0].view(-1)
        index = find(levels, parts * total)
        found = leaves[index]  # 0 where rounding led beyond the last row
        index = torch.where(found > 0, index, index.take_along_dim(found.argmax(0, keepdim=True), 0))
        index = torch.where(instead >= 0, instead, index)
        count, beta = numbers.unbind()
        probability = (1 - MIX) * leaves[index] / total + MIX / count
        weight = (count * probability) ** -beta
        return index, (weight / weight.max()).float()

    def _reweighed(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Levels, rows, and their errors to enter; to the largest priority."""
        *levels, rows, error = arguments
        priority = error.double().clamp(min=LEAST) ** self.exponent
        put(levels, rows, priority)
        return (priority.max(),)

    def _changes(self) -> tuple[Array, Array]:
        """Rows of the tree that must change, always as many, and their priorities; where too many do, some already did.

        Those that come to nothing are the first, for of a row that comes twice the last priority counts.
        """
        rows, priority = self._news()
        surplus = len(rows) - self._most
        if surplus > 0:
            self.tree.set(rows[:surplus], priority[:surplus])
            return rows[surplus:], priority[surplus:]
        nothing = np.zeros(-surplus, np.int64)
        return np.concatenate([nothing, rows]), np.concatenate([self.tree.leaves[nothing], priority])

    def _follow(self) -> None:
        """Bring the tree up to date with the ring."""
        self.tree.set(*self._news())

    def _news(self) -> tuple[Array, Array]:
        """What changed in the ring: rows that can no longer start a transition, and new ones, with their priorities."""
        old, new = self._known, self.ring.starts
        if old == new:
            return np.zeros(0, np.int64), np.zeros(0)
        lanes = self.ring.num_envs
        gone = range(old.start * lanes, min(old.stop, new.start) * lanes)
        rows = np.array([*gone, *range(max(old.stop, new.start) * lanes, new.stop * lanes)])
        rows %= self.ring.rows * lanes
        priority = np.where(self._final[rows], 0.0, self.largest)
        priority[: len(gone)] = 0.0
        self.count += int(np.count_nonzero(priority) - np.count_nonzero(self.tree.leaves[rows[: len(gone)]]))
        self._known = new
        return rows, priority


class SumTree:
    """Sums of values, of sums of values, and so on, WIDTH at a time: to draw in proportion to `size` values.

    A sum is always made anew of what it is the sum of, so rounding errors do not add up.
    """

    WIDTH = 16

    def __init__(self, size: int) -> None:
        self.levels: list[Tensor] = []  # from the values to the one sum, each in rows of WIDTH
        while not self.levels or len(self.levels[-1]) > 1:
            size = -(-size // self.WIDTH)
            self.levels.append(torch.from_numpy(np.zeros((size, self.WIDTH))))

    @property
    def leaves(self) -> Array:
        """The values, `[>= size]`, those beyond `size` zero."""
        return self.levels[0].numpy().reshape(-1)

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self.levels[-1].sum())

    def set(self, index: Array, value: Array) -> None:
        """Change the values at `index` `[B]`; of an index that comes twice the last value counts."""
        put(self.levels, torch.from_numpy(index), torch.from_numpy(value))


def put(levels: list[Tensor], index: Tensor, value: Tensor) -> None:
    """Change the values at `index` `[B]`, and the sums that they are in."""
    for level in levels:
        level.view(-1)[index] = value
        index = index // level.shape[1]
        value = level[index].sum(1)


def find(levels: list[Tensor], at: Tensor) -> Tensor:
    """For each `at` `[B]`, from 0 to the sum of all, the index before which the values sum to no more than it."""
    row = torch.zeros_like(at, dtype=torch.int64)
    for level in reversed(levels):
        sums = level[row].cumsum(1)
        place = (sums <= at[:, None]).sum(1).clamp(max=level.shape[1] - 1)
        before = sums.take_along_dim((place - 1).clamp(min=0)[:, None], 1).squeeze(1)
        at = at - torch.where(place > 0, before, 0.0)
        row = row * level.shape[1] + place
    return row
