"""Gradient steps on a network whose parameters lie in one vector."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qlearn.draws import Draws
from qlearn.engine.optimizers import Optimizer
from qlearn.engine.program import Mode, Program
from qlearn.engine.pure import Flat, Forward, Pure
from qlearn.errors import MisfitError, NotFiniteError
from qlearn.networks import draw_from

Tensors = Mapping[str, Mapping[str, Tensor]]  # what a checkpoint keeps: its files, and the named tensors of each


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
        self.pure, self._kept = Pure(losses, networks, self.draws), list(kept)
        self._others = self.pure.tensors()[len(self.flat.forms) :]
        state = [*self.flat.forms, *self.memory.values()]
        self.changes = len(state)
        self.state = [*state, *self._others, *kept]  # of a step; the first `changes` are what it changes
        self._program = Program(
            partial(self.stepped, self.pure.at), self.state, changes=self.changes, mode=mode, name="the update"
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
        self._numbers[:] = self.coefficients()
        if not self._here:
            coefficients, weight = coefficients.to(self.device), weight.to(self.device)
        random = self.numbers(*inputs)
        outcome, told = self._program(coefficients, *random, weight, *inputs)
        self.stepped_to(Gradient(*told.tolist()), outcome, suspects)
        return outcome

    def coefficients(self) -> tuple[float, ...]:
        """What the optimiser has to know of the next step."""
        return self.optimizer.numbers(self.steps + 1, self.learning_rate)

    def numbers(self, *inputs: Tensor) -> list[Tensor]:
        """Random numbers for the next step."""
        return self.pure.numbers(*self._kept, *inputs)

    def stepped_to(
        self, gradient: Gradient, outcome: Tensor, suspects: Callable[[], Iterable[tuple[str, Tensor]]]
    ) -> None:
        """Take note of a step; raises what `step` does."""
        self.gradient = gradient
        if not (math.isfinite(gradient.loss) and math.isfinite(gradient.norm)):
            raise NotFiniteError(self._blame(suspects(), outcome))
        self.steps += 1

    @property
    def compiled(self) -> bool:
        """Whether steps run as one compiled call, as far as is known."""
        return self._program.compiled

    def forward(self, function: Callable[..., Tensor], name: str) -> Forward:
        """A function of the network's output, run as the steps are."""
        return Forward(function, [self.flat], self.draws, mode=self.mode, name=name)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps: the network, the optimiser's memory, the last gradient, the generator."""
        memory = {}
        if self.steps:
            last = torch.tensor(self.gradient, dtype=torch.float64)
            memory = {**self.memory, "step": torch.tensor(float(self.steps)), "gradient": last}
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
        self.flat.changed()
        memory, step = dict(tensors["optimizer"]), 0.0
        if memory:
            step = float(memory.pop("step", torch.tensor(1.0)))
            self.gradient = Gradient(*memory.pop("gradient", torch.full((2,), math.nan)).tolist())
            if memory.keys() != self.memory.keys() or not (math.isfinite(step) and step >= 1):
                raise ValueError(f"the optimiser's memory is {sorted(memory)} after {step:g} steps")
        for name, tensor in memory.items():
            if tensor.shape != self.memory[name].shape:
                raise ValueError(f"the optimiser's {name} is {tuple(tensor.shape)}")
            self.memory[name].copy_(tensor)
        self.steps = int(step)
        assert self.draws.generator is not None
        self.draws.generator.set_state(tensors["networks"]["generator"])

    def stepped(self, at: Callable[..., Tensor], *arguments: Tensor) -> tuple[Tensor, ...]:
        """A step as a pure function, of one network or, with another axis in front, of many.

        Args:
            at: networks' tensors, random numbers, and what `losses` is called with, to the losses `[..., B]`.
            arguments: the state (parameters in all forms, memory, other tensors of networks, what is kept), then
                coefficients, random numbers, weights and inputs.

        Returns:
            The new parameters in all forms and memory, the outcome `[..., B]`, and the mean loss and the gradient's
            norm `[..., 2]`.
        """
        forms, first = len(self.flat.forms), self.changes
        second = first + len(self._others)
        memory, others = arguments[forms:first], arguments[first:second]
        kept, (coefficients, normal, uniform, weight, *inputs) = (
            arguments[second : len(self.state)],
            arguments[len(self.state) :],
        )
        vector, *low = (form.detach().requires_grad_() for form in arguments[:forms])
        losses = at([vector, *low, *others], (normal, uniform), *kept, *inputs)
        loss = (weight * losses).mean(-1)
        gradient, *parts = torch.autograd.grad(loss.sum(), [vector, *low], materialize_grads=True)
        with torch.no_grad():
            for part in parts:
                gradient = gradient + part
            norm = torch.linalg.vector_norm(gradient, dim=-1)
            if self.max_grad_norm:
                gradient = gradient * (self.max_grad_norm / norm).clamp(max=1.0)[..., None]
            numbers = coefficients[..., None].unbind(-2)
            moved, remembered = self.optimizer.descend(vector.detach(), gradient, memory, numbers)
            sound = (loss.isfinite() & norm.isfinite())[..., None]
            before = arguments[0], *memory
            vector, *kept_up = (torch.where(sound, b, a) for a, b in zip(before, (moved, *remembered), strict=True))
            new = [vector, *(vector.to(form.dtype) for form in low), *kept_up]
            outcome = self._outcome(losses.detach())
        return *new, outcome, torch.stack([loss.detach(), norm], -1)

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
    return {
        f"{prefix}{name}": tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }


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
