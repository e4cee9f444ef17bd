"""The network's health: units that no longer speak, the size of its weights, its distance to the target network."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qlearn.networks import NoisyLinear, evaluating

DORMANT = 0.025  # of the mean activity of its layer, or less: Sokar et al. (2023)


@torch.no_grad()
def health(network: nn.Module, target: Mapping[str, Tensor] | None, obs: Tensor, source: str) -> dict[str, Any]:
    """The network for the page.

    Args:
        network: the online network.
        target: the parameters of the target network by name, where there is one.
        obs: what its units are watched on, `[B, *shape]`.
        source: where these observations come from.
    """
    with evaluating(network), listening(network) as heard:
        network(obs)
    parameters = dict(network.named_parameters())
    apart = 0.0 if target is None else _norm(p - target[name] for name, p in parameters.items())
    whole = _norm(parameters.values())
    return {
        "parameters": sum(p.numel() for p in parameters.values()),
        "observations": len(obs),
        "source": source,
        "dormant_below": DORMANT,
        "layers": [layer for layer in heard.values() if layer],
        "weights": [
            {
                "name": name,
                "shape": list(p.shape),
                "norm": _norm([p]),
                "rms": float(p.float().square().mean().sqrt()),
                "distance": None if target is None else _norm([p - target[name]]),
            }
            for name, p in parameters.items()
        ],
        "norm": whole,
        "distance": None if target is None else apart,
        "relative": None if target is None or not whole else apart / whole,
    }


@contextmanager
def listening(network: nn.Module) -> Iterator[dict[str, dict[str, Any]]]:
    """What the units behind each ReLU say while the network runs, by layer, in order."""
    heard: dict[str, dict[str, Any]] = {}
    before, image, hooks = "", False, []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, NoisyLinear)):
            before, image = name, isinstance(module, nn.Conv2d)
        if isinstance(module, nn.ReLU):
            heard[before or name] = {}
            hooks.append(module.register_forward_hook(_hook(heard, before or name, image)))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _hook(heard: dict[str, dict[str, Any]], name: str, image: bool) -> Any:
    def hear(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
        heard[name] = activity(name, output.movedim(1, -1) if image else output)

    return hear


def activity(name: str, output: Tensor) -> dict[str, Any]:
    """A layer's units by their share of its mean activity: those that are dormant, and those that are silent."""
    units = output.float().abs().reshape(-1, output.shape[-1]).mean(0)
    score = units / units.mean() if float(units.mean()) > 0 else torch.zeros_like(units)
    counts = torch.histc(score.clamp(max=3.0), bins=24, min=0.0, max=3.0)
    return {
        "name": name,
        "units": len(units),
        "dormant": int((score <= DORMANT).sum()),
        "silent": int((units == 0).sum()),
        "scores": [int(count) for count in counts],
    }


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(t.float().square().sum()) for t in tensors))
