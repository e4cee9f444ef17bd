"""Experience replay: a ring of steps that stores each observation once, and the ways to sample from it.

A transition is not stored; it is a view made when sampling. Row t of the ring holds an observation, its action and
what followed; the final observation of an episode has a row of its own (see `Steps`). So the successor of row t
after m steps is row t + m, whatever ended the episode, and n-step returns and stacks of frames cost no memory.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qlearn.frames import COMPRESSED, Frames, joined
from qlearn.types import Array, Batch, Space, Steps


@dataclass(frozen=True, slots=True)
class Storage:
    """The columns of the ring, rows of all environments in turn: row t of environment e lies at t * E + e."""

    obs: Tensor  # [N, *shape]
    action: Tensor  # [N] int64
    reward: Tensor  # [N] float32
    terminated: Tensor  # [N] bool
    done: Tensor  # [N] bool
    final: Tensor  # [N] bool: this row only holds the final observation of an episode
    mask: Tensor | None = None  # [N, A] bool: the actions allowed at obs; None where all always are
    place: Tensor | None = None  # [N] int32: where a row's observation is in obs, if it is there; None: at its row

    def frames(self, index: Tensor) -> Tensor:
        """The observations at rows `[B]`."""
        return self.obs[index if self.place is None else self.place[index]]

    def columns(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: column for name in self.__slots__ if (column := getattr(self, name)) is not None}


def stacked(storage: Storage, index: Tensor, stride: int, stack: int) -> Tensor:
    """The observations at `index` `[B]` with the `stack - 1` before them, `[B, stack, *shape]`, oldest first.

    Frames from before the episode's start are zeros. `stack = 1` adds no axis.
    """
    frames, row = [storage.frames(index)], index
    if stack == 1:
        return frames[0]
    same = torch.ones_like(index, dtype=torch.bool)
    for _ in range(stack - 1):
        row = (row - stride) % len(storage.action)
        same = same & ~storage.final[row]
        shape = (-1, *[1] * (storage.obs.ndim - 1))
        frames.append(storage.frames(row) * same.view(shape))
    return joined(frames[::-1])


def gather(
    storage: Storage, index: Tensor, *, stride: int, n_step: int, gamma: float, stack: int, clip: bool = False
) -> Batch:
    """The n-step transitions that start at rows `index` `[B]`. Pure.

    A return runs over n steps or to the end of the episode, whichever comes first: truncation bootstraps from the
    final observation with the power of gamma of the steps that there were, termination does not bootstrap. With
    `clip` it is made of rewards cut to [-1, 1].
    """

    def rewards(row: Tensor) -> Tensor:
        return storage.reward[row].clamp(-1, 1) if clip else storage.reward[row]

    row = index
    reward = rewards(row)
    discount = gamma * (~storage.terminated[row]).to(reward.dtype)
    going = ~storage.done[row] if n_step > 1 else None
    following = (row + stride) % len(storage.action)
    for _ in range(n_step - 1):
        assert going is not None
        row = torch.where(going, following, row)
        reward = torch.where(going, reward + discount * rewards(row), reward)
        discount = torch.where(going, discount * gamma * ~storage.terminated[row], discount)
        following = torch.where(going, (row + stride) % len(storage.action), following)
        going = going & ~storage.done[row]
    return Batch(
        obs=stacked(storage, index, stride, stack),
        action=storage.action[index],
        reward=reward,
        discount=discount,
        next_obs=stacked(storage, following, stride, stack),
        mask=None if storage.mask is None else storage.mask[index],
        next_mask=None if storage.mask is None else storage.mask[following],
    )


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
        count = min(rows, self.rows * self.num_envs)
        apart = 0 if self.frames is None else self.frames.size // COMPRESSED
        return count * (apart + sum(c.nbytes // (self.rows * self.num_envs) for c in self.columns.values()))

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

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What a checkpoint keeps: the rows in use, and the counter."""
        used = min(self.written, self.rows)
        packed = {} if self.frames is None else self.frames.state(used * self.num_envs)
        return packed | {name: column[:used] for name, column in self.columns.items()}, {"written": self.written}

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """Take back what `state` gave, into a ring of the same shape.

        Raises:
            ValueError: it is not that of such a ring.
        """
        written = int(state["written"])
        used = min(written, self.rows)
        for name, column in self.columns.items():
            array = arrays[name]
            if written < 0 or array.shape != column[:used].shape or array.dtype != column.dtype:
                raise ValueError(f"replay column {name} is {array.shape} {array.dtype} of {written} rows")
            column[:used] = array
        if self.frames is not None:
            if len(arrays["sizes"]) != used * self.num_envs:
                raise ValueError(f"packed observations of {len(arrays['sizes'])} rows, not {used * self.num_envs}")
            self.frames.restore(arrays["packed"], arrays["sizes"])
        if used and self.columns["final"][:used].all():
            raise ValueError("the replay holds no transition")
        self.written = written


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
        """What a checkpoint keeps."""

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError where it is not that of such a memory."""


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
        """The ring's."""
        return self.ring.state()

    def restore(self, arrays: dict[str, Array], state: dict[str, Any]) -> None:
        """The ring's."""
        self.ring.restore(arrays, state)


def enough(count: int) -> int:
    """How many rows to draw for `count` transitions, as a rule."""
    return count + count // 8 + 4
