"""Deep Q-learning with experience replay: Algorithm 1 of Mnih et al., Nature 518 (2015).

    1  start with an empty replay memory D, a network Q with random weights, and a target network Q' equal to Q
    2  for every step of every episode, from its first observation s:
    3      with probability epsilon choose a random action a, else a = argmax_a Q(s, a)
    4      perform a; observe the reward r and the next observation s'
    5      store the transition (s, a, r, s') in D
    6      draw a random minibatch of transitions from D
    7      y = r where the episode terminated with it, else r + gamma max_a' Q'(s', a')
    8      descend the gradient of (y - Q(s, a))^2, through the action taken only
    9      every C steps set Q' = Q

The rest of this file is that algorithm; the numbers come back where each line happens.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qlearn.actor import Actor
from qlearn.engine import Flat, Gradient, MakeOptimizer, descend
from qlearn.errors import NotFiniteError
from qlearn.replay import Replay
from qlearn.types import Batch, Dist, Tick
from qlearn.values import Value

Network = Callable[[Tensor], Dist]


def train(
    actor: Actor,
    replay: Replay,  # 1
    learner: "Learner",  # 1
    *,
    epsilon: Callable[[int], float],
    total_steps: int,
    warmup_steps: int = 1_000,
    batch_size: int = 32,
    replay_ratio: float = 1.0,
    target_update_steps: int = 2_500,
    after: Tick | None = None,
) -> Iterator[Tick]:
    """Train, and yield a `Tick` after each step of the environments. Stop by ceasing to iterate.

    Args:
        actor: plays.
        replay: remembers.
        learner: holds Q and Q'.
        epsilon: exploration rate as a function of the steps since the warm-up.
        total_steps: environment steps to stop at, all environments together.
        warmup_steps: environment steps with random actions and no updates, at the start.
        batch_size: transitions per update.
        replay_ratio: updates per environment step after the warm-up.
        target_update_steps: environment steps between copies of the network.
        after: the last tick of a run that this one continues.
    """
    steps, updates = (after.steps, after.updates) if after else (0, 0)
    while steps < total_steps:  # 2
        before = max(0, steps - warmup_steps)
        rate = epsilon(before) if steps >= warmup_steps else 1.0
        rows, episodes = actor.rollout(rate)  # 3, 4
        steps += replay.append(rows)  # 5
        now = max(0, steps - warmup_steps)
        while updates < int(now * replay_ratio) and replay.ring.ready:
            index, weight = replay.sample(batch_size)  # 6
            losses = learner.update(index, weight)  # 7, 8
            replay.reweigh(index, losses)
            updates += 1
        if now // target_update_steps > before // target_update_steps:
            learner.synchronize()  # 9
        yield Tick(steps, updates, rate, episodes)


@dataclass(frozen=True)
class Greedy:
    """Back up the action with the largest value at the next observation.

    With `double` the online network chooses it and the target network values it (van Hasselt et al. 2016).
    """

    double: bool = False


def td_target(value: Value, backup: Greedy, online: Network, target: Network, batch: Batch) -> Tensor:
    """Line 7: y `[B, K]`, what the values of the actions taken should have been.

    The two cases of the line are one: `batch.discount` is 0 where the episode terminated, else gamma.
    """
    with torch.no_grad():
        after = target(batch.next_obs)
        q = value.mean(online(batch.next_obs) if backup.double else after)
        best = q.argmax(-1, keepdim=True)
        pi = (torch.arange(q.shape[-1], device=q.device) == best).to(q)
        return value.backup(value.mix(after, pi), batch.reward, batch.discount)  # 7


def td_loss(value: Value, backup: Greedy, online: Network, target: Network, batch: Batch) -> Tensor:
    """Lines 7 and 8: the loss of every transition, `[B]`."""
    y = td_target(value, backup, online, target, batch)
    now = online(batch.obs)
    return value.loss(taken(now.z, batch.action), now.tau, y)  # 8


def taken(z: Tensor, action: Tensor) -> Tensor:
    """`[B, A, K]` and `[B]` to `[B, K]`: the numbers of the actions taken."""
    return z.take_along_dim(action[:, None, None], 1).squeeze(1)


class Learner:
    """Q, its target Q', and the optimiser that moves the one towards what the other says.

    Args:
        network: Q; observations `[B, *shape]` to a `Dist`.
        value: what its numbers mean.
        backup: how the next observation is valued.
        replay: where the transitions are.
        make_optimizer: parameters to an optimiser.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it as it is.
    """

    def __init__(
        self,
        network: nn.Module,
        value: Value,
        backup: Greedy,
        replay: Replay,
        make_optimizer: MakeOptimizer,
        *,
        max_grad_norm: float = 0.0,
    ) -> None:
        self.online, self.target = network, copy.deepcopy(network).requires_grad_(False)  # 1
        self.value, self.backup, self.ring, self.max_grad_norm = value, backup, replay.ring, max_grad_norm
        self._online, self._target = Flat(self.online), Flat(self.target)
        self.optimizer = make_optimizer([self._online.vector])
        self.gradient = Gradient(math.nan, math.nan)  # of the last update
        self._index: Tensor | None = None  # of the last minibatch

    def update(self, index: Tensor, weight: Tensor) -> Tensor:
        """One gradient step on the transitions at `index` `[B]`, weighted by `weight` `[B]`; losses `[B]`.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; the network is as it was before.
        """
        self._index = index
        losses = td_loss(self.value, self.backup, self.online, self.target, self._batch(index))
        loss = (weight.to(losses) * losses).mean()
        self.gradient = descend(self._online, self.optimizer, loss, self.max_grad_norm, self._check)
        return losses.detach()

    def synchronize(self) -> None:
        """Line 9: the target network becomes a copy of the network."""
        self._target.copy_(self._online)

    def set_learning_rate(self, learning_rate: float) -> None:
        """For the updates to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    @torch.no_grad()
    def q_values(self, obs: Tensor) -> Tensor:
        """Q of observations `[B, *shape]`, `[B, A]`; both are on the CPU, wherever the network is."""
        return self.value.mean(self.online(obs.to(self._online.vector.device))).cpu()

    @torch.no_grad()
    def statistics(self) -> dict[str, float]:
        """What the last minibatch looks like now: its values, its errors, the loss and gradient of its update."""
        if self._index is None:
            return {}
        batch = self._batch(self._index)
        now = self.online(batch.obs)
        y = td_target(self.value, self.backup, self.online, self.target, batch)
        predicted = self.value.mean(Dist(torch.stack([taken(now.z, batch.action), y], 1)))
        q = self.value.mean(now)
        return {
            "loss": self.gradient.loss,
            "grad_norm": self.gradient.norm,
            "q_mean": q.max(-1).values.mean().item(),
            "q_max": q.max().item(),
            "td_error": (predicted[:, 1] - predicted[:, 0]).abs().mean().item(),
        }

    def _batch(self, index: Tensor) -> Batch:
        """The transitions at `index`, where the network is."""
        batch, device = self.ring.batch(index), self._online.vector.device
        return batch if device.type == "cpu" else Batch(*(getattr(batch, n).to(device) for n in Batch.__slots__))

    def _check(self, gradient: Gradient) -> None:
        if not (math.isfinite(gradient.loss) and math.isfinite(gradient.norm)):
            name = self._culprit(gradient)
            raise NotFiniteError(f"{name} is not finite; training stopped before the network was changed")

    @torch.no_grad()
    def _culprit(self, gradient: Gradient) -> str:
        """The first tensor in the order of computation that holds NaN or infinity."""
        assert self._index is not None
        batch = self._batch(self._index)
        tensors: dict[str, Any] = {f"batch.{name}": getattr(batch, name) for name in Batch.__slots__}
        tensors |= {f"the network's parameter {name}": p for name, p in self.online.named_parameters()}
        tensors |= {f"the target network's parameter {name}": p for name, p in self.target.named_parameters()}
        tensors["the network's output for batch.obs"] = self.online(batch.obs).z
        tensors["the target network's output for batch.next_obs"] = self.target(batch.next_obs).z
        tensors["the loss"] = torch.tensor(gradient.loss)
        tensors |= {f"the gradient of {name}": p.grad for name, p in self.online.named_parameters()}
        return next((n for n, t in tensors.items() if t is not None and not t.isfinite().all()), "the gradient's norm")
