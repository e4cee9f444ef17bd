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

import torch
from torch import Tensor, nn

from qlearn.actor import Actor
from qlearn.engine import Descent, Flat, Gradient, Mode, Optimizer, Tensors, load_module_tensors, module_tensors
from qlearn.networks import evaluating
from qlearn.replay import Replay
from qlearn.types import Array, Batch, Dist, Tick
from qlearn.values import Value

Network = Callable[[Tensor], Dist]


def train(
    actor: Actor,
    replay: Replay,  # 1
    learner: "Learner",  # 1
    *,
    epsilon: Callable[[int], float | Array],
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
            error = learner.update(index, weight)  # 7, 8
            replay.reweigh(index, error)
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


@dataclass(frozen=True)
class Munchausen:
    """Back up the soft policy pi = softmax(Q' / temperature), entropy included (Vieillard et al. 2020).

    The reward gains `alpha` times temperature log pi(a | s) of the action taken, which is at least `clip`. As
    sum_a pi (Z - temperature log pi) = sum_a pi Z + temperature H(pi), both additions are scalars, and any
    representation of the return can be backed up; with atoms that is a generalisation of ours, not a published one.
    The paper has one-step returns; over n steps the first action is praised and the last policy's entropy counts.
    """

    alpha: float = 0.9
    temperature: float = 0.03
    clip: float = -1.0


Backup = Greedy | Munchausen


def td_target(value: Value, backup: Backup, online: Network, target: Network, batch: Batch) -> Tensor:
    """Line 7: y `[B, K]`, what the values of the actions taken should have been.

    The two cases of the line are one: `batch.discount` is 0 where the episode terminated, else gamma.
    """
    return value.backup(*backed_up(value, backup, online, target, batch))  # 7


def backed_up(
    value: Value, backup: Backup, online: Network, target: Network, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """What y is made of: the return Z' of the next observation `[B, K]`, r `[B]`, and its discount `[B]`."""
    with torch.no_grad():
        after, reward = target(batch.next_obs), batch.reward
        match backup:
            case Greedy(double):
                q = allowed(value.mean(online(batch.next_obs) if double else after), batch.next_mask)
                pi = (torch.arange(q.shape[-1], device=q.device) == q.argmax(-1, keepdim=True)).to(q)
            case Munchausen(alpha, temperature, clip):
                pi = (allowed(value.mean(after), batch.next_mask) / temperature).softmax(-1)
                log_mu = (allowed(value.mean(target(batch.obs)), batch.mask) / temperature).log_softmax(-1)
                praise = (temperature * log_mu.take_along_dim(batch.action[:, None], 1).squeeze(1)).clamp(clip, 0)
                reward = reward + alpha * praise + batch.discount * temperature * torch.special.entr(pi).sum(-1)
        return value.mix(after, pi), reward, batch.discount


def td_loss(value: Value, backup: Backup, online: Network, target: Network, batch: Batch) -> Tensor:
    """Lines 7 and 8: the loss of every transition, `[B]`."""
    y = td_target(value, backup, online, target, batch)
    now = online(batch.obs)
    return value.loss(taken(now.z, batch.action), now.tau, y)  # 8


def taken(z: Tensor, action: Tensor) -> Tensor:
    """`[B, A, K]` and `[B]` to `[B, K]`: the numbers of the actions taken."""
    return z.take_along_dim(action[:, None, None], 1).squeeze(1)


def allowed(q: Tensor, mask: Tensor | None) -> Tensor:
    """q `[B, A]`, minus infinity where `mask` `[B, A]` forbids the action."""
    return q if mask is None else q.masked_fill(~mask, -math.inf)


def account(gradient: Gradient, q: Tensor, mask: Tensor | None, action: Tensor, y: Tensor) -> dict[str, float]:
    """What is told of a minibatch: its last gradient, its values q `[B, A]`, and their errors from targets y `[B]`."""
    best = allowed(q, mask).amax(-1)
    return {
        "loss": gradient.loss,
        "grad_norm": gradient.norm,
        "q_mean": best.mean().item(),
        "q_max": best.max().item(),
        "td_error": (y - q.take_along_dim(action[:, None], 1).squeeze(1)).abs().mean().item(),
    }


class Learner:
    """Q, its target Q', and the optimiser that moves the one towards what the other says.

    Args:
        network: Q; observations `[B, *shape]` to a `Dist`.
        value: what its numbers mean.
        backup: how the next observation is valued.
        replay: where the transitions are.
        optimizer: how the parameters move.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it as it is.
        rng: draws the noise and the quantile levels of networks that have them, of Q and of Q' in turn.
        mode: how an update and the choice of an action run: eager, or compiled into one call each.
    """

    def __init__(
        self,
        network: nn.Module,
        value: Value,
        backup: Backup,
        replay: Replay,
        optimizer: Optimizer,
        *,
        max_grad_norm: float = 0.0,
        rng: torch.Generator | None = None,
        mode: Mode = "eager",
    ) -> None:
        self.online, self.target = network, copy.deepcopy(network).requires_grad_(False)  # 1
        self.value, self.backup, self.ring, self._target = value, backup, replay.ring, Flat(self.target)
        self.descent = Descent(
            self.online,
            self._losses,
            optimizer,
            outcome=value.error,
            beside=[self._target],
            kept=list(self.ring.storage.columns().values()),
            max_grad_norm=max_grad_norm,
            rng=rng,
            mode=mode,
        )
        self.acting = self.descent.forward(lambda obs: value.mean(network(obs)), "acting")
        self._index: Tensor | None = None  # of the last minibatch

    def update(self, index: Tensor, weight: Tensor) -> Tensor:
        """One gradient step on the transitions at `index` `[B]`, weighted by `weight` `[B]`; their errors `[B]`.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; the network is as it was before.
        """
        self._index = index
        self.ring.prepare(index)
        return self.descent.step(weight, index, suspects=self._suspects)

    def took(self, gradient: Gradient, index: Tensor, error: Tensor) -> None:
        """Take note of an update made elsewhere, together with others'; raises what `update` does."""
        self._index = index
        self.descent.stepped_to(gradient, error, self._suspects)

    def synchronize(self) -> None:
        """Line 9: the target network becomes a copy of the network."""
        self._target.copy_(self.descent.flat)

    def set_learning_rate(self, learning_rate: float) -> None:
        """For the updates to come."""
        self.descent.learning_rate = learning_rate

    def q_values(self, obs: Tensor) -> Tensor:
        """Q of observations `[B, *shape]`, `[B, A]`; both are on the CPU, wherever the network is."""
        return self.acting(obs)

    @torch.no_grad()
    def statistics(self) -> dict[str, float]:
        """What the last minibatch looks like now: its values, its errors, the loss and gradient of its update."""
        if self._index is None:
            return {}
        batch = self._batch(self._index)
        with evaluating(self.online), evaluating(self.target):
            q = self.value.mean(self.online(batch.obs))
            parts = backed_up(self.value, self.backup, self.online, self.target, batch)
        y = self.value.backup(*parts)
        told = account(self.descent.gradient, q, batch.mask, batch.action, self.value.expected(y))
        return told | self.value.diagnose(*parts)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps, in groups."""
        groups = self.descent.tensors()
        groups["networks"] |= module_tensors(self.target, "target.")
        return groups | {"last": {} if self._index is None else {"index": self._index}}

    def restore(self, tensors: Tensors) -> None:
        """Take back what `tensors` gave, when the ring has its rows.

        Raises:
            ValueError: it is not that of such a learner.
        """
        self.descent.restore(tensors)
        load_module_tensors(self.target, tensors["networks"], "target.")
        self._target.changed()
        if (index := tensors["last"].get("index")) is not None:
            self.ring.require(index)
            self._index = index
            self.ring.prepare(index)

    def _losses(self, *columns_and_index: Tensor) -> Tensor:
        """The losses `[B]` of the transitions at an index, of the ring's columns."""
        *columns, index = columns_and_index
        return td_loss(self.value, self.backup, self.online, self.target, self._batch(index, *columns))

    def _batch(self, index: Tensor, *columns: Tensor) -> Batch:
        """The transitions at `index`, where the network is."""
        batch, device = self.ring.batch(index, *columns), self.descent.device
        return batch if device.type == "cpu" else batch.to(device)

    @torch.no_grad()
    def _suspects(self) -> Iterator[tuple[str, Tensor]]:
        """What the losses are computed of, by name, in order."""
        assert self._index is not None
        batch = self._batch(self._index)
        yield from ((f"the target network's parameter {name}", p) for name, p in self.target.named_parameters())
        yield from ((f"batch.{name}", getattr(batch, name)) for name in ("obs", "reward", "next_obs"))
        yield "the network's output for batch.obs", self.online(batch.obs).z
        yield "the target network's output for batch.next_obs", self.target(batch.next_obs).z
