"""Prioritised experience replay (Schaul et al. 2016): what surprised is sampled again sooner."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    """

    def __init__(
        self,
        ring: Ring,
        rng: np.random.Generator,
        *,
        exponent: float = 0.6,
        beta: float | Callable[[int], float] = 0.4,
    ) -> None:
        self.ring, self.rng, self.exponent = ring, rng, exponent
        self.beta = beta if callable(beta) else Linear(beta, beta, 0)
        self.steps = 0  # stored, also those that are overwritten since
        self.tree = SumTree(ring.rows * ring.num_envs)
        self.largest = 1.0  # priority seen, with its exponent
        self._uniform, self._final = Uniform(ring, rng), ring.storage.final.numpy()
        self._known = range(0)  # the ring's starts that are in the tree
        self.count = 0  # N: transitions among them

    def append(self, steps: Steps) -> int:
        """Store rows `[T, E, ...]`."""
        transitions = self.ring.append(steps)
        self.steps += transitions
        return transitions

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Rows by their priorities, one from each of `batch_size` equal parts of their sum, and their weights."""
        self._follow()
        parts = (np.arange(batch_size) + self.rng.random(batch_size)) / batch_size
        index = self.tree.find(parts * self.tree.total)
        uniform = self.rng.random(batch_size) < MIX
        uniform |= self.tree.leaves[index] == 0  # rounding led beyond the last row
        if uniform.any():
            index[uniform] = self._uniform.draw(int(np.count_nonzero(uniform)))
        weight = (self.count * self.probability(index)) ** -self.beta(self.steps)
        return torch.from_numpy(index), torch.from_numpy((weight / weight.max()).astype(np.float32))

    def probability(self, index: Array) -> Array:
        """P(i) of rows `[B]`."""
        p: Array = (1 - MIX) * self.tree.leaves[index] / self.tree.total + MIX / self.count
        return p

    def reweigh(self, index: Tensor, error: Tensor) -> None:
        """Give the transitions at `index` `[B]` the priorities of their errors `[B]` (>= 0)."""
        priority = np.maximum(error.cpu().numpy().astype(np.float64), LEAST) ** self.exponent
        self.largest = max(self.largest, float(priority.max()))
        self.tree.set(index.numpy(), priority)

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

    def _follow(self) -> None:
        """Bring the tree up to date with the ring: rows that can no longer start a transition, and new ones."""
        old, new = self._known, self.ring.starts
        if old == new:
            return
        gone = range(old.start, min(old.stop, new.start))
        come = range(max(old.stop, new.start), new.stop)
        for rows, priority in ((self._rows(gone), 0.0), (self._rows(come), self.largest)):
            before = np.count_nonzero(self.tree.leaves[rows])
            self.tree.set(rows, np.where(self._final[rows], 0.0, priority))
            self.count += int(np.count_nonzero(self.tree.leaves[rows]) - before)
        self._known = new

    def _rows(self, times: range) -> Array:
        """Where the rows of these times lie, of all environments."""
        lanes = self.ring.num_envs
        return np.arange(times.start * lanes, times.stop * lanes) % (self.ring.rows * lanes)


class SumTree:
    """Sums of values, of sums of values, and so on, WIDTH at a time: to draw in proportion to `size` values.

    A sum is always made anew of what it is the sum of, so rounding errors do not add up.
    """

    WIDTH = 16

    def __init__(self, size: int) -> None:
        self._levels: list[Array] = []  # from the values to the one sum, each in rows of WIDTH
        while not self._levels or len(self._levels[-1]) > 1:
            size = -(-size // self.WIDTH)
            self._levels.append(np.zeros((size, self.WIDTH)))

    @property
    def leaves(self) -> Array:
        """The values, `[>= size]`, those beyond `size` zero."""
        return self._levels[0].reshape(-1)

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self._levels[-1].sum())

    def set(self, index: Array, value: Array) -> None:
        """Change the values at `index` `[B]`; of an index that comes twice the last value counts."""
        self.leaves[index] = value
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            index = index // self.WIDTH
            above.reshape(-1)[index] = below[index].sum(1)

    def find(self, at: Array) -> Array:
        """For each `at` `[B]`, from 0 to `total`, the index before which the values sum to no more than it."""
        row = np.zeros(len(at), np.int64)
        for level in reversed(self._levels):
            sums = level[row].cumsum(1)
            place = (sums <= at[:, None]).sum(1).clip(max=self.WIDTH - 1)
            at = at - np.where(place > 0, sums[np.arange(len(at)), place - 1], 0.0)
            row = row * self.WIDTH + place
        return row
