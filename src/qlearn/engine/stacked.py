"""Many networks as one: their tensors lie in one memory, and a step of all of them is one call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qlearn.engine.descent import Descent, Gradient
from qlearn.engine.program import Program
from qlearn.engine.pure import Forward


class Stacked:
    """S descents of the same kind that step together, each as it would alone.

    Their tensors move into shared memory, where each keeps its part: a descent's own methods work as before.

    Args:
        descents: of the same networks, losses and optimiser.
        kept: what their losses read, for each `[S, ...]`; the descents read it already.
    """

    def __init__(self, descents: Sequence[Descent], kept: Sequence[Tensor]) -> None:
        self.descents, one = list(descents), descents[0]
        count = len(one.state) - len(kept)
        state = [*(together([d.state[i] for d in descents]) for i in range(count)), *kept]
        for flat in (flat for descent in descents for flat in descent.pure.flats):
            flat.bind()
        self._where = {id(part): whole for part, whole in zip(one.state, state, strict=True)}
        self._coefficients = torch.zeros(len(descents), len(one.coefficients()))
        self._numbers = self._coefficients.numpy()
        self._nothing = [torch.zeros(len(descents), 0)] * 2
        self._program = Program(
            self._stepped, state, changes=one.changes, mode=one.mode, name=f"the update of {len(descents)} seeds"
        )

    def step(self, active: Tensor, weight: Tensor, *inputs: Tensor) -> tuple[Tensor, list[Gradient]]:
        """A step of each descent that is `active` `[S]` bool; the outcomes `[S, B]`, and what each has to take note of.

        Args:
            active: the others stay as they are.
            weight: of the samples, `[S, B]`.
            inputs: what the losses are called with, each `[S, ...]`.
        """
        self._numbers[:] = [descent.coefficients() for descent in self.descents]
        random = self._nothing
        if not self.descents[0].pure.deterministic:
            each = zip(self.descents, active.tolist(), *inputs, strict=True)
            random = stacked([d.numbers(*own) if on else None for d, on, *own in each])
        outcome, told = self._program(self._coefficients, *random, weight, active, *inputs)
        return outcome, [Gradient(*pair) for pair in told.tolist()]

    def forward(self, forwards: Sequence[Forward]) -> Callable[[Tensor], Tensor]:
        """These functions of the descents' networks as one, of inputs `[S, ...]`."""
        one = forwards[0]
        tensors = [self._where[id(t)] for t in one.pure.tensors()]
        program = Program(many(one.called), tensors, changes=0, mode=self.descents[0].mode, name=f"{one.name} of all")

        def called(inputs: Tensor) -> Tensor:
            random = self._nothing
            if not one.pure.deterministic:
                random = stacked([f.pure.numbers(own) for f, own in zip(forwards, inputs, strict=True)])
            return program(*random, inputs)[0]

        return called

    def _stepped(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        one = self.descents[0]
        first = len(one.state)
        state, (coefficients, normal, uniform, weight, active, *inputs) = arguments[:first], arguments[first:]
        results = one.stepped(many(one.pure.at), *state, coefficients, normal, uniform, weight, *inputs)
        with torch.no_grad():
            new = [torch.where(active[:, None], b, a) for a, b in zip(state[: one.changes], results, strict=False)]
        return *new, *results[one.changes :]


def together(tensors: Sequence[Tensor]) -> Tensor:
    """`[S, ...]` of which each of the tensors is a part from now on."""
    with torch.no_grad():
        whole = torch.stack([tensor.detach() for tensor in tensors])
        for tensor, part in zip(tensors, whole, strict=True):
            tensor.set_(part)
    return whole


def stacked(numbers: Sequence[Sequence[Tensor] | None]) -> list[Tensor]:
    """Random numbers of each, `[S, N]` and `[S, M]`; zeros where there are none."""
    some = next(own for own in numbers if own is not None)
    nothing = [torch.zeros_like(kind) for kind in some]
    return [torch.stack(kind) for kind in zip(*(own or nothing for own in numbers), strict=True)]


def many(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for each of S, as one function of tensors `[S, ...]`."""
    mapped: Callable[..., Any] = torch.vmap(function)
    return mapped
