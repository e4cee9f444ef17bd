"""The actor: observe, choose, step."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qlearn.exploration import Uniforms, epsilon_greedy
from qlearn.types import Array, Envs, Episode, Steps


class Actor:
    """Plays a batch of environments epsilon-greedily and keeps their running episodes.

    Args:
        envs: the environments.
        q_values: observations `[E, *shape]` (or `[E, stack, *shape]`) to Q-values `[E, A]`.
        rng: draws the coins and the random actions.
        stack: observations that the network sees at once.
        limit: steps after which an episode is cut, for environments that may not end by themselves.
    """

    def __init__(
        self,
        envs: Envs,
        q_values: Callable[[Tensor], Tensor],
        rng: Uniforms,
        *,
        stack: int = 1,
        limit: int | None = None,
    ) -> None:
        self.envs, self.q_values, self.rng, self.stack, self.limit = envs, q_values, rng, stack, limit
        self.part_of: tuple[Actor, slice] | None = None  # one that plays in its place, where it is a part of that one
        self.restart()

    def restart(self) -> None:
        """Leave all running episodes and start the next ones."""
        envs = self.envs
        self.obs = envs.reset()
        self.mask = None if envs.mask is None else envs.mask.copy()  # the actions allowed at obs
        self._window = Window(self.obs, self.stack)
        self._ended = np.zeros(envs.num_envs, np.bool_)
        self.final = self._ended  # [E]: where the last row only held the final observation of an episode
        self.returns = np.zeros(envs.num_envs)  # of the running episodes
        self._turns, self._first = 0, np.zeros(envs.num_envs, np.int64)  # rollouts so far, and before each episode

    def rollout(self, epsilon: float | Array) -> tuple[Steps, list[Episode]]:
        """One step of every environment: rows `[1, E, ...]`, and the episodes that ended with it.

        `epsilon` is that of all environments, or `[E]` of each. Where an episode has ended, the row holds its final
        observation, and the next one begins. Where a step is lost, its row is the final one of an episode that was cut.
        """
        obs, mask, ended = self.obs, self.mask, self._ended
        action = epsilon_greedy(self._greedy, epsilon, len(obs), self.envs.space.num_actions, self.rng, mask)
        self.obs, reward, terminated, done = self.envs.step(action)
        self.mask = None if self.envs.mask is None else self.envs.mask.copy()
        lost = self.envs.lost
        self.final = ended if lost is None else ended | lost
        self._window.push(self.obs, self.final)
        self.returns += reward
        self._turns += 1
        if lost is not None:
            self.returns[lost], self._first[lost] = 0.0, self._turns
        if self.limit is not None:
            for env in np.flatnonzero(~done & (self.lengths >= self.limit)):
                self.envs.abandon(int(env))
                done[env] = True
        episodes: list[Episode] = []
        for env in np.flatnonzero(done) if np.count_nonzero(done) else ():
            episodes.append(Episode(float(self.returns[env]), int(self._turns - self._first[env]), int(env)))
            self.returns[env], self._first[env] = 0.0, self._turns + 1
        self._ended = done
        allowed, gone = None if mask is None else mask[None], None if lost is None else lost[None]
        return Steps(obs[None], action[None], reward[None], terminated[None], done[None], allowed, gone), episodes

    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps: where it stands in the running episodes."""
        if self.part_of:
            whole, own = self.part_of
            return {name: column[own] for name, column in whole.state().items()}
        where = {"obs": self.obs, "window": self._window.frames, "done": self._ended, "returns": self.returns}
        return where | {"lengths": self.lengths} | ({} if self.mask is None else {"mask": self.mask})

    def restore(self, arrays: dict[str, Array]) -> None:
        """Stand where `state` was.

        Raises:
            ValueError: that is not one of such environments.
        """
        for name, mine in self.state().items():
            given = arrays[name]
            if given.shape != mine.shape or given.dtype != mine.dtype:
                raise ValueError(f"{name} of running episodes is {given.shape} {given.dtype}")
        self.obs, self.mask = arrays["obs"], arrays.get("mask")
        self._window.frames, self._ended, self.returns = arrays["window"], arrays["done"], arrays["returns"]
        self._turns, self._first = 0, -arrays["lengths"]
        self._first[self._ended] = 1

    @property
    def lengths(self) -> Array:
        """Steps of the running episodes, `[E]`."""
        return np.maximum(self._turns - self._first, 0)

    @property
    def seen(self) -> Array:
        """What the network sees now: `[E, *shape]`, or `[E, stack, *shape]`. It changes with the next step."""
        return self._window.view()

    def _greedy(self) -> Array:
        q = self.q_values(torch.from_numpy(self.seen)).numpy()
        best: Array = (q if self.mask is None else np.where(self.mask, q, -np.inf)).argmax(-1)
        return best


class Window:
    """The last `stack` observations of running episodes, `[E, stack, *shape]`, zeros before their start."""

    def __init__(self, obs: Array, stack: int) -> None:
        self.stack = stack
        self.frames = np.zeros((len(obs), stack, *obs.shape[1:]), obs.dtype)
        self.frames[:, -1] = obs

    def push(self, obs: Array, first: Array) -> None:
        """Add observations `[E, *shape]`; `first` `[E]` marks those that start an episode."""
        if self.stack > 1:
            self.frames[:, :-1] = self.frames[:, 1:]
            self.frames[first] = 0
        self.frames[:, -1] = obs

    def view(self) -> Array:
        """What the network sees; with `stack = 1` there is no axis for it."""
        return self.frames if self.stack > 1 else self.frames[:, 0]
