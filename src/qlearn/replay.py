"""Experience replay: a ring of steps that stores each observation once, and the ways to sample from it.

A transition is not stored; it is a view made when sampling. Row t of the ring holds an observation, its action and
what followed; the final observation of an episode has a row of its own (see `Steps`). So the successor of row t
after m steps is row t + m, whatever ended the episode, and n-step returns and stacks of frames cost no memory.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qlearn.frames import COMPRESSED, Frames
from qlearn.types import Array, Batch, Space, Steps
from qlearn.views import Storage, gather


class Ring:
    """The last `capacity` rows of `num_envs` environments that step together.

    Args:
        space: what an observation is.
        capacity: rows in all; an episode takes one more than it has steps. Memory is taken as it fills.
        num_envs: environments; each gets `capacity // num_envs` rows.
        n_step: steps that a return runs over before it bootstraps.
        gamma: discount per step.
        stack: observations that a network sees at once.
        clip: whether rewards are cut to [-1, 1] when they are learned from.
        compress: keep observations compressed, with room to unpack those of so many transitions at a time, for which
            `prepare` comes before `batch`; 0 keeps them as they are.
    """

    def __init__(
        self,
        space: Space,
        capacity: int,
        num_envs: int,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        stack: int = 1,
        clip: bool = False,
        compress: int = 0,
    ) -> None:
        self.num_envs, self.n_step, self.gamma, self.stack, self.clip = num_envs, n_step, gamma, stack, clip
        self.rows = capacity // num_envs
        self.written = 0  # rows ever written by each environment
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            **({} if compress else {"obs": (space.shape, space.dtype)}),
            "action": ((), np.int64),
            "reward": ((), np.float32),
            "terminated": ((), np.bool_),
            "done": ((), np.bool_),
            "final": ((), np.bool_),
            **({"mask": ((space.num_actions,), np.bool_)} if space.masked else {}),
        }
        # NumPy writes a row faster than torch does and takes the pages of a zeroed array only when they are
        # written; torch gathers. Both look at the same memory.
        self.columns = {k: np.zeros((self.rows, num_envs, *s), d) for k, (s, d) in shapes.items()}
        self.columns["final"][-1] = True  # so that the first row ever has nothing before it
        room = 2 * compress * stack
        self.frames = Frames(self.rows * num_envs, space.shape, space.dtype, room) if compress else None
        apart = {} if self.frames is None else {"obs": self.frames.unpacked, "place": self.frames.place}
        self.storage = Storage(**apart, **{k: torch.from_numpy(v).flatten(0, 1) for k, v in self.columns.items()})
        self.final = self.storage.final.numpy()  # [N]

    def move(self, columns: dict[str, Array]) -> None:
        """Lie in this memory from now on: zeroed arrays of the shapes of its `columns`. It must be empty so far."""
        for name, column in columns.items():
            getattr(self.storage, name).set_(torch.from_numpy(column).flatten(0, 1))
        self.columns, self.final = columns, self.storage.final.numpy()
        self.columns["final"][-1] = True

    def append(self, steps: Steps) -> int:
        """Write rows `[T, E, ...]`; returns how many of them are transitions."""
        transitions = 0
        for t in range(len(steps.action)):
            row = self.written % self.rows
            final = self.columns["done"][row - 1] if self.written else np.zeros(self.num_envs, np.bool_)
            if steps.lost is not None:
                final |= steps.lost[t]  # in the column too: the episode was cut there
            self.columns["final"][row] = final
            for name, column in self.columns.items():
                if name != "final":
                    column[row] = getattr(steps, name)[t]
            if self.frames is not None:
                for env in range(self.num_envs):
                    self.frames[row * self.num_envs + env] = steps.obs[t, env]
            self.written += 1
            transitions += self.num_envs - int(np.count_nonzero(final))
        return transitions

    def cut(self, obs: Array, mask: Array | None = None) -> None:
        """End all running episodes here, as a truncation would.

        For a run that continues without the episodes that it was in. `obs` `[E, *shape]` are their last observations
        and `mask` `[E, A]` the actions allowed there.
        """
        if not self.written:
            return
        self.columns["done"][(self.written - 1) % self.rows] = True
        nothing = np.zeros((1, self.num_envs))
        self.append(Steps(obs[None], nothing, nothing, nothing, nothing, None if mask is None else mask[None]))

    @property
    def starts(self) -> range:
        """The rows, counted from the first ever written, of which a complete transition can be made."""
        oldest = max(0, self.written - self.rows)
        # Once the ring is full, the rows before its oldest are its newest, and no frames of theirs.
        missing = self.stack - 1 if self.written >= self.rows else 0
        return range(oldest + missing, max(0, self.written - self.n_step))

    @property
    def ready(self) -> bool:
        """Whether there is something to sample: of three neighbouring rows at least one is a transition."""
        return len(self.starts) >= 3

    @property
    def fill(self) -> float:
        """The part of the capacity in use, 0 to 1."""
        return min(self.written, self.rows) / self.rows

    def most_bytes(self, rows: int) -> int:
        """What it takes when so many rows have been written, or when it is full; compressed observations as a rule."""
        return min(rows, self.rows * self.num_envs) * self.row_bytes // self.num_envs

    @property
    def row_bytes(self) -> int:
        """What a row of all environments takes; compressed observations as a rule."""
        apart = 0 if self.frames is None else self.num_envs * (self.frames.size // COMPRESSED)
        return apart + sum(column.nbytes // self.rows for column in self.columns.values())

    def prepare(self, index: Tensor) -> None:
        """Have at hand what `batch(index)` needs: observations that are kept compressed are unpacked."""
        if self.frames is None:
            return
        row, stride, count = index.numpy(), self.num_envs, self.rows * self.num_envs
        for _ in range(self.n_step - 1):
            row = np.where(self.columns["done"].reshape(-1)[row], row, (row + stride) % count)
        ends = np.concatenate([index.numpy(), (row + stride) % count])
        self.frames.unpack((ends[:, None] - np.arange(self.stack) * stride) % count)

    def batch(self, index: Tensor, *columns: Tensor) -> Batch:
        """The transitions that start at `index` `[B]`; of other columns than its own where these are given."""
        return gather(
            Storage(**dict(zip(self.storage.columns(), columns, strict=True))) if columns else self.storage,
            index,
            stride=self.num_envs,
            n_step=self.n_step,
            gamma=self.gamma,
            stack=self.stack,
            clip=self.clip,
        )

    @property
    def known(self) -> range:
        """The rows that it holds, counted from the first ever written."""
        return range(max(0, self.written - self.rows), self.written)

    def rows_of(self, known: range) -> dict[str, Array]:
        """What a checkpoint keeps of some rows: copies of their columns, `[T, E, ...]`."""
        rows = np.arange(known.start, known.stop) % self.rows
        packed = {} if self.frames is None else self.frames.packed(self._places(rows))
        return packed | {name: column[rows] for name, column in self.columns.items()}

    def put_rows(self, known: range, arrays: dict[str, Array]) -> None:
        """Take back what `rows_of` gave.

        Raises:
            ValueError: it is not that of such rows.
        """
        rows = np.arange(known.start, known.stop) % self.rows
        for name, column in self.columns.items():
            array = arrays[name]
            if array.shape != (len(rows), *column.shape[1:]) or array.dtype != column.dtype:
                raise ValueError(f"replay column {name} is {array.shape} {array.dtype} of {len(rows)} rows")
            column[rows] = array
        if self.frames is not None:
            self.frames.put(self._places(rows), arrays["packed"], arrays["sizes"])

    def restore(self, written: int) -> None:
        """So many rows have been written, and those that it would know have been put.

        Raises:
            ValueError: no transition is among them.
        """
        self.written = written
        if written and self.columns["final"][: min(written, self.rows)].all():
            raise ValueError("the replay holds no transition")

    def require(self, index: Tensor) -> None:
        """Raises ValueError where these are not rows, `[B]`."""
        if (
            index.ndim != 1
            or index.dtype != torch.int64
            or not 0 <= int(index.min()) <= int(index.max()) < len(self.final)
        ):
            raise ValueError(f"an index {tuple(index.shape)} of {len(self.final)} rows")

    def _places(self, rows: Array) -> Array:
        """Where the observations of rows lie, those of all environments in turn."""
        places: Array = (rows[:, None] * self.num_envs + np.arange(self.num_envs)).reshape(-1)
        return places


class Replay(Protocol):
    """A ring and a way to sample from it."""

    ring: Ring
    rng: np.random.Generator

    def append(self, steps: Steps) -> int:
        """Store rows; returns the number of transitions among them."""

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Start rows, `[B]` int64, and the weights of their losses, `[B]` float32."""

    def reweigh(self, index: Tensor, error: Tensor) -> None:
        """Learn how wrong the transitions at `index` were."""

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What a checkpoint keeps beside the rows of the ring."""

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """Take back what `state` gave, when the ring has its rows.

        Raises:
            ValueError: it is not that of such a memory.
        """


class Uniform:
    """Every transition in the ring is as likely as any other, drawn with replacement (Mnih et al. 2015)."""

    def __init__(self, ring: Ring, rng: np.random.Generator) -> None:
        self.ring, self.rng = ring, rng
        self._ones = torch.ones(0)

    def append(self, steps: Steps) -> int:
        """Store rows `[T, E, ...]`."""
        return self.ring.append(steps)

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Uniform over the transitions."""
        if len(self._ones) != batch_size:
            self._ones = torch.ones(batch_size)
        return torch.from_numpy(self.draw(batch_size)), self._ones

    def draw(self, count: int) -> Array:
        """Rows of transitions, `[count]`: some more are drawn, and those of final observations left out."""
        return self.filled(self.candidates(self.rng.random(enough(count))), count)

    def filled(self, index: Array, count: int) -> Array:
        """The first `count` transitions among the rows `index`, and newly drawn ones where there are not so many."""
        index = index[~self.ring.final[index]][:count]
        return index if len(index) == count else np.concatenate([index, self.draw(count - len(index))])

    def candidates(self, places: Array) -> Array:
        """The rows, transitions or final observations, at these places from 0 to 1 among those in use."""
        starts, lanes = self.ring.starts, self.ring.num_envs
        index: Array = (places * (len(starts) * lanes)).astype(np.int64)
        index += starts.start * lanes
        index %= self.ring.rows * lanes
        return index

    def reweigh(self, index: Tensor, error: Tensor) -> None:
        """Nothing to learn."""

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The ring's counter."""
        return {}, {"written": self.ring.written}

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:  # noqa: ARG002 (there are none)
        """The ring's counter."""
        self.ring.restore(state["written"])


def enough(count: int) -> int:
    """How many rows to draw for `count` transitions, as a rule."""
    return count + count // 8 + 4
