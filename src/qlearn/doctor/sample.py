"""What a run's network makes of observations."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from qlearn import dqn
from qlearn.build import Parts
from qlearn.networks import evaluating
from qlearn.replay import Ring, Uniform
from qlearn.types import Array, Batch

SAMPLE = 512  # observations that the network is asked about


@dataclass(frozen=True)
class Sample:
    """What the network makes of observations, from the replay memory or else from play.

    q `[B, A]` is minus infinity where an action is not allowed. `size` is the root mean square of the network's inputs
    and `spread` the largest standard deviation of one of them; None of integers. `still` is the part of the stacks
    whose frames are all the same. `outside` is c51's part of the targets' probability beyond its atoms. `dormant` is
    the part of each hidden layer's units that are, `fan_in` the most inputs that a unit of the network has.
    """

    q: Array
    size: float | None = None
    spread: float | None = None
    still: float | None = None
    outside: float | None = None
    dormant: Mapping[str, float] = dataclasses.field(default_factory=dict)
    fan_in: int = 0


def batches(ring: Ring, size: int) -> list[Batch]:
    """Minibatches of the replay memory, drawn evenly, `SAMPLE` transitions in all; none where it has none yet."""
    if not ring.ready:
        return []
    uniform, drawn = Uniform(ring, np.random.default_rng(0)), list[Batch]()
    for _ in range(-(-SAMPLE // size)):
        index = torch.from_numpy(uniform.draw(size))
        ring.prepare(index)
        drawn.append(ring.batch(index))
    return drawn


@torch.no_grad()
def sampled(parts: Parts, seen: Tensor, drawn: list[Batch]) -> Sample:
    """What the network makes of the observations of the minibatches, or where there are none of those `seen`."""
    learner, config = parts.learner, parts.config
    obs = torch.cat([batch.obs for batch in drawn]) if drawn else seen
    space, stack = parts.envs.space, config.env.frame_stack
    q = learner.value.mean(learner.online(obs)).numpy()
    if drawn and drawn[0].mask is not None:
        masks = [batch.mask for batch in drawn if batch.mask is not None]
        q = np.where(torch.cat(masks).numpy(), q, -np.inf)
    outside = None
    if isinstance(learner, dqn.Learner) and drawn:
        with evaluating(learner.target):
            told = [
                learner.value.diagnose(
                    *dqn.backed_up(learner.value, learner.backup, learner.online, learner.target, batch)
                )
                for batch in drawn
            ]
        outside = float(np.mean([t["outside_support"] for t in told])) if "outside_support" in told[0] else None
    size, spread = (None, None) if space.categories else measures(encoded(learner.online, obs))
    return Sample(
        q,
        size,
        spread,
        still=float((obs == obs[:, :1]).flatten(1).all(1).float().mean()) if stack > 1 else None,
        outside=outside,
        dormant=dormant(learner.online, obs),
        fan_in=max((p[0].numel() for p in learner.online.parameters() if p.ndim > 1), default=0),
    )


def encoded(network: nn.Module, obs: Tensor) -> Tensor:
    """What the network's first layer gets of observations."""
    encode = getattr(network, "encode", None)
    inputs: Tensor = obs.float() if encode is None else encode(obs)
    return inputs


def measures(inputs: Tensor) -> tuple[float, float]:
    """The root mean square of inputs `[B, ...]`, and the largest standard deviation of one of them."""
    flat = inputs.flatten(1).double()
    return float(flat.square().mean().sqrt()), float(flat.std(0, unbiased=False).max())


def dormant(network: nn.Module, obs: Tensor, tau: float = 0.025) -> dict[str, float]:
    """The part of the units of each layer of ReLUs that are dormant (Sokar et al. 2023, with their tau of 0.025).

    A unit is where its mean activation is no more than `tau` of its layer's mean. A filter is one unit.
    """
    shares: dict[str, float] = {}

    def look(name: str, out: Tensor) -> None:
        units = out.movedim(1, -1) if out.ndim == 4 else out
        mean = units.float().flatten(0, -2).abs().mean(0)
        shares[name] = float((mean <= tau * mean.mean()).float().mean())

    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.ReLU)]
    hooks = [part.register_forward_hook(lambda _m, _i, out, name=name: look(name, out)) for name, part in layers]
    try:
        network(obs)
    finally:
        for hook in hooks:
            hook.remove()
    return shares
