"""Networks as pure functions of all that they are made of: one vector of parameters, buffers, random numbers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qlearn.draws import Draws
from qlearn.engine.program import Mode, Program


class Flat:
    """All parameters of a module as one vector, of which they are views.

    So the optimiser steps one tensor, the gradient's norm is one reduction, and the copy of a network is one copy.
    The weights of our convolutions lie channels last, as they are quickest. Where the network computes in another
    precision, the vector is there in it as well, ready for whoever calls the network: `forms` has both.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.precision = module, getattr(module, "precision", torch.float32)
        parameters = dict(module.named_parameters())
        self._shapes = {name: p.shape for name, p in parameters.items()}
        images = names_in(module, lambda part: isinstance(part, nn.Conv2d) and hasattr(module, "precision"))
        self._images = {name for name in images if parameters[name].ndim == 4}  # weights
        self._exact = names_in(module, lambda part: getattr(part, "exact", False))
        self.vector = torch.cat([self._laid(name, p.detach()).flatten() for name, p in parameters.items()])
        self._sizes = [p.numel() for p in parameters.values()]
        low = [] if self.precision == self.vector.dtype else [self.vector.to(self.precision)]
        self.forms = [self.vector, *low]  # all the same numbers
        self.bind()

    def bind(self) -> None:
        """Make the parameters views of the vector, wherever it lies."""
        parameters = dict(self.module.named_parameters())
        for name, value in self.named(self.vector).items():
            parameters[name].data = value

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters that a vector holds, by name."""
        parts = zip(self._shapes.items(), torch.split(vector, self._sizes), strict=True)
        return {
            name: part.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if name in self._images else part.view(shape)
            for (name, shape), part in parts
        }

    def weights(self, vector: Tensor, *low: Tensor) -> dict[str, Tensor]:
        """What the network computes with, of vectors as in `forms`: what must be exact is of the first."""
        whole = self.named(vector)
        return self.named(low[0]) | {name: whole[name] for name in self._exact} if low else whole

    def _laid(self, name: str, parameter: Tensor) -> Tensor:
        """A parameter as it lies in the vector: the weight of a convolution `[O, I, H, W]` as `[O, H, W, I]`."""
        return parameter.movedim(1, -1) if name in self._images else parameter

    @torch.no_grad()
    def changed(self) -> None:
        """Take note of parameters that somebody set."""
        for form in self.forms[1:]:
            form.copy_(self.vector)

    @torch.no_grad()
    def copy_(self, other: "Flat") -> None:
        """Take the other module's parameters and buffers."""
        for mine, theirs in zip(self.forms, other.forms, strict=True):
            mine.copy_(theirs)
        for mine, theirs in zip(self.module.buffers(), other.module.buffers(), strict=True):
            mine.copy_(theirs)


def names_in(module: nn.Module, which: Callable[[nn.Module], bool]) -> set[str]:
    """The names of the parameters of those parts of a module."""
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if which(part)
        for name, _ in part.named_parameters(recurse=False)
    }


class Pure(nn.Module):
    """A function that calls networks, as a function of all that it depends on: their tensors and random numbers too.

    Args:
        function: inputs to a tensor.
        networks: those that it calls.
        draws: where their random numbers come from.
    """

    def __init__(self, function: Callable[..., Tensor], networks: Sequence[Flat], draws: Draws) -> None:
        super().__init__()
        self._function, self.flats, self._draws = function, list(networks), draws
        self.networks = nn.ModuleList(flat.module for flat in networks)
        self._names = [name for name, _ in self.named_buffers()]
        self._counts = None if any(hasattr(module, "draws") for module in self.modules()) else [0, 0]

    def tensors(self) -> list[Tensor]:
        """What the networks are made of: the forms of each, then their buffers."""
        return [*(form for flat in self.flats for form in flat.forms), *self.buffers()]

    @property
    def deterministic(self) -> bool:
        """Whether a call draws nothing, as far as is known."""
        return self._counts is not None and not any(self._counts)

    def numbers(self, *inputs: Tensor) -> list[Tensor]:
        """Random numbers for a call with such inputs: `[N]` normal, `[M]` uniform."""
        if self._counts is None:  # a call tells how many
            with self._draws.counted() as self._counts, torch.no_grad():
                self._function(*inputs)
        return self._draws.draw(*self._counts)

    def at(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        """The function where these are the networks' tensors and their random numbers."""
        left, named = list(tensors), dict[str, Tensor]()
        for i, flat in enumerate(self.flats):
            forms, left = left[: len(flat.forms)], left[len(flat.forms) :]
            named |= {f"networks.{i}.{name}": part for name, part in flat.weights(*forms).items()}
        named |= zip(self._names, left, strict=True)
        with self._draws.handed_out(*numbers):
            result: Tensor = functional_call(self, named, inputs)
        return result

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function."""
        return self._function(*inputs)


class Forward:
    """A function of networks, without its gradient: `function(*inputs)`, run by a `Program`.

    Args:
        function: inputs to a tensor.
        networks: those that it calls.
        draws: where their random numbers come from.
        mode: how it runs.
        name: what it is, for the user.
    """

    def __init__(
        self, function: Callable[..., Tensor], networks: Sequence[Flat], draws: Draws, *, mode: Mode, name: str
    ) -> None:
        self.pure, self.name = Pure(function, networks, draws), name
        tensors = self.pure.tensors()
        self._count = len(tensors)
        self._elsewhere = None if tensors[0].is_cpu else tensors[0].device
        self._program = Program(self.called, tensors, changes=0, mode=mode, name=name)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value, on the CPU, wherever the inputs and the networks are."""
        if self._elsewhere:
            inputs = tuple(x.to(self._elsewhere) for x in inputs)
            return self._program(*self.pure.numbers(*inputs), *inputs)[0].cpu()
        return self._program(*self.pure.numbers(*inputs), *inputs)[0]

    def called(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The function of the networks' tensors, random numbers and inputs."""
        tensors, (normal, uniform, *inputs) = arguments[: self._count], arguments[self._count :]
        with torch.no_grad():
            return (self.pure.at(tensors, (normal, uniform), *inputs),)
