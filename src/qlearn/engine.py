"""How an update runs. Today eagerly, over flat parameters; compilers will be known in this file alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Flat:
    """All parameters of a module as one vector, and all their gradients as another.

    The module's parameters and gradients are views of the two, so the optimiser steps one tensor, the gradient's
    norm is one reduction, and the copy of a network is one copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        parameters = list(module.parameters())
        self.vector = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        sizes = [p.numel() for p in parameters]
        for p, value, gradient in zip(
            parameters, torch.split(self.vector.detach(), sizes), torch.split(self.gradient, sizes), strict=True
        ):
            p.data, p.grad = value.view_as(p), gradient.view_as(p)

    @torch.no_grad()
    def copy_(self, other: "Flat") -> None:
        """Take the other module's parameters and buffers."""
        self.vector.copy_(other.vector)
        for mine, theirs in zip(self.module.buffers(), other.module.buffers(), strict=True):
            mine.copy_(theirs)


@dataclass(frozen=True)
class Gradient:
    """The outcome of a gradient: the mean loss it is of, and its norm before clipping."""

    loss: float
    norm: float


def descend(
    flat: Flat,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    max_grad_norm: float,
    check: Callable[[Gradient], Any],
) -> Gradient:
    """One optimiser step down the gradient of `loss` `[]`, clipped to a norm of `max_grad_norm` (0: not at all).

    `check` sees the gradient before it is applied, and raises where it must not be.
    """
    flat.gradient.zero_()
    torch.autograd.backward(loss)
    gradient = Gradient(loss.item(), torch.linalg.vector_norm(flat.gradient).item())
    check(gradient)
    if 0 < max_grad_norm < gradient.norm:
        flat.gradient.mul_(max_grad_norm / gradient.norm)
    optimizer.step()
    return gradient
