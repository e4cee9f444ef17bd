"""The agent: what training leaves behind."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qlearn.envs import Encoder
from qlearn.errors import UsageError
from qlearn.exploration import epsilon_greedy
from qlearn.types import Array
from qlearn.values import Value


class Agent:
    """A trained network that answers two questions: what is each action worth, and which one is best.

    Args:
        network: observations to a `Dist`.
        value: what its numbers mean.
        encoder: the observation space.
        stack: observations that the network sees at once; with more than one, `obs` has an axis for them before
            its own, oldest first.
    """

    def __init__(self, network: nn.Module, value: Value, encoder: Encoder, *, stack: int = 1) -> None:
        self.network, self.value, self.encoder, self.stack = network.eval(), value, encoder, stack
        self._device = next(network.parameters()).device

    def q_values(self, obs: Any) -> Array:
        """Q of every action: `[A]` for one observation, `[B, A]` for a batch.

        An observation is whatever the environment returns. A batch is an array with one more axis, or a list.
        """
        encoded, batched = self._encode(obs)
        q: Array = self.encoded_q_values(torch.from_numpy(np.ascontiguousarray(encoded))).numpy()
        return q if batched else q[0]

    def act(
        self, obs: Any, *, action_mask: Any = None, epsilon: float = 0.0, rng: np.random.Generator | None = None
    ) -> Any:
        """The best action: an `int` for one observation, an array `[B]` for a batch.

        Only actions that `action_mask` (`[A]`, or `[B, A]` for a batch) allows are chosen: what an environment gives as
        `info["action_mask"]`. With `epsilon` the action is a random one that often, drawn from `rng`.
        """
        q = self.q_values(obs)
        rows, mask = np.atleast_2d(q), None
        if action_mask is not None:
            mask = np.asarray(action_mask).astype(np.bool_)
            if mask.shape != q.shape or not mask.any(-1).all():
                raise UsageError(f"an action_mask of shape {mask.shape}; it must be {q.shape}, and allow an action")
            mask = np.atleast_2d(mask)
        best = (rows if mask is None else np.where(mask, rows, -np.inf)).argmax(-1)
        rng = rng or np.random.default_rng()
        action = epsilon_greedy(lambda: best, epsilon, len(best), q.shape[-1], rng, mask).reshape(q.shape[:-1])
        action = action + self.encoder.first_action
        return int(action) if np.ndim(action) == 0 else action

    @torch.no_grad()
    def encoded_q_values(self, obs: Tensor) -> Tensor:
        """Q of encoded observations `[B, *shape]`, `[B, A]`; both are on the CPU."""
        return self.value.mean(self.network(obs.to(self._device))).cpu()

    def _encode(self, obs: Any) -> tuple[Array, bool]:
        """Any observation or batch of them as `[B, *shape]`, and whether it was a batch."""
        shape = self.encoder.space.shape
        shape = (self.stack, *shape) if self.stack > 1 else shape
        if self.encoder.plain:
            encoded = self.encoder.encode(np.asarray(obs))
            if encoded.shape == shape:
                return encoded[None], False
            if encoded.shape[1:] == shape and encoded.ndim == len(shape) + 1:
                return encoded, True
            raise UsageError(f"an observation of shape {encoded.shape}; the agent takes {shape}, or a batch of it")
        rank = len(self.encoder.gym_space.shape or ())
        if isinstance(obs, list) or (rank and np.ndim(obs) == rank + 1):
            return np.stack([self.encoder.encode(one) for one in obs]), True
        return self.encoder.encode(obs)[None], False
