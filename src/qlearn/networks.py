"""Networks: an encoding of the observation, a torso that makes features, a head that makes a `Dist`.

All layers keep PyTorch's default initialisation, U(+-1/sqrt(fan_in)) for weights and biases: it is the one of the
original code (Mnih et al. 2015).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qlearn.errors import UsageError
from qlearn.types import Dist, Space

UNBOUNDED = 1e6  # a bound beyond this (some environments declare the largest float) is none


class Encode(nn.Module):
    """Observation to network input: categories to one-hot, bytes to [0, 1], anything else to float.

    With `rescale`, each number whose bounds the environment declares comes to [-1, 1]; those without stay.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, space: Space, *, rescale: bool = False) -> None:
        super().__init__()
        self.categories, self.bytes = space.categories, space.dtype.name == "uint8"
        self.rescale = rescale and space.low is not None and space.high is not None
        if self.rescale:
            assert space.low is not None
            assert space.high is not None
            low, high = space.low.astype(np.float64), space.high.astype(np.float64)
            bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED) & (low < high)
            low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
            self.register_buffer("center", torch.tensor((high + low) / 2, dtype=torch.float32), persistent=False)
            self.register_buffer("spread", torch.tensor((high - low) / 2, dtype=torch.float32), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, *shape]` to float32 `[B, *shape]`, or `[B, categories]`."""
        if self.categories:
            return F.one_hot(obs, self.categories).float()
        if self.bytes:
            return obs.float() / 255
        return (obs.float() - self.center) / self.spread if self.rescale else obs.float()


def mlp(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Fully connected layers with ReLU after each, `[B, ...]` to `[B, hidden[-1]]`."""
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise((inputs, *hidden)):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers)


def image_layout(shape: tuple[int, ...]) -> tuple[int, int, int, bool] | None:
    """Channels, height, width of an image of at least 36 x 36, and whether its channels come last; else None."""
    if len(shape) != 3:
        return None
    last = shape[-1] <= 4 < shape[0]
    channels, height, width = (shape[-1], *shape[:-1]) if last else shape
    return (channels, height, width, last) if min(height, width) >= 36 else None


def nature(shape: tuple[int, ...], hidden: Sequence[int]) -> nn.Sequential:
    """The convolutions of Mnih et al. (2015), then fully connected layers of `hidden` units.

    `shape` is channels, height, width (84 x 84 gives 3,136 features); an image with its channels last is turned.
    """
    layout = image_layout(shape)
    if layout is None:
        raise UsageError(f"network.torso nature needs an image of at least 36 x 36, not {shape}; use mlp")
    channels, height, width, last = layout
    height, width = (((side - 4) // 4 - 2) // 2 - 2 for side in (height, width))
    return nn.Sequential(
        *([ChannelsFirst()] if last else []),
        *(nn.Conv2d(channels, 32, 8, 4), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 1), nn.ReLU()),
        *mlp(64 * height * width, hidden),
    )


class ChannelsFirst(nn.Module):
    """`[B, H, W, C]` to `[B, C, H, W]`."""

    def forward(self, image: Tensor) -> Tensor:
        """The same numbers, channels first."""
        return image.movedim(-1, 1)


class QNetwork(nn.Module):
    """encode, torso, head: observations `[B, *shape]` to a `Dist` with z `[B, A, K]`."""

    def __init__(self, encode: nn.Module, torso: nn.Module, features: int, num_actions: int, numbers: int = 1) -> None:
        super().__init__()
        self.encode, self.torso = encode, torso
        self.head = nn.Linear(features, num_actions * numbers)
        self.shape = (num_actions, numbers)

    def forward(self, obs: Tensor) -> Dist:
        """`[B, *shape]` to z `[B, A, K]`."""
        return Dist(self.head(self.torso(self.encode(obs))).unflatten(-1, self.shape))


class Custom(nn.Module):
    """Your own `nn.Module` from observations `[B, *shape]` to Q-values `[B, A]`, as a network of qlearn's."""

    def __init__(self, module: nn.Module, num_actions: int) -> None:
        super().__init__()
        self.module, self.num_actions = module, num_actions

    def forward(self, obs: Tensor) -> Dist:
        """`[B, *shape]` to z `[B, A, 1]`."""
        q: Any = self.module(obs)
        if not isinstance(q, Tensor) or q.shape != (len(obs), self.num_actions):
            got = tuple(q.shape) if isinstance(q, Tensor) else type(q).__name__
            raise UsageError(
                f"the network returned {got} for {len(obs)} observations; it must return "
                f"Q-values of shape ({len(obs)}, {self.num_actions})"
            )
        return Dist(q[..., None])


def make_torso(torso: str, shape: tuple[int, ...], hidden: Sequence[int]) -> tuple[nn.Module, int]:
    """The torso by its name, for inputs `[B, *shape]`, and the number of its features.

    auto is nature for images that it can take, else mlp.
    """
    if torso == "nature" or (torso == "auto" and image_layout(shape)):
        return nature(shape, hidden), hidden[-1]
    return mlp(int(torch.Size(shape).numel()), hidden), hidden[-1]
