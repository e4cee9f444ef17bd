"""How an update runs. Today eagerly, over flat parameters; compilers will be known in this file alone."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qlearn.errors import MisfitError, NotFiniteError
from qlearn.networks import draw_from

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Tensors = Mapping[str, Mapping[str, Tensor]]  # what a checkpoint keeps: its files, and the named tensors of each


class CenteredRMSProp(torch.optim.Optimizer):
    """RMSProp as the original code of Mnih et al. (2015) has it: centred, epsilon inside the root, no momentum.

    g and g2 are running means of the gradient and of its square, from zero; a step is
    lr * gradient / sqrt(g2 - g^2 + epsilon). `torch.optim.RMSprop` adds its epsilon outside the root. The original
    0.01 belongs to gradients summed over a minibatch; to those of a mean over B samples belongs 0.01 / B^2.
    """

    def __init__(self, params: Any, lr: float = 2.5e-4, *, decay: float = 0.95, eps: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 (nothing is evaluated again)
        """One step along the gradients that are there."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
                mean, square = state["mean"], state["square"]
                mean.lerp_(p.grad, 1 - group["decay"])
                square.lerp_(p.grad.square(), 1 - group["decay"])
                variance = (square - mean.square()).clamp_(min=0)  # rounding could bring it below
                p.addcdiv_(p.grad, (variance + group["eps"]).sqrt(), value=-group["lr"])


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

    loss: float = math.nan
    norm: float = math.nan


class Descent:
    """A network, and the optimiser that moves all its parameters at once.

    Args:
        network: what is trained.
        make_optimizer: parameters to an optimiser.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it as it is.
        rng: draws what the network draws.
    """

    def __init__(
        self, network: nn.Module, make_optimizer: MakeOptimizer, max_grad_norm: float, rng: torch.Generator | None
    ) -> None:
        self.network, self.flat, self.max_grad_norm = network, Flat(network), max_grad_norm
        self.optimizer = make_optimizer([self.flat.vector])
        self.device = self.flat.vector.device
        self.rng = rng or torch.Generator(self.device)
        draw_from(network, self.rng)
        self.gradient = Gradient()  # of the last step

    def step(self, loss: Tensor, inputs: Callable[[], Iterable[tuple[str, Tensor]]]) -> None:
        """One optimiser step down the gradient of `loss` `[]`.

        Args:
            loss: to be made smaller.
            inputs: what it was computed of, by name, in order; asked only where something is wrong.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; the message names the first tensor that is,
                and the network is as it was before.
        """
        flat = self.flat
        flat.gradient.zero_()
        torch.autograd.backward(loss)
        norm = torch.linalg.vector_norm(flat.gradient).item()
        self.gradient = Gradient(loss.item(), norm)
        if not (math.isfinite(self.gradient.loss) and math.isfinite(norm)):
            suspects = [
                *((f"the network's parameter {name}", p) for name, p in self.network.named_parameters()),
                *inputs(),
                ("the loss", loss),
                *((f"the gradient of {n}", p.grad) for n, p in self.network.named_parameters() if p.grad is not None),
            ]
            name = next((name for name, tensor in suspects if not tensor.isfinite().all()), "the gradient's norm")
            raise NotFiniteError(f"{name} is not finite; training stopped before the network was changed")
        if 0 < self.max_grad_norm < norm:
            flat.gradient.mul_(self.max_grad_norm / norm)
        self.optimizer.step()

    def set_learning_rate(self, learning_rate: float) -> None:
        """For the steps to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps: the network, the optimiser's memory, the generator."""
        memory = self.optimizer.state_dict()["state"].get(0, {})
        return {
            "networks": {**module_tensors(self.network, "online."), "generator": self.rng.get_state()},
            "optimizer": {name: torch.as_tensor(value).clone() for name, value in memory.items()},
        }

    def restore(self, tensors: Tensors) -> None:
        """Take back what `tensors` gave.

        Raises:
            ValueError: it is not that of such a network and optimiser.
        """
        load_module_tensors(self.network, tensors["networks"], "online.")
        memory = dict(tensors["optimizer"])
        for name, tensor in memory.items():
            if tensor.shape not in ((), self.flat.vector.shape):
                raise ValueError(f"the optimiser's {name} is {tuple(tensor.shape)}")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {0: memory} if memory else {}, "param_groups": groups})
        self.rng.set_state(tensors["networks"]["generator"])


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
