"""Optimisers as pure functions of flat vectors, so that a step can be part of the call that makes its gradient.

What depends on the count of steps is a few numbers, made in double precision outside of it.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Optimizer(Protocol):
    """What moves parameters down their gradient."""

    @property
    def learning_rate(self) -> float:
        """The size of its steps at the start."""

    @property
    def memory(self) -> tuple[str, ...]:
        """The names of the vectors that it keeps between steps, zero at the start."""

    def numbers(self, step: int, learning_rate: float) -> tuple[float, ...]:
        """What `descend` has to know of step 1, 2, ..."""

    def descend(
        self, vector: Tensor, gradient: Tensor, memory: tuple[Tensor, ...], numbers: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The vector after a step, and the memory. Pure."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015), its epsilon outside the root, as `torch.optim.Adam`."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    @property
    def memory(self) -> tuple[str, ...]:
        """Running means of the gradient and of its square."""
        return "exp_avg", "exp_avg_sq"

    def numbers(self, step: int, learning_rate: float) -> tuple[float, ...]:
        """The step's size, and the root of the correction for a memory that began with zeros."""
        first, second = (1 - beta**step for beta in self.betas)
        return learning_rate / first, math.sqrt(second)

    def descend(
        self, vector: Tensor, gradient: Tensor, memory: tuple[Tensor, ...], numbers: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """vector - size * mean / (sqrt(square) / correction + epsilon)."""
        mean, square = moments(memory, gradient, self.betas)
        size, correction = numbers
        return vector - size * (mean / (square.sqrt() / correction + self.epsilon)), (mean, square)


@dataclass(frozen=True)
class RAdam:
    """Rectified Adam (Liu et al. 2020), as `torch.optim.RAdam`: no second moment while it is known too badly."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    @property
    def memory(self) -> tuple[str, ...]:
        """Running means of the gradient and of its square."""
        return "exp_avg", "exp_avg_sq"

    def numbers(self, step: int, learning_rate: float) -> tuple[float, ...]:
        """The weight of the adaptive step, and that of the plain one; one of them is 0."""
        first, second = (1 - beta**step for beta in self.betas)
        most = 2 / (1 - self.betas[1]) - 1
        length = most - 2 * step * self.betas[1] ** step / second
        if length <= 5:
            return 0.0, learning_rate / first
        rectify = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
        return learning_rate / first * rectify * math.sqrt(second), 0.0

    def descend(
        self, vector: Tensor, gradient: Tensor, memory: tuple[Tensor, ...], numbers: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """vector - mean * (adaptive / (sqrt(square) + epsilon) + plain)."""
        mean, square = moments(memory, gradient, self.betas)
        adaptive, plain = numbers
        return vector - mean * (adaptive / (square.sqrt() + self.epsilon) + plain), (mean, square)


@dataclass(frozen=True)
class CenteredRMSProp:
    """RMSProp as the original code of Mnih et al. (2015) has it: centred, epsilon inside the root, no momentum.

    A step is learning_rate * gradient / sqrt(square - mean^2 + epsilon). `torch.optim.RMSprop` adds its epsilon outside
    the root. The original 0.01 belongs to gradients summed over a minibatch; to those of a mean over B samples belongs
    0.01 / B^2.
    """

    learning_rate: float = 2.5e-4
    decay: float = 0.95
    epsilon: float = 0.01

    @property
    def memory(self) -> tuple[str, ...]:
        """Running means of the gradient and of its square."""
        return "mean", "square"

    def numbers(self, step: int, learning_rate: float) -> tuple[float, ...]:  # noqa: ARG002 (every step is alike)
        """The learning rate."""
        return (learning_rate,)

    def descend(
        self, vector: Tensor, gradient: Tensor, memory: tuple[Tensor, ...], numbers: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """vector - learning_rate * gradient / sqrt(variance + epsilon)."""
        mean, square = moments(memory, gradient, (self.decay, self.decay))
        variance = (square - mean.square()).clamp(min=0)  # rounding could bring it below
        return vector - numbers[0] * (gradient / (variance + self.epsilon).sqrt()), (mean, square)


def moments(memory: tuple[Tensor, ...], gradient: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Running means of the gradient and of its square, after one more gradient."""
    mean, square = memory
    return mean.lerp(gradient, 1 - betas[0]), square * betas[1] + gradient.square() * (1 - betas[1])
