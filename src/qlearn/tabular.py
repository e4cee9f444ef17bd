"""Q-learning with a table: Watkins, "Learning from Delayed Rewards" (1989); Watkins & Dayan, Machine Learning 8 (1992).

    1  start with a table Q(s, a), all zeros
    2  for every step of every episode, from its first state s:
    3      with probability epsilon choose a random action a, else a = argmax_a Q(s, a)
    4      perform a; observe the reward r and the next state s'
    5      y = r where the episode terminated with it, else r + gamma max_a' Q(s', a')
    6      move Q(s, a) by the part alpha of its error, y - Q(s, a)

It comes to the best policy's values where every action is tried in every state again and again, while alpha falls
slowly enough (Watkins & Dayan 1992), whatever policy tries them. `dqn.py` is this with a network in the table's
place: lines 5 and 6 are lines 7 and 8 there, and what else it has is there because a network that moves one value
moves others with it. The rest of this file is the algorithm; the numbers come back where each line happens.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from qlearn.actor import Actor
from qlearn.errors import NotFiniteError, UsageError
from qlearn.types import Array, Dist, Tick
from qlearn.values import Scalar

Tensors = Mapping[str, Mapping[str, Tensor]]


def train(
    actor: Actor,
    learner: "Learner",  # 1
    *,
    epsilon: Callable[[int], float | Array],
    total_steps: int,
    after: Tick | None = None,
) -> Iterator[Tick]:
    """Train, and yield a `Tick` after each step of the environments. Stop by ceasing to iterate.

    Args:
        actor: plays.
        learner: holds Q.
        epsilon: exploration rate, or one for each environment, as a function of the environment steps so far.
        total_steps: environment steps to stop at, all environments together.
        after: the last tick of a run that this one continues.
    """
    steps, updates = (after.steps, after.updates) if after else (0, 0)
    while steps < total_steps:  # 2
        rate = epsilon(steps)
        rows, episodes = actor.rollout(rate)  # 3, 4
        real = ~actor.final  # where an environment started its next episode instead, nothing was done
        errors = learner.update(  # 5, 6
            rows.obs[0, real],
            rows.action[0, real],
            rows.reward[0, real],
            rows.terminated[0, real],
            actor.obs[real],
            None if actor.mask is None else actor.mask[real],
        )
        steps, updates = steps + len(errors), updates + len(errors)
        yield Tick(steps, updates, rate, episodes)


class Table(nn.Module):
    """Q as a table of S states and A actions: a network with nothing between its input and its output.

    Its numbers are float32, as those of every network are: their rounding, 1e-7 of a value, is nothing beside the
    noise that any alpha leaves in it. `visits` counts how often each number was moved.
    """

    def __init__(self, num_states: int, num_actions: int) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.zeros(num_states, num_actions), requires_grad=False)  # 1
        self.visits: Tensor
        self.register_buffer("visits", torch.zeros(num_states, num_actions, dtype=torch.int64))

    def forward(self, obs: Tensor) -> Dist:
        """States `[B]` int64 to the values of their actions, `[B, A, 1]`."""
        return Dist(self.q[obs][..., None])


class Learner:
    """Q, and how it is moved.

    Args:
        table: Q, on the CPU: its values move one at a time, which numpy does best.
        gamma: discount per step.
        learning_rate: alpha, in (0, 1].
    """

    def __init__(self, table: Table, *, gamma: float, learning_rate: float) -> None:
        self.online, self.value, self.gamma = table, Scalar(), gamma
        self.set_learning_rate(learning_rate)
        self._q: Array = table.q.numpy()  # the same memory
        self._visits: Array = table.visits.numpy()
        self._error, self._count = 0.0, 0  # sum of absolute TD errors since the last statistics, and how many

    def update(
        self,
        state: Array,
        action: Array,
        reward: Array,
        terminated: Array,
        next_state: Array,
        next_mask: Array | None = None,
    ) -> Array:
        """Lines 5 and 6 for transitions that were made at once, one in each environment; TD errors `[E]`.

        All targets come from the table as it was before. Then the values move one after the other, so where two
        environments did the same in the same state, its value moves twice.

        Args:
            state: where they were, `[E]` int64.
            action: what they did, `[E]` int64.
            reward: what they got, `[E]`.
            terminated: whether nothing follows, `[E]` bool; false where a time limit has cut the episode.
            next_state: where they came to, `[E]` int64.
            next_mask: the actions allowed there, `[E, A]` bool; by default all.

        Raises:
            NotFiniteError: a target is NaN or infinite; the table is as it was before.
        """
        q = self._q
        following = q[next_state] if next_mask is None else np.where(next_mask, q[next_state], -np.inf)
        future = np.where(terminated, 0, following.max(-1))
        y = (reward + self.gamma * future).astype(q.dtype)  # 5
        if not np.isfinite(y).all():
            worst = np.flatnonzero(~np.isfinite(y))[0]
            where = f"state {state[worst]}, action {action[worst]}"
            raise NotFiniteError(f"the target of {where} is not finite; training stopped before the table was changed")
        errors = np.empty_like(y)
        for i, place in enumerate(zip(state.tolist(), action.tolist(), strict=True)):
            errors[i] = y[i] - q[place]
            q[place] += self.learning_rate * errors[i]  # 6
            self._visits[place] += 1
        self._error += float(np.abs(errors).sum())
        self._count += len(errors)
        return errors

    def set_learning_rate(self, learning_rate: float) -> None:
        """For the updates to come.

        Raises:
            UsageError: it is not in (0, 1]: with more a value jumps past its target, and the table grows for ever.
        """
        if not 0 < learning_rate <= 1:
            raise UsageError(f"optimizer.learning_rate is {learning_rate}; for a table it must be in (0, 1]")
        self.learning_rate = learning_rate

    def q_values(self, obs: Tensor) -> Tensor:
        """Q of states `[E]`, `[E, A]`."""
        return self.value.mean(self.online(obs))

    def statistics(self) -> dict[str, float]:
        """The error since the last call, and the table now; nothing where no update was made since.

        A state's value is the largest of the actions that were tried there: the zeros of others are no estimates.
        """
        if not self._count:
            return {}
        error, self._error, self._count = self._error / self._count, 0.0, 0
        tried = self._visits > 0
        visited = tried.any(-1)
        best = np.where(tried, self._q, -np.inf).max(-1)[visited]
        return {
            "q_mean": float(best.mean()),
            "q_max": float(best.max()),
            "td_error": error,
            "states_visited": int(visited.sum()),
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps, in groups."""
        networks = {f"online.{name}": tensor.clone() for name, tensor in self.online.state_dict().items()}
        return {"networks": networks, "last": {"error": torch.tensor([self._error, self._count], dtype=torch.float64)}}

    def restore(self, tensors: Tensors) -> None:
        """Take back what `tensors` gave.

        Raises:
            ValueError: it is of another table; this one is as it was before.
        """
        own, given = self.online.state_dict(prefix="online."), tensors.get("networks", {})
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        if (theirs := {name: tuple(tensor.shape) for name, tensor in given.items()}) != shapes:
            raise ValueError(f"tensors of shapes {theirs}; this table has {shapes}")
        for name, tensor in own.items():
            tensor.copy_(given[name])
        error, count = tensors["last"]["error"].tolist()
        self._error, self._count = error, int(count)
