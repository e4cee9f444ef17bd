"""Deep Q-learning without replay memory or target network: PQN (Gallici et al. 2024), Algorithm 1 with Q(lambda).

    1  start with a network Q with random weights and normalised layers
    2  for every rollout of T steps in E environments that are played at once:
    3      in each, with probability epsilon choose a random action a, else a = argmax_a Q(s, a)
    4      perform the actions; observe each reward r and next observation s'
    5      with Q as it was then, from the last step back to the first: G = r where the episode terminated with it,
           else r + gamma (lambda G' + (1 - lambda) max_a' Q(s', a')), where G' is G of the next step
    6      in every epoch deal the rollout's steps out to minibatches at random, and for each of these
    7          descend the gradient of (G - Q(s, a))^2, through the action taken only

Many environments at once stand in for the replay memory: a rollout's steps are varied enough to learn from. Layer
normalisation (`network.layer_norm`) stands in for the target network. The rest of this file is that algorithm; the
numbers come back where each line happens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qlearn.actor import Actor
from qlearn.dqn import account, allowed, taken
from qlearn.engine import Descent, Mode, Optimizer, Tensors
from qlearn.networks import evaluating
from qlearn.types import Array, Steps, Tick
from qlearn.values import Value


def train(
    actor: Actor,
    learner: "Learner",  # 1
    *,
    epsilon: Callable[[int], float | Array],
    total_steps: int,
    rollout_steps: int = 32,
    after: Tick | None = None,
) -> Iterator[Tick]:
    """Train, and yield a `Tick` after each step of the environments. Stop by ceasing to iterate.

    A rollout that is not complete when the loop ends stays with the learner, for a loop that goes on.

    Args:
        actor: plays.
        learner: holds Q.
        epsilon: exploration rate as a function of the steps so far.
        total_steps: environment steps to stop at, all environments together.
        rollout_steps: T, rows of each environment between updates; the final observation of an episode takes one.
        after: the last tick of a run that this one continues.
    """
    steps, updates = (after.steps, after.updates) if after else (0, 0)
    begun = learner.begun
    while steps < total_steps:
        rate = epsilon(steps)
        seen = actor.seen.copy()
        row, episodes = actor.rollout(rate)  # 3, 4
        if row.lost is not None and begun:
            begun[-1].steps.done[0] |= row.lost[0]
        begun.append(Row(row._replace(obs=seen[None]), actor.final))
        steps += int(np.count_nonzero(~actor.final))
        if len(begun) == rollout_steps:  # 2
            updates += learner.update(*joined(begun), actor.seen, actor.mask)  # 5, 6, 7
            begun.clear()
        yield Tick(steps, updates, rate, episodes)


class Row(NamedTuple):
    """A row of a rollout."""

    steps: Steps  # [1, E, ...]; `obs` as the network sees them
    final: Array  # [E] bool: it only holds the final observation of an episode, and teaches nothing


def joined(rows: list[Row]) -> tuple[Steps, Array]:
    """The rows one after another: steps `[T, E, ...]`, and which are final, `[T, E]`."""
    masked = rows[0].steps.mask is not None
    names = Steps._fields[: 6 if masked else 5]
    columns = {name: np.concatenate([getattr(row.steps, name) for row in rows]) for name in names}
    return Steps(**columns), np.stack([row.final for row in rows])


def lambda_returns(
    reward: Tensor, terminated: Tensor, done: Tensor, next_value: Tensor, *, gamma: float, trace: float
) -> Tensor:
    """Line 5: G of every row of a rollout; all are `[T, E]`.

    `next_value` is max_a' Q(s', a'). Where an episode was cut (done, but not terminated), and at the rollout's end,
    it is all there is of what follows. A row that only holds a final observation gets a number that nothing reads.

    Args:
        reward: r.
        terminated: nothing follows, as far as values go.
        done: the next row is not of the same episode.
        next_value: the value of what follows, at the true final observation too.
        gamma: discount per step.
        trace: lambda; 0 is Q-learning, 1 sums the rewards up to the rollout's end.
    """
    returns = torch.empty_like(reward)
    following = next_value[-1]
    for t in reversed(range(len(reward))):
        mixed = trace * following + (1 - trace) * next_value[t]
        follows = torch.where(done[t], next_value[t], mixed)
        following = returns[t] = reward[t] + gamma * torch.where(terminated[t], 0.0, follows)  # 5
    return returns


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Steps of a rollout, and what their values should have been."""

    obs: Tensor  # [B, *shape]
    action: Tensor  # [B] int64
    target: Tensor  # [B] float32: G
    mask: Tensor | None = None  # [B, A] bool: the actions allowed at obs; None where all always are

    def to(self, device: torch.device) -> "Minibatch":
        """The same steps on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        return Minibatch(self.obs.to(device), self.action.to(device), self.target.to(device), mask)


class Learner:
    """Q, and the optimiser that moves it towards what rollouts say.

    Args:
        network: Q; observations `[B, *shape]` to a `Dist`. Without normalised layers it may diverge.
        value: what its numbers mean, and the loss; a number (K = 1), for G is one. The paper's loss is half of
            `Scalar(huber=False)`: to RAdam that is the same, but for its epsilon and the limit to the gradient.
        optimizer: how the parameters move.
        gamma: discount per step.
        trace: lambda.
        clip: whether rewards are cut to [-1, 1].
        epochs: passes over a rollout.
        minibatches: updates in a pass.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it as it is.
        rng: deals the steps out to minibatches.
        noise: draws what the network draws.
        mode: how an update and a forward pass run: eager, or compiled into one call each.
    """

    def __init__(
        self,
        network: nn.Module,
        value: Value,
        optimizer: Optimizer,
        *,
        gamma: float = 0.99,
        trace: float = 0.65,
        clip: bool = False,
        epochs: int = 2,
        minibatches: int = 32,
        max_grad_norm: float = 10.0,
        rng: np.random.Generator,
        noise: torch.Generator | None = None,
        mode: Mode = "eager",
    ) -> None:
        self.online, self.value, self.rng = network, value, rng  # 1
        self.gamma, self.trace, self.clip, self.epochs, self.minibatches = gamma, trace, clip, epochs, minibatches
        self.descent = Descent(network, self._losses, optimizer, max_grad_norm=max_grad_norm, rng=noise, mode=mode)
        self._q = self.descent.forward(lambda obs: value.mean(network(obs)), "acting")
        self._batch: Minibatch | None = None  # the last
        self.begun: list[Row] = []  # of the rollout that is being made

    def update(self, rows: Steps, final: Array, last_obs: Array, last_mask: Array | None) -> int:
        """Lines 5 to 7 on a rollout; returns the number of gradient steps.

        Args:
            rows: `[T, E, ...]`; `obs` as the network sees them.
            final: `[T, E]` bool; rows that only hold the final observation of an episode, and teach nothing.
            last_obs: what the network sees after the last row, `[E, ...]`.
            last_mask: the actions allowed there, `[E, A]`, or None.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; the network is as it was before that step.
        """
        obs, action = (torch.from_numpy(column).flatten(0, 1) for column in (rows.obs, rows.action))
        mask = None if rows.mask is None else torch.from_numpy(rows.mask).flatten(0, 1)
        target = self.returns(rows, last_obs, last_mask).flatten()  # 5
        updates = 0
        size = -(-len(action) // self.minibatches)
        for _ in range(self.epochs):
            dealt = np.array_split(self.rng.permutation(np.flatnonzero(~final)), self.minibatches)  # 6
            for part in (part for part in dealt if len(part)):
                # All minibatches are of one size; what fills the smaller ones weighs nothing.
                index, weight = torch.from_numpy(np.resize(part, size)), torch.zeros(size)
                weight[: len(part)] = size / len(part)
                self._batch = Minibatch(obs[index], action[index], target[index], None if mask is None else mask[index])
                batch = self._batch.to(self.descent.device)
                inputs = (batch.obs, batch.action, batch.target)
                self.descent.step(weight.to(self.descent.device), *inputs, suspects=self._suspects)  # 7
                updates += 1
        return updates

    @torch.no_grad()
    def returns(self, rows: Steps, last_obs: Array, last_mask: Array | None) -> Tensor:
        """Line 5: G of every row, `[T, E]`. The network has not changed since it chose the actions."""
        obs = [*torch.from_numpy(rows.obs[1:]), torch.from_numpy(last_obs)]
        masks: list[Array | None] = [None] * len(obs)
        if rows.mask is not None and last_mask is not None:
            masks = [*rows.mask[1:], last_mask]
        values = [self._best(o, None if m is None else torch.from_numpy(m)) for o, m in zip(obs, masks, strict=True)]
        reward = torch.from_numpy(rows.reward.clip(-1, 1) if self.clip else rows.reward).to(values[0])
        ends = (torch.from_numpy(rows.terminated), torch.from_numpy(rows.done))
        return lambda_returns(reward, *ends, torch.stack(values), gamma=self.gamma, trace=self.trace)

    def set_learning_rate(self, learning_rate: float) -> None:
        """For the updates to come."""
        self.descent.learning_rate = learning_rate

    def q_values(self, obs: Tensor) -> Tensor:
        """Q of observations `[B, *shape]`, `[B, A]`; both are on the CPU, wherever the network is."""
        return self._q(obs)

    @torch.no_grad()
    def statistics(self) -> dict[str, float]:
        """What the last minibatch looks like now: its values, its errors, the loss and gradient of its update."""
        if self._batch is None:
            return {}
        batch = self._batch
        with evaluating(self.online):
            q = self.q_values(batch.obs)
        return account(self.descent.gradient, q, batch.mask, batch.action, batch.target)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps, in groups."""
        last = {} if self._batch is None else {name: getattr(self._batch, name) for name in self._batch.__slots__}
        begun: dict[str, Tensor] = {}
        if self.begun:
            steps, final = joined(self.begun)
            arrays = steps._asdict() | {"final": final}
            begun = {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
        return self.descent.tensors() | {"last": {k: v for k, v in last.items() if v is not None}, "begun": begun}

    def restore(self, tensors: Tensors) -> None:
        """Take back what `tensors` gave. Raises ValueError where it is not that of such a learner."""
        self.descent.restore(tensors)
        self._batch = Minibatch(**tensors["last"]) if tensors["last"] else None
        arrays = {name: tensor.numpy() for name, tensor in tensors["begun"].items()}
        final = arrays.pop("final", ())
        rows = [Steps(**{name: array[t : t + 1] for name, array in arrays.items()}) for t in range(len(final))]
        self.begun[:] = map(Row, rows, final)

    def _best(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        """max_a Q over the actions allowed, `[B]`."""
        return allowed(self.q_values(obs), mask).amax(-1)

    def _losses(self, obs: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Line 7: `[B]`."""
        now = self.online(obs)
        return self.value.loss(taken(now.z, action), now.tau, target[:, None])

    @torch.no_grad()
    def _suspects(self) -> Iterator[tuple[str, Tensor]]:
        """What the losses are computed of, by name, in order."""
        assert self._batch is not None
        batch = self._batch.to(self.descent.device)
        yield "the rollout's obs", batch.obs
        yield "the network's output for the rollout's obs", self.online(batch.obs).z
        yield "the rollout's return G", batch.target
