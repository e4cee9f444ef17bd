"""Any Gymnasium environment with Discrete actions, one or many copies, stepped in this process."""

import dataclasses
import importlib
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import error as gym_error

from qlearn.envs import atari, minatar
from qlearn.envs.spaces import encoder
from qlearn.errors import EnvError, QlearnError, UsageError, nearest
from qlearn.types import Array

GymEnv = gym.Env[Any, Any]

EXTRAS = {
    "minatar": "minatar",
    "box2d": "box2d",
    "swig": "box2d",
    "pygame": "classic",
    "ale_py": "atari",
    "ale-py": "atari",
}


def episode_seed(seed: int, stream: str, number: int) -> int:
    """The seed of an episode: a function of the run's seed, what it is for (train, evaluate), and its number."""
    tag = int.from_bytes(stream.encode(), "little")
    return int(np.random.SeedSequence((seed, tag, number)).generate_state(1)[0])


def make_gym(env_id: str, *, render_mode: str | None = None, **kwargs: Any) -> GymEnv:
    """One Gymnasium environment by its id, or by `module:Id` where the module registers it.

    Raises:
        UsageError: no such environment (the nearest id is named), or arguments that it does not take.
        QlearnError: a package that it needs is not installed (the command that installs it is named).
    """
    if game := atari.find_game(env_id):
        try:
            return atari.make_atari(game, render_mode=render_mode, **kwargs)
        except RuntimeError as error:
            raise UsageError(f"{env_id} cannot be made: {_line(error)}") from error
    module, _, name = env_id.rpartition(":")
    import_environments(module)
    if name.startswith("MinAtar/"):
        minatar.register()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "out of date" for an id that was asked for by its version
            return gym.make(name, render_mode=render_mode, disable_env_checker=True, **kwargs)
    except (ImportError, gym_error.DependencyNotInstalled) as error:
        raise _missing(env_id, error) from error
    except (gym_error.UnregisteredEnv, gym_error.DeprecatedEnv) as error:
        raise _unknown(env_id, name, error) from error
    except (gym_error.Error, TypeError) as error:
        raise UsageError(f"{env_id} cannot be made: {_line(error)}") from error
    except Exception as error:
        raise EnvError(f"{env_id} raised {type(error).__name__} while it was made: {_line(error)}") from error


def import_environments(module: str | None) -> None:
    """Import the module that registers environments; nothing for the empty name.

    Raises:
        UsageError: there is none of that name. QlearnError: it cannot be imported.
    """
    if not module:
        return
    try:
        with _this_folder():
            importlib.import_module(module)
    except Exception as error:
        name = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and (module == name or module.startswith(f"{name}.")):
            raise UsageError(f"there is no module {name} to import; is it installed, or in this folder?") from error
        raise QlearnError(f"{module} cannot be imported: {type(error).__name__}: {_line(error)}") from error


@contextmanager
def _this_folder() -> Iterator[None]:
    """Let modules of the current folder be found, as `python -m` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _missing(env_id: str, error: BaseException) -> QlearnError:
    """The error of an environment whose package is not installed."""
    name = getattr(error, "name", None) or ""
    found = re.search(r"pip install [\"']?(?:gymnasium|swig)?\[?([\w-]+)", str(error))
    key = next((extra for word, extra in EXTRAS.items() if word in f"{name} {error}".lower()), None)
    extra = key or {"toy-text": "toy", "classic-control": "classic"}.get(found.group(1) if found else "")
    fix = f"pip install 'qlearn[{extra}]'" if extra else f"pip install {name}" if name else _line(error)
    return QlearnError(f"{env_id} needs a package that is not installed ({_line(error)}); the fix: {fix}")


def _unknown(env_id: str, name: str, error: BaseException) -> UsageError:
    if isinstance(error, gym_error.DeprecatedEnv) or type(error).__name__ == "VersionNotFound":
        return UsageError(f"unknown environment {env_id}: {_line(error).rstrip('. ')}{nearest(name, gym.registry)}")
    known = nearest(name, gym.registry)
    other = (
        ""
        if ":" in env_id
        else "; one that another package brings is written module:Id, as in minigrid:MiniGrid-Empty-5x5-v0"
    )
    return UsageError(f"unknown environment {env_id}{known or other}")


def close_quietly(env: GymEnv) -> None:
    """Close an environment; one that fails to close has nothing left to lose."""
    try:
        env.close()
    except Exception as error:
        warnings.warn(f"an environment failed to close: {_line(error)}", stacklevel=2)


class GymEnvs:
    """Copies of an environment in lockstep; the contract is that of `qlearn.envs`.

    Episode k of environment e is episode number k * num_envs + e, and starts from `reset(seed)` with a seed that
    depends on that number, the run's seed and the stream alone.
    """

    def __init__(
        self,
        make: Callable[[], GymEnv],
        num_envs: int,
        *,
        seed: int = 0,
        stream: str = "train",
        env_id: str = "",
    ) -> None:
        self.num_envs, self.seed, self.stream, self.env_id = (
            num_envs,
            seed,
            stream,
            env_id or "the environment",
        )
        self.envs = [make() for _ in range(num_envs)]
        first = self.envs[0]
        self._atari = [env for env in self.envs if isinstance(env, atari.Atari)]
        self.encoder = encoder(first.observation_space, first.action_space, self.env_id)
        self.space = self.encoder.space
        self._is_float = self.space.dtype.kind == "f"
        self.obs = np.zeros((num_envs, *self.space.shape), self.space.dtype)
        self._ended = np.ones(num_envs, np.bool_)
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
            self._start(index)
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
        if self._atari:
            for env in np.flatnonzero(~self._ended):  # they work side by side
                self._atari[env].send(action[env])
        for index, choice in enumerate(action + self.encoder.first_action if self.encoder.first_action else action):
            if self._ended[index]:
                self._start(index)
                continue
            try:
                result = self.envs[index].step(choice)
                obs, reward[index], terminated[index], truncated, info = result
            except Exception as error:
                raise EnvError(f"{self.env_id} raised {type(error).__name__} in step(): {_line(error)}") from error
            self._observe(index, obs)
            self._ended[index] = done[index] = terminated[index] or truncated
            self._allow(index, info)
            if info.get("life_lost"):
                terminated[index] = True  # nothing is bootstrapped from what follows, and the episode goes on
            if not math.isfinite(reward[index]):
                raise EnvError(f"{self.env_id} returned a reward of {reward[index]} from step()")

    def continue_after(self, episodes: Sequence[int]) -> None:
        """Count on from so many episodes in each environment."""
        if len(episodes) != self.num_envs or min(episodes) < 0:
            raise ValueError(f"episodes {episodes} of {self.num_envs} environments")
        self.episodes = [int(n) for n in episodes]

    def abandon(self, env: int) -> None:
        """End the episode of one environment: its next step starts another."""
        self._ended[env] = True

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            close_quietly(env)

    def _start(self, index: int) -> None:
        obs, info = self._reset(index)
        self._observe(index, obs)
        self._ended[index] = False
        self._allow(index, info)
        self.episodes[index] += 1

    def _reset(self, index: int) -> tuple[Any, dict[str, Any]]:
        seed = episode_seed(self.seed, self.stream, self.episodes[index] * self.num_envs + index)
        try:
            obs, info = self.envs[index].reset(seed=seed)
        except Exception as error:
            raise EnvError(f"{self.env_id} raised {type(error).__name__} in reset(): {_line(error)}") from error
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
                f"{self.encoder.gym_space}: {_line(error)}"
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
) -> GymEnvs:
    """`num_envs` copies of a Gymnasium environment, with keyword arguments for its constructor.

    Raises:
        UsageError: it cannot be made, or `seed` is negative.
    """
    if seed < 0:
        raise UsageError(f"the seed is {seed}; it must be at least 0")
    return GymEnvs(
        lambda: make_gym(env_id, render_mode=render_mode, **(kwargs or {})),
        num_envs,
        seed=seed,
        stream=stream,
        env_id=env_id,
    )
