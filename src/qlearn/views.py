"""Transitions as views of stored steps: n-step returns and stacks of frames are made when they are sampled. Pure."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qlearn.frames import joined
from qlearn.types import Batch


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
