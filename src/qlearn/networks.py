"""Networks: an encoding of the observation, a torso that makes features, a head that makes a `Dist`.

The head has the last hidden layer and the output layer, for these are what dueling networks split, noisy networks
make noisy, and implicit quantiles come before. All layers keep PyTorch's default initialisation, U(+-1/sqrt(fan_in))
for weights and biases: it is the one of the original code (Mnih et al. 2015).

A network that draws random numbers draws new ones in every forward pass, from the `Draws` that `draw_from` gives it. In
evaluation mode (`network.eval()`) it draws none: noise is left out, and quantile levels are evenly spaced.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qlearn.draws import Draws
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
            return (obs[..., None] == torch.arange(self.categories, device=obs.device)).float()
        if self.bytes:
            return obs.float() / 255
        return (obs.float() - self.center) / self.spread if self.rescale else obs.float()


MakeLayer = Callable[[int, int], nn.Module]  # inputs and outputs to a fully connected layer


class NoisyLinear(nn.Module):
    """A fully connected layer whose weights have factorised Gaussian noise of learned size (Fortunato et al. 2018).

    Args:
        inputs: its inputs.
        outputs: its outputs.
        size: sigma_0; the noise of every weight and bias has the size sigma_0 / sqrt(inputs) at the start.
    """

    def __init__(self, inputs: int, outputs: int, size: float = 0.5) -> None:
        super().__init__()
        mean = nn.Linear(inputs, outputs)
        self.weight, self.bias = mean.weight, mean.bias
        self.weight_noise = nn.Parameter(torch.full((outputs, inputs), size / math.sqrt(inputs)))
        self.bias_noise = nn.Parameter(torch.full((outputs,), size / math.sqrt(inputs)))
        self.draws = Draws()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` to `[..., outputs]`, with one draw of noise for all of them."""
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        noise = self.draws.normal(sum(self.weight.shape), x.device)
        noise = (noise.sign() * noise.abs().sqrt()).to(x.dtype)
        outs, ins = noise[: len(self.bias)], noise[len(self.bias) :]
        weight = self.weight + self.weight_noise * torch.outer(outs, ins)
        return F.linear(x, weight, self.bias + self.bias_noise * outs)


class Plain(nn.Module):
    """A hidden layer and an output layer: `[..., features]` to z `[..., A, K]`."""

    def __init__(self, features: int, hidden: int, shape: tuple[int, int], layer: MakeLayer, norm: bool) -> None:
        super().__init__()
        self.layers = stream(features, hidden, shape[0] * shape[1], layer, norm)
        self.shape = shape

    def forward(self, features: Tensor) -> Tensor:
        """`[..., features]` to z `[..., A, K]`."""
        z: Tensor = self.layers(features).unflatten(-1, self.shape)
        return z


class Dueling(nn.Module):
    """One stream for the state's value, one for the actions' advantages (Wang et al. 2016).

    z = V + A - mean_a A, number by number: of atoms' logits and of quantile values as of a plain value.
    """

    def __init__(self, features: int, hidden: int, shape: tuple[int, int], layer: MakeLayer, norm: bool) -> None:
        super().__init__()
        self.value = stream(features, hidden, shape[1], layer, norm)
        self.advantage = stream(features, hidden, shape[0] * shape[1], layer, norm)
        self.shape = shape

    def forward(self, features: Tensor) -> Tensor:
        """`[..., features]` to z `[..., A, K]`."""
        advantage: Tensor = self.advantage(features).unflatten(-1, self.shape)
        z: Tensor = self.value(features)[..., None, :] + advantage - advantage.mean(-2, keepdim=True)
        return z


def stream(features: int, hidden: int, outputs: int, layer: MakeLayer, norm: bool) -> nn.Sequential:
    """A hidden layer with its ReLU, and an output layer."""
    normalise = [nn.LayerNorm(hidden)] if norm else []
    first, last = layer(features, hidden), layer(hidden, outputs)
    last.exact = True  # type: ignore[assignment]  # the engine leaves it in float32
    return nn.Sequential(first, *normalise, nn.ReLU(), Widen(), last)


class Widen(nn.Module):
    """Of bfloat16, float32: no more than three digits are too few for values side by side."""

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers."""
        return x.float() if x.dtype == torch.bfloat16 else x


class Implicit(nn.Module):
    """A head asked for the return's quantiles at levels that it is given: IQN (Dabney et al. 2018b).

    Each level is embedded by its cosines, and the features are multiplied by the embedding before they reach the
    head, whose K is 1.

    Args:
        features: of the torso.
        head: features `[B, N, features]` to `[B, N, A, 1]`.
        levels: N, the levels drawn for each observation.
    """

    COSINES = 64

    def __init__(self, features: int, head: nn.Module, levels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(self.COSINES, features), nn.ReLU())
        self.head, self.levels = head, levels
        self.draws = Draws()

    def forward(self, features: Tensor) -> Dist:
        """`[B, features]` to z `[B, A, N]` at tau `[B, N]`: uniform draws, or in evaluation the middles of N parts."""
        size = (len(features), self.levels)
        if self.training:
            tau = self.draws.uniform(math.prod(size), features.device).view(size)
        else:
            tau = ((torch.arange(self.levels, device=features.device) + 0.5) / self.levels).expand(size)
        levels = cosines(tau, self.COSINES).to(features.dtype)
        z: Tensor = self.head(features[:, None] * self.embed(levels))
        return Dist(z.squeeze(-1).transpose(1, 2), tau)


def cosines(tau: Tensor, count: int = 64) -> Tensor:
    """cos(pi i tau) for i = 1 .. count, as DQN Zoo and Dopamine have it: `[...]` to `[..., count]`."""
    return torch.cos(math.pi * torch.arange(1, count + 1, dtype=tau.dtype, device=tau.device) * tau[..., None])


class QNetwork(nn.Module):
    """encode, torso, head: observations `[B, *shape]` to a `Dist` with z `[B, A, K]`.

    It computes in the precision of its parameters, which are given to it in `precision` when it learns and acts; its
    last layer, and what comes out, are float32.
    """

    def __init__(
        self, encode: nn.Module, torso: nn.Module, head: nn.Module, *, precision: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.precision = precision
        self.encode, self.torso, self.head = encode, torso, head

    def forward(self, obs: Tensor) -> Dist:
        """`[B, *shape]` to z `[B, A, K]`."""
        encoded = self.encode(obs).to(next(self.head.parameters()).dtype)
        z: Tensor | Dist = self.head(self.torso(encoded))
        return z if isinstance(z, Dist) else Dist(z)


def make_head(
    features: int,
    hidden: int,
    num_actions: int,
    numbers: int,
    *,
    dueling: bool = False,
    noise: float = 0.0,
    implicit: bool = False,
    layer_norm: bool = False,
) -> nn.Module:
    """The head for K `numbers` per action; `noise` is the size of a noisy network's, 0 for none."""

    def layer(inputs: int, outputs: int) -> nn.Module:
        return NoisyLinear(inputs, outputs, noise) if noise else nn.Linear(inputs, outputs)

    shape = (num_actions, 1 if implicit else numbers)
    head = (Dueling if dueling else Plain)(features, hidden, shape, layer, layer_norm)
    return Implicit(features, head, numbers) if implicit else head


def draw_from(network: nn.Module, draws: Draws) -> None:
    """Have every part of the network that draws random numbers draw them from `draws`."""
    for module in network.modules():
        if isinstance(module, (NoisyLinear, Implicit)):
            module.draws = draws


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, in which it draws nothing; afterwards as it was."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


class Custom(nn.Module):
    """Your own `nn.Module` from observations `[B, *shape]` to Q-values `[B, A]`, as a network of qlearn's.

    Where the value is a distribution it returns `[B, A, K]`: logits of atoms, or quantiles.
    """

    def __init__(self, module: nn.Module, num_actions: int, numbers: int = 1) -> None:
        super().__init__()
        self.module, self.shape = module, (num_actions, numbers) if numbers > 1 else (num_actions,)

    def forward(self, obs: Tensor) -> Dist:
        """`[B, *shape]` to z `[B, A, K]`."""
        q: Any = self.module(obs)
        shape = (len(obs), *self.shape)
        if not isinstance(q, Tensor) or q.shape != shape:
            got = tuple(q.shape) if isinstance(q, Tensor) else type(q).__name__
            raise UsageError(
                f"the network returned {got} for {len(obs)} observations; it must return Q-values of shape {shape}"
                + (", the last axis the numbers of each return" if len(shape) > 2 else "")
            )
        return Dist(q if len(shape) > 2 else q[..., None])
