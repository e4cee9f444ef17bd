"""Prioritised experience replay (Schaul et al. 2016): what surprised is sampled again sooner."""

from collections.abc import Callable
from itertools import accumulate
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
        self._count, self._largest = (torch.tensor(x, dtype=torch.float64) for x in (0.0, 1.0))
        self._uniform = Uniform(ring, rng)
        self._known = range(0)  # the ring's starts that are in the tree
        self._most = 15 + ring.num_envs  # rows that leave the tree in one call, and that enter it
        # Arrays that NumPy writes at every call, and the same memory as tensors.
        self._places, self._numbers = np.zeros(0), np.zeros(5)
        self._inputs = torch.from_numpy(self._places), torch.from_numpy(self._numbers)
        kept = self.tree.nodes, self._count, self._largest, ring.storage.final
        self._sample, self._reweigh = (
            Program(function, kept, changes=3, in_place=True, mode=mode, name=name)
            for function, name in ((self._sampled, "prioritised sampling"), (self._reweighed, "reweighing"))
        )

    @property
    def count(self) -> int:
        """N: transitions in the tree."""
        return int(self._count)

    @property
    def largest(self) -> float:
        """The largest priority seen, with its exponent."""
        return float(self._largest)

    def append(self, steps: Steps) -> int:
        """Store rows `[T, E, ...]`."""
        transitions = self.ring.append(steps)
        self.steps += transitions
        return transitions

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Rows by their priorities, one from each of `batch_size` equal parts of their sum, and their weights."""
        leaving, staying, entering, end = changes = self._changes()
        if staying - leaving > self._most or end - entering > self._most:
            self._enter_at_once(changes)
            changes = self._changes()
        if len(self._places) != batch_size:
            self._places = np.zeros(batch_size)
            self._inputs = torch.from_numpy(self._places), self._inputs[1]
        self.rng.random(out=self._places)
        if uniform := self.rng.binomial(batch_size, MIX):
            which = self.rng.choice(batch_size, uniform, replace=False)
            self._places[which] = -1 - self._uniform.draw(uniform)
        self._numbers[:] = *changes, self.beta(self.steps)
        index, weight = self._sample(*self._inputs)
        return index, weight

    def probability(self, index: Array) -> Array:
        """P(i) of rows `[B]`."""
        p: Array = (1 - MIX) * self.tree.leaves[index] / self.tree.total + MIX / self.count
        return p

    def reweigh(self, index: Tensor, error: Tensor) -> None:
        """Give the transitions at `index` `[B]` the priorities of their errors `[B]` (>= 0)."""
        self._reweigh(index, error.cpu())

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The ring's counter, the priorities, and the largest."""
        self._enter_at_once(self._changes())
        counters = {"written": self.ring.written, "largest": self.largest, "steps": self.steps}
        return {"priority": self.tree.leaves.copy()}, counters

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """Take back what `state` gave, when the ring has its rows.

        Raises:
            ValueError: it is not that of such a memory.
        """
        priority, largest, steps = arrays["priority"], float(state["largest"]), int(state["steps"])
        fits = priority.shape == self.tree.leaves.shape and priority.dtype == self.tree.leaves.dtype
        if not (fits and np.isfinite(priority).all() and (priority >= 0).all() and 0 < largest < np.inf and steps >= 0):
            raise ValueError(f"priorities {priority.shape} {priority.dtype}, the largest {largest}, of {steps} steps")
        self.ring.restore(state["written"])
        self.tree.set(np.arange(len(priority)), priority)
        self._largest.fill_(largest)
        self._count.fill_(int(np.count_nonzero(priority)))
        self.steps, self._known = steps, self.ring.starts

    def _sampled(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """What is kept; where in its part of the sum each draw falls, 0 to 1, or -1 - row to take that row instead;
        and what `_changes` gave, and beta. To the rows found, and their weights.
        """
        nodes, count, largest, final, places, numbers = arguments
        *changes, beta = numbers.unbind()
        self._enter(nodes, count, largest, final, [row.long() for row in changes], self._most)
        total, parts = self.tree.sum(nodes), torch.arange(len(places)) + places
        index = self.tree.find(nodes, parts / len(places) * total)
        found = nodes[index]  # 0 where rounding led beyond the last row
        index = torch.where(found > 0, index, index.take_along_dim(found.argmax(0, keepdim=True), 0))
        index = torch.where(places < 0, (-1 - places).long(), index)
        probability = (1 - MIX) * nodes[index] / total + MIX / count
        weight = (count * probability) ** -beta
        return index, (weight / weight.max()).float()

    def _reweighed(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """What is kept, rows, and their errors to enter."""
        nodes, _, largest, _, index, error = arguments
        priority = error.double().clamp(min=LEAST) ** self.exponent
        self.tree.put(nodes, index, priority)
        largest.copy_(torch.maximum(largest, priority.max()))
        return ()

    def _enter(
        self, nodes: Tensor, count: Tensor, largest: Tensor, final: Tensor, changes: list[Tensor], most: int
    ) -> None:
        """Make the tree what `_changes` says, of at most so many rows that leave and that enter.

        Fewer do as a rule. Then the other places are taken by the row after them: that after those that leave stays
        what it is, and that after those that enter is none, for a ring always has a row that starts no transition.
        The latter come last, for of a row that comes twice the last priority counts.
        """
        leaving, staying, entering, end = changes
        size, place = len(final), torch.arange(most)
        old, new = torch.minimum(leaving + place, staying), torch.minimum(entering + place, end)
        gone, begins = old < staying, (new < end) & ~final[new % size]
        before = nodes[old % size]
        priority = torch.cat([torch.where(gone, 0.0, before), torch.where(begins, largest, 0.0)])
        self.tree.put(nodes, torch.cat([old, new]) % size, priority)
        count.copy_(count + begins.sum() - (gone & (before > 0)).sum())

    def _changes(self) -> tuple[int, int, int, int]:
        """What changed in the ring: the first row that can no longer start a transition and the one after the last,
        and so of the rows that now can. Rows count from the first ever written. It is told once.
        """
        old, new, lanes = self._known, self.ring.starts, self.ring.num_envs
        self._known = new
        stop, start = min(old.stop, new.start), max(old.stop, new.start)
        return old.start * lanes, stop * lanes, start * lanes, new.stop * lanes

    def _enter_at_once(self, changes: tuple[int, int, int, int]) -> None:
        """Make the tree what `_changes` says, however many rows that are."""
        leaving, staying, entering, end = changes
        rows, most = [torch.tensor(row) for row in changes], max(staying - leaving, end - entering)
        self._enter(self.tree.nodes, self._count, self._largest, self.ring.storage.final, rows, most)


class SumTree:
    """Sums of values, of sums of values, and so on, WIDTH at a time: to draw in proportion to `size` values.

    A sum is always made anew of what it is the sum of, so rounding errors do not add up. Values and sums lie in one
    tensor of nodes, level by level. What is compiled is given that tensor.
    """

    WIDTH = 16

    def __init__(self, size: int) -> None:
        lengths = [-(-size // self.WIDTH) * self.WIDTH]
        while lengths[-1] > self.WIDTH:
            lengths.append(-(-lengths[-1] // self.WIDTH**2) * self.WIDTH)
        *self.starts, end = accumulate(lengths, initial=0)  # of the levels among the nodes, from the values to the top
        self.nodes = torch.from_numpy(np.zeros(end))
        self.leaves: Array = self.nodes.numpy()[: lengths[0]]  # the values, `[>= size]`, those beyond `size` zero

    @property
    def total(self) -> float:
        """The sum of all values."""
        return float(self.sum(self.nodes))

    def set(self, index: Array, value: Array) -> None:
        """Change the values at `index` `[B]`; of an index that comes twice the last value counts."""
        self.put(self.nodes, torch.from_numpy(index), torch.from_numpy(value))

    def sum(self, nodes: Tensor) -> Tensor:
        """The sum of all values."""
        return nodes[self.starts[-1] + torch.arange(self.WIDTH)].sum()

    def put(self, nodes: Tensor, index: Tensor, value: Tensor) -> None:
        """`set`, and the sums that the values are in."""
        for start in self.starts:
            nodes[start + index] = value
            index = index // self.WIDTH
            value = added(nodes[start + (index * self.WIDTH)[:, None] + torch.arange(self.WIDTH)])

    def find(self, nodes: Tensor, at: Tensor) -> Tensor:
        """For each `at` `[B]`, from 0 to the sum of all, the index before which the values sum to no more than it.

        One by one, for in a compiled call additions cost little, and a cumulative sum is a call of its own.
        """
        index = torch.zeros_like(at, dtype=torch.int64)
        for start in reversed(self.starts):
            first = index = index * self.WIDTH
            sum_, before = torch.zeros_like(at), torch.zeros_like(at)
            for place in range(self.WIDTH - 1):
                sum_ = sum_ + nodes[start + first + place]
                passed = sum_ <= at
                index = index + passed
                before = torch.where(passed, sum_, before)
            at = at - before
        return index


def added(rows: Tensor) -> Tensor:
    """The sums of rows `[B, 2^k]`, by halves: compiled, that is a quarter of the time of `rows.sum(1)`."""
    while rows.shape[1] > 1:
        first, second = rows.view(len(rows), 2, rows.shape[1] // 2).unbind(1)
        rows = first + second
    return rows.squeeze(1)
