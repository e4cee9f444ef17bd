"""Copies of an environment in lockstep: episodes are functions of seed and actions, copies that fail are made anew."""

import dataclasses
import logging
import math
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from qlearn.envs.apart import Apart
from qlearn.envs.atari import Atari
from qlearn.envs.gym import GymEnv, close_quietly, make_gym
from qlearn.envs.spaces import encoder
from qlearn.errors import EnvError, UsageError, one_line
from qlearn.types import Array

log = logging.getLogger("qlearn")
IN_A_ROW = 3  # failures of a copy without a step between them: it will not recover


def episode_seed(seed: int, stream: str, number: int) -> int:
    """The seed of an episode: a function of the run's seed, what it is for (train, evaluate), and its number."""
    tag = int.from_bytes(stream.encode(), "little")
    return int(np.random.SeedSequence((seed, tag, number)).generate_state(1)[0])


class GymEnvs:
    """Copies of an environment in lockstep; the contract is that of `qlearn.envs`.

    Episode k of environment e is episode number k * num_envs + e, and starts from `reset(seed)` with a seed that
    depends on that number, the run's seed and the stream alone. So it can be rebuilt of that and its actions.

    Args:
        make: makes a copy.
        num_envs: how many.
        seed: of the run.
        stream: what the episodes are for.
        env_id: for messages.
        restarts: how often, in all, a copy that raises or breaks its contract is made anew. Its step is forgotten
            (see `lost`) and its episode ends as by a time limit.
    """

    def __init__(
        self,
        make: Callable[[], GymEnv],
        num_envs: int,
        *,
        seed: int = 0,
        stream: str = "train",
        env_id: str = "",
        restarts: int = 0,
    ) -> None:
        self.num_envs, self.seed, self.stream, self.env_id = num_envs, seed, stream, env_id or "the environment"
        self._make, self.restarts, self.failures = make, restarts, 0
        self._streak: dict[int, int] = {}  # failures in a row, of those that have failed last
        self.lost: Array | None = None  # [E]: whose last step came to nothing; None where nobody's
        self.envs = [make() for _ in range(num_envs)]
        first = self.envs[0]
        self._sends = isinstance(first, (Atari, Apart))
        self.encoder = encoder(first.observation_space, first.action_space, self.env_id)
        self.space = self.encoder.space
        self._is_float = self.space.dtype.kind == "f"
        self.obs = np.zeros((num_envs, *self.space.shape), self.space.dtype)
        self._ended = np.ones(num_envs, np.bool_)
        self._actions = [array("i") for _ in range(num_envs)]  # of the running episodes
        self.episodes = [0] * num_envs  # episodes started, by environment
        self.mask: Array | None = None
        try:
            masked = "action_mask" in self._reset(0)[1]  # no space says so
        except EnvError:
            self.close()
            raise
        if masked:
            self.space = dataclasses.replace(self.space, masked=True)
            self.mask = np.ones((num_envs, self.space.num_actions), np.bool_)

    def reset(self) -> Array:
        """Start the next episode in every environment; observations `[E, *shape]`."""
        for index in range(self.num_envs):
            try:
                self._start(index)
            except EnvError as error:
                self._make_anew(index, error)
        return self.obs.copy()

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        """One step of each environment, or the start of its next episode where the last one has ended."""
        reward = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, np.bool_)
        done = np.zeros(self.num_envs, np.bool_)
        self.advance(action, reward, terminated, done)
        return self.obs.copy(), reward, terminated, done

    def advance(self, action: Array, reward: Array, terminated: Array, done: Array) -> None:
        """A step whose outcome goes into `obs` and into these zeros, `[E]` each."""
        self.lost = None
        if self._sends:
            for env in np.flatnonzero(~self._ended):  # they work side by side
                self.envs[env].send(action[env] + self.encoder.first_action)  # type: ignore[attr-defined]
        for index, choice in enumerate(action):
            try:
                if self._ended[index]:
                    self._start(index)
                else:
                    self._step(index, choice, reward, terminated, done)
            except EnvError as error:
                reward[index] = terminated[index] = done[index] = 0
                self._make_anew(index, error)
                self.lost = np.zeros(self.num_envs, np.bool_) if self.lost is None else self.lost
                self.lost[index] = True
            else:
                self._streak.pop(index, None)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What a checkpoint keeps: the running episodes' actions, one after another, and the counters."""
        actions = np.array([action for own in self._actions for action in own], np.int32)
        return {"episode_actions": actions, "ended": self._ended.copy()}, {
            "episodes": list(self.episodes),
            "lengths": [len(own) for own in self._actions],
            "failures": self.failures,
        }

    def continue_after(self, state: dict[str, Any]) -> None:
        """Count on from where `state` was.

        Raises:
            ValueError: it is not that of so many environments.
        """
        episodes, failures = [int(n) for n in state["episodes"]], int(state["failures"])
        if len(episodes) != self.num_envs or min(episodes) < 0 or failures < 0:
            raise ValueError(f"episodes {episodes} of {self.num_envs} environments, {failures} failures")
        self.episodes, self.failures = episodes, failures

    def rebuild(
        self, arrays: dict[str, Array], state: dict[str, Any], obs: Array, returns: Array, mask: Array | None
    ) -> bool:
        """Play the running episodes of `state` again; whether they came to these observations, returns and masks.

        Where not, whatever an environment did, the episodes are left where they are: `reset` starts the next ones.
        """
        ends = np.cumsum(state["lengths"])
        own = np.split(arrays["episode_actions"].astype(np.int64), ends[:-1])
        ended = arrays["ended"].astype(np.bool_)
        if (
            len(own) != self.num_envs
            or ends[-1] != len(arrays["episode_actions"])
            or ended.shape != (self.num_envs,)
            or obs.shape != self.obs.shape
        ):
            raise ValueError(f"episodes of {len(own)} environments, not {self.num_envs}")
        try:
            return all(
                self._over(index, obs, mask) if ended[index] else self._played(index, own[index], obs, returns, mask)
                for index in range(self.num_envs)
            )
        except EnvError:
            return False

    def _over(self, index: int, obs: Array, mask: Array | None) -> bool:
        """Stand at the end of an episode."""
        self.obs[index], self._ended[index] = obs[index], True
        if self.mask is not None and mask is not None:
            self.mask[index] = mask[index]
        return True

    def _played(self, index: int, actions: Array, obs: Array, returns: Array, mask: Array | None) -> bool:
        """Play an episode again."""
        self.episodes[index] -= 1
        self._start(index)
        reward, total, one = np.zeros(self.num_envs), 0.0, np.zeros(self.num_envs, np.bool_)
        for action in actions:
            if not 0 <= action < self.space.num_actions or self._ended[index]:
                return False
            self._step(index, action, reward, one, one)
            total += reward[index]
        same_mask = self.mask is None or mask is None or np.array_equal(self.mask[index], mask[index])
        same = np.array_equal(self.obs[index], obs[index]) and total == returns[index]
        return bool(same and same_mask and not self._ended[index])

    def abandon(self, env: int) -> None:
        """End the episode of one environment: its next step starts another."""
        self._ended[env] = True

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            close_quietly(env)

    def _make_anew(self, index: int, error: EnvError) -> None:
        """Replace a copy that failed, and start its next episode.

        Raises:
            EnvError: it has failed too often.
        """
        while True:
            self.failures += 1
            self._streak[index] = streak = self._streak.get(index, 0) + 1
            if self.failures > self.restarts or (streak >= IN_A_ROW and self.restarts):
                why = (
                    f"{streak} times in a row" if streak >= IN_A_ROW else f"more than env.max_restarts, {self.restarts}"
                )
                raise EnvError(f"{error}; it failed {why}" if self.restarts else str(error)) from error
            log.warning("%s; it is made anew, its step forgotten (%d of %d)", error, self.failures, self.restarts)
            close_quietly(self.envs[index])
            self.envs[index] = self._make()
            try:
                self._start(index)
            except EnvError as again:
                self.episodes[index] += 1  # whose start has failed
                error = again
            else:
                return

    def _step(self, index: int, choice: Any, reward: Array, terminated: Array, done: Array) -> None:
        """One step of one environment."""
        try:
            result = self.envs[index].step(choice + self.encoder.first_action)
            obs, reward[index], terminated[index], truncated, info = result
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(f"{self.env_id} raised {type(error).__name__} in step(): {one_line(error)}") from error
        self._observe(index, obs)
        self._actions[index].append(int(choice))
        self._ended[index] = done[index] = terminated[index] or truncated
        self._allow(index, info)
        if info.get("life_lost"):
            terminated[index] = True  # nothing is bootstrapped from what follows, and the episode goes on
        if not math.isfinite(reward[index]):
            raise EnvError(f"{self.env_id} returned a reward of {reward[index]} from step()")

    def _start(self, index: int) -> None:
        obs, info = self._reset(index)
        self._observe(index, obs)
        self._ended[index] = False
        self._allow(index, info)
        self._actions[index] = array("i")
        self.episodes[index] += 1

    def _reset(self, index: int) -> tuple[Any, dict[str, Any]]:
        seed = episode_seed(self.seed, self.stream, self.episodes[index] * self.num_envs + index)
        try:
            obs, info = self.envs[index].reset(seed=seed)
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(f"{self.env_id} raised {type(error).__name__} in reset(): {one_line(error)}") from error
        return obs, info

    def _allow(self, index: int, info: dict[str, Any]) -> None:
        """Note which actions `info` allows; where an episode has ended, it may be none, and then all are noted."""
        given = info.get("action_mask")
        if self.mask is None:
            if given is not None:
                raise EnvError(
                    f"{self.env_id} gives an action_mask in step(), but gave none in its first reset(); "
                    "put one into the info of reset() too"
                )
            return
        if given is None and not self._ended[index]:
            raise EnvError(f"{self.env_id} gave no action_mask, as it did before, and the episode goes on")
        mask = np.ones(self.space.num_actions, np.bool_) if given is None else np.asarray(given).astype(np.bool_)
        if mask.shape != (self.space.num_actions,):
            raise EnvError(
                f"{self.env_id} gave an action_mask of shape {mask.shape} for {self.space.num_actions} actions"
            )
        if not mask.any():
            if not self._ended[index]:
                raise EnvError(f"{self.env_id} gave an action_mask that allows no action, and the episode goes on")
            mask[:] = True
        self.mask[index] = mask

    def _observe(self, index: int, obs: Any) -> None:
        try:
            encoded = self.encoder.encode(obs)
        except Exception as error:
            raise EnvError(
                f"{self.env_id} returned an observation that is not of its space "
                f"{self.encoder.gym_space}: {one_line(error)}"
            ) from error
        if encoded.shape != self.space.shape:
            raise EnvError(
                f"{self.env_id} returned an observation of shape {encoded.shape}; its space says {self.space.shape}"
            )
        # The sum of squares is one call; only where it is not finite need the numbers be looked at one by one.
        if self._is_float and not math.isfinite(np.vdot(encoded, encoded)) and not np.isfinite(encoded).all():
            where = np.argwhere(~np.isfinite(encoded))[0].tolist()
            raise EnvError(
                f"{self.env_id} returned an observation with {encoded[tuple(where)]} at index {where}, in episode "
                f"{self.episodes[index]} of environment {index}"
            )
        if self.space.categories and not 0 <= encoded < self.space.categories:
            raise EnvError(f"{self.env_id} returned the observation {obs}, outside {self.encoder.gym_space}")
        self.obs[index] = encoded


def make_envs(
    env_id: str,
    num_envs: int = 1,
    *,
    seed: int = 0,
    stream: str = "train",
    render_mode: str | None = None,
    kwargs: dict[str, Any] | None = None,
    restarts: int = 0,
    apart: float = 0.0,
) -> GymEnvs:
    """`num_envs` copies of a Gymnasium environment, with keyword arguments for its constructor.

    With `apart` each is in a process of its own and has so many seconds for an answer. `restarts` as in `GymEnvs`.

    Raises:
        UsageError: it cannot be made, or `seed` is negative.
    """
    if seed < 0:
        raise UsageError(f"the seed is {seed}; it must be at least 0")

    def make() -> GymEnv:
        return make_gym(env_id, render_mode=render_mode, **(kwargs or {}))

    return GymEnvs(
        (lambda: Apart(make, env_id, apart)) if apart else make,
        num_envs,
        seed=seed,
        stream=stream,
        env_id=env_id,
        restarts=restarts,
    )
