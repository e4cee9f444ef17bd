"""Gradient steps on a network whose parameters lie in one vector."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qlearn.draws import Draws
from qlearn.engine.optimizers import Optimizer
from qlearn.engine.program import Mode, Program
from qlearn.errors import MisfitError, NotFiniteError
from qlearn.networks import draw_from

Tensors = Mapping[str, Mapping[str, Tensor]]  # what a checkpoint keeps: its files, and the named tensors of each


class Flat:
    """All parameters of a module as one vector, of which they are views.

    So the optimiser steps one tensor, the gradient's norm is one reduction, and the copy of a network is one copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        parameters = dict(module.named_parameters())
        self.vector = torch.cat([p.detach().flatten() for p in parameters.values()])
        self._shapes = {name: p.shape for name, p in parameters.items()}
        self._sizes = [p.numel() for p in parameters.values()]
        for name, value in self.named(self.vector).items():
            parameters[name].data = value

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters that a vector holds, by name."""
        parts = zip(self._shapes.items(), torch.split(vector, self._sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    @torch.no_grad()
    def copy_(self, other: "Flat") -> None:
        """Take the other module's parameters and buffers."""
        self.vector.copy_(other.vector)
        for mine, theirs in zip(self.module.buffers(), other.module.buffers(), strict=True):
            mine.copy_(theirs)


class Pure(nn.Module):
    """A function that calls networks, as a function of all that it depends on: their tensors and random numbers too.

    Args:
        function: inputs to a tensor.
        networks: those that it calls.
        draws: where their random numbers come from.
    """

    def __init__(self, function: Callable[..., Tensor], networks: Sequence[Flat], draws: Draws) -> None:
        super().__init__()
        self._function, self._flats, self._draws = function, list(networks), draws
        self.networks = nn.ModuleList(flat.module for flat in networks)
        self._names = [name for name, _ in self.named_buffers()]
        self._counts = None if any(hasattr(module, "draws") for module in self.modules()) else [0, 0]

    def tensors(self) -> list[Tensor]:
        """What the networks are made of: a vector for each, then their buffers."""
        return [*(flat.vector for flat in self._flats), *self.buffers()]

    def numbers(self, *inputs: Tensor) -> list[Tensor]:
        """Random numbers for a call with such inputs: `[N]` normal, `[M]` uniform."""
        if self._counts is None:  # a call tells how many
            with self._draws.counted() as self._counts, torch.no_grad():
                self._function(*inputs)
        return self._draws.draw(*self._counts)

    def at(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        """The function where these are the networks' tensors and their random numbers."""
        named = dict(zip(self._names, tensors[len(self._flats) :], strict=True))
        for i, (flat, vector) in enumerate(zip(self._flats, tensors, strict=False)):
            named |= {f"networks.{i}.{name}": part for name, part in flat.named(vector).items()}
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
        self._pure = Pure(function, networks, draws)
        tensors = self._pure.tensors()
        self._count = len(tensors)
        self._elsewhere = None if tensors[0].is_cpu else tensors[0].device
        self._program = Program(self._called, tensors, changes=0, mode=mode, name=name)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value, on the CPU, wherever the inputs and the networks are."""
        if self._elsewhere:
            inputs = tuple(x.to(self._elsewhere) for x in inputs)
            return self._program(*self._pure.numbers(*inputs), *inputs)[0].cpu()
        return self._program(*self._pure.numbers(*inputs), *inputs)[0]

    def _called(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        tensors, (normal, uniform, *inputs) = arguments[: self._count], arguments[self._count :]
        with torch.no_grad():
            return (self._pure.at(tensors, (normal, uniform), *inputs),)


class Gradient(NamedTuple):
    """The outcome of a gradient: the mean loss it is of, and its norm before clipping."""

    loss: float = math.nan
    norm: float = math.nan


class Descent:
    """A network, and the optimiser that moves all its parameters at once.

    Args:
        network: what is trained.
        losses: `(*kept, *inputs)` to the loss of every sample, `[B]`; it calls the network.
        optimizer: how its parameters move.
        outcome: what a step tells of the losses `[B]`; the losses themselves by default.
        beside: the other networks that `losses` calls.
        kept: tensors that `losses` reads, in the same memory at every step.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it as it is.
        rng: draws what the networks draw.
        mode: how a step runs.
    """

    def __init__(
        self,
        network: nn.Module,
        losses: Callable[..., Tensor],
        optimizer: Optimizer,
        *,
        outcome: Callable[[Tensor], Tensor] = lambda losses: losses,
        beside: Sequence[Flat] = (),
        kept: Sequence[Tensor] = (),
        max_grad_norm: float = 0.0,
        rng: torch.Generator | None = None,
        mode: Mode = "eager",
    ) -> None:
        self.network, self.flat, self.optimizer, self.max_grad_norm = network, Flat(network), optimizer, max_grad_norm
        vector = self.flat.vector
        self.device, self.mode, self._here = vector.device, mode, vector.is_cpu
        self.learning_rate, self.steps = optimizer.learning_rate, 0
        self.memory = {name: torch.zeros_like(vector) for name in optimizer.memory}
        self.draws = Draws(rng or torch.Generator(self.device))
        networks = [self.flat, *beside]
        for flat in networks:
            draw_from(flat.module, self.draws)
        self._outcome = outcome
        self._coefficients = torch.zeros(len(optimizer.numbers(1, 1.0)), dtype=vector.dtype)
        self._numbers = self._coefficients.numpy()
        self._pure, self._kept = Pure(losses, networks, self.draws), list(kept)
        self._others = self._pure.tensors()[1:]
        state = [vector, *self.memory.values()]
        self._program = Program(
            self._stepped, [*state, *self._others, *kept], changes=len(state), mode=mode, name="the update"
        )
        self.gradient = Gradient()  # of the last step

    def step(self, weight: Tensor, *inputs: Tensor, suspects: Callable[[], Iterable[tuple[str, Tensor]]]) -> Tensor:
        """One step down the gradient of the mean of the losses, weighted by `weight` `[B]`; their outcome, `[B]`.

        Args:
            weight: of the samples.
            inputs: what `losses` is called with, after what is kept.
            suspects: what the losses were computed of, by name, in order; asked only where something is wrong.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; the message names the first tensor that is,
                and the network is as it was before.
        """
        coefficients = self._coefficients
        self._numbers[:] = self.optimizer.numbers(self.steps + 1, self.learning_rate)
        if not self._here:
            coefficients = coefficients.to(self.device)
        random = self._pure.numbers(*self._kept, *inputs)
        outcome, told = self._program(coefficients, *random, weight, *inputs)
        self.gradient = gradient = Gradient(*told.tolist())
        if not (math.isfinite(gradient.loss) and math.isfinite(gradient.norm)):
            raise NotFiniteError(self._blame(suspects(), outcome))
        self.steps += 1
        return outcome

    @property
    def compiled(self) -> bool:
        """Whether steps run as one compiled call, as far as is known."""
        return self._program.compiled

    def forward(self, function: Callable[..., Tensor], name: str) -> Forward:
        """A function of the network's output, run as the steps are."""
        return Forward(function, [self.flat], self.draws, mode=self.mode, name=name)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps: the network, the optimiser's memory, the generator."""
        memory = {**self.memory, "step": torch.tensor(float(self.steps))} if self.steps else {}
        assert self.draws.generator is not None
        return {
            "networks": {**module_tensors(self.network, "online."), "generator": self.draws.generator.get_state()},
            "optimizer": {name: tensor.clone() for name, tensor in memory.items()},
        }

    def restore(self, tensors: Tensors) -> None:
        """Take back what `tensors` gave.

        Raises:
            ValueError: it is not that of such a network and optimiser.
        """
        load_module_tensors(self.network, tensors["networks"], "online.")
        memory, step = dict(tensors["optimizer"]), 0.0
        if memory:
            step = float(memory.pop("step", torch.tensor(1.0)))
            if memory.keys() != self.memory.keys() or not (math.isfinite(step) and step >= 1):
                raise ValueError(f"the optimiser's memory is {sorted(memory)} after {step:g} steps")
        for name, tensor in memory.items():
            if tensor.shape != self.memory[name].shape:
                raise ValueError(f"the optimiser's {name} is {tuple(tensor.shape)}")
            self.memory[name].copy_(tensor)
        self.steps = int(step)
        assert self.draws.generator is not None
        self.draws.generator.set_state(tensors["networks"]["generator"])

    def _stepped(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """A step as a pure function: the parameters, the memory, and the rest of what the program keeps; then
        coefficients, random numbers, weights and inputs. To the new parameters and memory, the outcome `[B]`, and the
        mean loss and the gradient's norm as one tensor.
        """
        first, second = 1 + len(self.memory), 1 + len(self.memory) + len(self._others)
        memory, others = arguments[1:first], arguments[first:second]
        kept, (coefficients, normal, uniform, weight, *inputs) = (
            arguments[second : second + len(self._kept)],
            arguments[second + len(self._kept) :],
        )
        vector = arguments[0].detach().requires_grad_()
        losses = self._pure.at([vector, *others], (normal, uniform), *kept, *inputs)
        loss = (weight * losses).mean()
        (gradient,) = torch.autograd.grad(loss, vector)
        with torch.no_grad():
            norm = torch.linalg.vector_norm(gradient)
            if self.max_grad_norm:
                gradient = gradient * (self.max_grad_norm / norm).clamp(max=1.0)
            moved, remembered = self.optimizer.descend(vector.detach(), gradient, memory, coefficients.unbind())
            sound = loss.isfinite() & norm.isfinite()
            new = [torch.where(sound, b, a) for a, b in zip(arguments, (moved, *remembered), strict=False)]
            outcome = self._outcome(losses.detach())
        return *new, outcome, torch.stack([loss.detach(), norm])

    def _blame(self, inputs: Iterable[tuple[str, Tensor]], outcome: Tensor) -> str:
        """What is not finite, first of all."""
        suspects = [
            *((f"the network's parameter {name}", p) for name, p in self.network.named_parameters()),
            *inputs,
            ("the loss", outcome),
        ]
        name = next((name for name, tensor in suspects if not tensor.isfinite().all()), "the gradient")
        return f"{name} is not finite; training stopped before the network was changed"


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A copy of the module's parameters and buffers, each name behind `prefix`."""
    return {f"{prefix}{name}": tensor.detach().clone() for name, tensor in module.state_dict().items()}


def load_module_tensors(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Take back what `module_tensors` gave.

    Raises:
        MisfitError: a tensor is missing, is of another shape, or is one too many.
    """
    mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    own = module.state_dict()
    wrong = [k for k in own if k not in mine or mine[k].shape != own[k].shape] + [k for k in mine if k not in own]
    if wrong:
        raise MisfitError(f"{wrong[0]} does not fit")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(mine[name])
