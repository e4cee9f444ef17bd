"""Gymnasium spaces to what a ring can store: one array of fixed shape and dtype per observation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from qlearn.errors import UsageError
from qlearn.types import Array, Space

SUPPORTED = "Box, Discrete, MultiBinary, MultiDiscrete, and Tuple or Dict of them"


@dataclass(frozen=True)
class Encoder:
    """An observation space, the array that its observations become, and the function between them.

    `plain` says that observations are arrays already; `first_action` is the environment's name of action 0.
    """

    gym_space: gym.Space[Any]
    space: Space
    encode: Callable[[Any], Array]
    plain: bool = True
    first_action: int = 0


def encoder(observation_space: gym.Space[Any], action_space: gym.Space[Any], env_id: str = "environment") -> Encoder:
    """How observations of this space are stored.

    Box keeps its shape (bytes stay bytes, other numbers become float32), Discrete becomes an integer from 0, and
    everything else one flat float32 vector with integers one-hot.

    Raises:
        UsageError: the action space is not Discrete, or the observation space cannot be flattened.
    """
    if not isinstance(action_space, spaces.Discrete):
        raise UsageError(
            f"{env_id} has actions {action_space}; qlearn learns Discrete actions only "
            "(Q-learning takes a maximum over them). Discretise them with a wrapper, or use an actor-critic method"
        )
    actions, first = int(action_space.n), int(action_space.start)
    if isinstance(observation_space, spaces.Discrete):
        start = int(observation_space.start)
        space = Space((), np.dtype(np.int64), actions, categories=int(observation_space.n))
        return Encoder(observation_space, space, lambda obs: np.asarray(obs, np.int64) - start, first_action=first)
    if isinstance(observation_space, spaces.Box):
        dtype = np.dtype(np.uint8 if observation_space.dtype == np.uint8 else np.float32)
        bounds = (None, None) if dtype == np.uint8 else (observation_space.low, observation_space.high)
        box = Space(tuple(observation_space.shape), dtype, actions, 0, *bounds)
        return Encoder(observation_space, box, lambda obs: np.asarray(obs, dtype), first_action=first)
    if not _readable(observation_space):
        raise UsageError(
            f"{env_id} has observations {observation_space}; qlearn reads {SUPPORTED}. "
            "Wrap the environment so that it returns one of these"
        )
    size = spaces.flatdim(observation_space)
    vector = Space((size,), np.dtype(np.float32), actions)

    def flatten(obs: Any) -> Array:
        return np.asarray(spaces.flatten(observation_space, obs), np.float32)

    return Encoder(observation_space, vector, flatten, plain=False, first_action=first)


def _readable(space: gym.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return all(map(_readable, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return all(map(_readable, space.spaces))
    return isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete))
