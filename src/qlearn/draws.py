"""Where networks draw random numbers.

Inside a compiled call nothing is drawn, so a network's random numbers can be drawn before it and handed out in it:
then an update is a function of its arguments, and gives the same however it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Draws:
    """A generator, or what it drew before, handed out in order.

    Args:
        generator: None is PyTorch's own.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self._given: tuple[Tensor, ...] | None = None
        self._nothing = [torch.zeros(0, device=generator.device if generator else None)] * 2
        self._used = [0, 0]  # normal and uniform numbers

    def normal(self, count: int, device: torch.device) -> Tensor:
        """Standard normal numbers, `[count]`."""
        if self._given is None:
            return torch.randn(count, generator=self.generator, device=device)
        return self._next(0, count, device)

    def uniform(self, count: int, device: torch.device) -> Tensor:
        """Uniform numbers from 0 to 1, `[count]`."""
        if self._given is None:
            return torch.rand(count, generator=self.generator, device=device)
        return self._next(1, count, device)

    def draw(self, normal: int, uniform: int) -> list[Tensor]:
        """So many normal and so many uniform numbers, to be handed out."""
        if not normal and not uniform:
            return self._nothing
        assert self.generator is not None
        source, device = self.generator, self.generator.device
        return [
            torch.randn(normal, generator=source, device=device),
            torch.rand(uniform, generator=source, device=device),
        ]

    @contextmanager
    def handed_out(self, *given: Tensor) -> Iterator[None]:
        """Hand out these, normal and uniform ones."""
        self._given, self._used = given, [0, 0]
        try:
            yield
        finally:
            self._given = None

    @contextmanager
    def counted(self) -> Iterator[list[int]]:
        """Hand out zeros, and count them."""
        self._given, self._used = (), [0, 0]
        try:
            yield self._used
        finally:
            self._given = None

    def _next(self, kind: int, count: int, device: torch.device) -> Tensor:
        start = self._used[kind]
        self._used[kind] += count
        return self._given[kind][start : start + count] if self._given else torch.zeros(count, device=device)
