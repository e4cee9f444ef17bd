"""Torsos: what makes features of an encoded observation, convolutions or fully connected layers."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from qlearn.errors import UsageError


def make_torso(
    torso: str, shape: tuple[int, ...], hidden: Sequence[int], *, layer_norm: bool = False
) -> tuple[nn.Module, int]:
    """The torso by its name, for inputs `[B, *shape]`, and the number of its features.

    `hidden` are the hidden layers but the last, which is the head's. auto is nature for images that it can take, else
    mlp.
    """
    layers: list[nn.Module]
    if torso == "auto":
        torso = "nature" if image_layout(shape) else "mlp"
    if torso in FILTERS:
        layers, features = image_torso(torso, shape, layer_norm)
    elif torso == "minatar":
        layers, features = minatar(shape, layer_norm)
    else:
        layers, features = [nn.Flatten()], int(torch.Size(shape).numel())
    sizes = (features, *hidden)
    return nn.Sequential(*layers, *hidden_layers(sizes, layer_norm=layer_norm)), sizes[-1]


def hidden_layers(sizes: Sequence[int], *, layer_norm: bool = False) -> list[nn.Module]:
    """Fully connected layers with ReLU after each, from `sizes[0]` inputs on."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), *([nn.LayerNorm(fan_out)] if layer_norm else []), nn.ReLU()]
    return layers


def image_layout(shape: tuple[int, ...]) -> tuple[int, int, int, bool] | None:
    """Channels, height, width of an image of at least 36 x 36, and whether its channels come last; else None."""
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        return None
    last = shape[-1] <= 4 < shape[0]
    channels, height, width = (shape[-1], *shape[:-1]) if last else shape
    return (channels, height, width, last) if min(height, width) >= 36 else None


FILTERS = {  # number, size, stride
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),  # Mnih et al. (2015): 3,136 features of 84 x 84
    "nips": ((16, 8, 4), (32, 4, 2)),  # Mnih et al. (2013): 2,592
    "der": ((32, 5, 5), (64, 5, 5)),  # van Hasselt et al. (2019), data-efficient Rainbow: 576
}


def image_torso(name: str, shape: tuple[int, ...], layer_norm: bool = False) -> tuple[list[nn.Module], int]:
    """The convolutions of that name, and the number of their features.

    `shape` is channels, height, width, or an image alone; one with its channels last is turned.
    """
    layout = image_layout(shape)
    if layout is None:
        raise UsageError(f"network.torso {name} needs an image of at least 36 x 36, not {shape}; use mlp")
    *image, last = layout
    layers, features = convolutions(image, FILTERS[name], layer_norm)
    if len(shape) == 2:
        layers = [nn.Unflatten(1, (1, shape[0])), *layers]
    return [ChannelsFirst(), *layers] if last else layers, features


def minatar(shape: tuple[int, ...], layer_norm: bool = False) -> tuple[list[nn.Module], int]:
    """The one convolution of Young & Tian (2019), and the number of its features: 1,024 of 10 x 10."""
    if len(shape) != 3 or min(shape[1:]) < 3:
        raise UsageError(f"network.torso minatar needs an image, channels first, not {shape}; use mlp")
    return convolutions(shape, ((16, 3, 1),), layer_norm)


def convolutions(
    image: Sequence[int], filters: Sequence[tuple[int, int, int]], layer_norm: bool
) -> tuple[list[nn.Module], int]:
    """Convolutions (filters, size, stride) with ReLU after each, of an image (channels, height, width), and their
    features.
    """
    layers: list[nn.Module] = []
    channels, height, width = image
    for count, size, stride in filters:
        height, width = (height - size) // stride + 1, (width - size) // stride + 1
        layers.append(nn.Conv2d(channels, count, size, stride))
        if layer_norm:
            layers.append(nn.LayerNorm([count, height, width]))
        layers.append(nn.ReLU())
        channels = count
    return [*layers, nn.Flatten()], channels * height * width


class ChannelsFirst(nn.Module):
    """`[B, H, W, C]` to `[B, C, H, W]`."""

    def forward(self, image: Tensor) -> Tensor:
        """The same numbers, channels first."""
        return image.movedim(-1, 1)
