"""What the network's numbers mean: a value, or (to come) a distribution over returns. Pure and frozen.

A representation answers four questions, and no algorithm needs to know more of it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qlearn.types import Dist


class Value(Protocol):
    """A representation of the return; K numbers per action."""

    def mean(self, dist: Dist) -> Tensor:
        """Expected return Q, `[..., A]`."""

    def mix(self, dist: Dist, pi: Tensor) -> Tensor:
        """The return of policy `pi` `[..., A]`: z, `[..., K]`."""

    def backup(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The distribution of `reward + discount * Z`: y, `[..., K]`."""

    def loss(self, z: Tensor, tau: Tensor | None, y: Tensor) -> Tensor:
        """The distance of prediction z from target y per sample, `[...]`."""


@dataclass(frozen=True)
class Scalar:
    """The return as one number, its expectation (Mnih et al. 2015). K = 1.

    `huber=False` is (y - q)^2. `huber=True` is the Huber loss with threshold 1: its gradient is the error clipped
    to [-1, 1], which is what the Nature paper's "error clipping" does.
    """

    huber: bool = False

    def mean(self, dist: Dist) -> Tensor:
        """`[..., A, 1]` to `[..., A]`."""
        return dist.z.squeeze(-1)

    def mix(self, dist: Dist, pi: Tensor) -> Tensor:
        """sum_a pi(a) q(a), `[..., 1]`."""
        return (pi[..., None] * dist.z).sum(-2)

    def backup(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """`reward + discount * q`, `[..., 1]`."""
        return reward[..., None] + discount[..., None] * z

    def loss(self, z: Tensor, tau: Tensor | None, y: Tensor) -> Tensor:  # noqa: ARG002 (a number has no quantiles)
        """Per sample, `[...]`."""
        error = (y - z).squeeze(-1)
        if not self.huber:
            return error.square()
        size = error.abs()
        return torch.where(size <= 1, 0.5 * error.square(), size - 0.5)
