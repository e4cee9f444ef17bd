"""A random policy plays in an environment for some seconds, before any training."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from qlearn.actor import Actor
from qlearn.build import build_envs
from qlearn.config import Config
from qlearn.doctor.report import number
from qlearn.doctor.sample import measures
from qlearn.doctor.trace import WIDEST, Length, Trace, clock, play
from qlearn.envs import GymEnvs
from qlearn.errors import EnvError
from qlearn.networks import Encode
from qlearn.types import Array

COPIES, TURNS, SECONDS = 5, 4_000, 4.0  # of random play: environments, steps of each, and how long it may take
REPEATED = 300  # steps that are made twice, and checked against the space


@dataclass(frozen=True)
class Trial:
    """What random play showed.

    `outside` is the part of the observations that are not in the declared space, and why; `parted` says how a second
    play with the same seed and actions went another way; `hidden` that masks are in observations, not in `info`.
    """

    config: Config
    trace: Trace
    clock: float | None
    size: float | None
    spread: float | None
    still: float | None
    outside: tuple[float, str]
    parted: str
    hidden: bool
    limit: int | None
    facts: tuple[str, ...]

    @property
    def episodes(self) -> list[Length]:
        """The whole ones."""
        return self.trace.episodes()


def tried(config: Config) -> Trial:
    """Let a random policy play. Raises EnvError where the environment breaks its contract."""
    envs = build_envs(config, COPIES, stream="doctor")
    try:
        space, stack = envs.space, config.env.frame_stack
        low = stack == 1 and (space.categories or int(np.prod(space.shape))) <= WIDEST
        actor = Actor(envs, lambda obs: torch.zeros(len(obs), 1), np.random.default_rng(config.seed), stack=stack)
        seconds = seconds_per_turn(actor)
        actor.restart()
        turns = int(np.clip(SECONDS / max(seconds, 1e-9), 100, TURNS))
        trace, seen = play(actor, 1.0, turns, TURNS, every=1 if low else 20)
        limit = next((e.spec.max_episode_steps for e in envs.envs if e.spec and e.spec.max_episode_steps), None)
    finally:
        envs.close()
    timed = None
    if low:
        rows = seen.numpy().reshape(len(trace.reward), COPIES, *space.shape)
        timed = clock(trace, lambda at, env: rows[at, env], space.categories)
    size, spread = (None, None) if space.categories else measures(Encode(space, rescale=config.network.rescale)(seen))
    outside, hidden = in_space(config)
    return Trial(
        config,
        trace,
        timed,
        size,
        spread,
        float((seen == seen[:, :1]).flatten(1).all(1).float().mean()) if stack > 1 else None,
        outside,
        parted(config),
        hidden,
        limit,
        facts(envs, trace, seconds / COPIES),
    )


def seconds_per_turn(actor: Actor) -> float:
    """What a turn of all environments takes."""
    start = time.perf_counter()
    for _ in range(20):
        actor.rollout(1.0)
    return (time.perf_counter() - start) / 20


def facts(envs: GymEnvs, trace: Trace, seconds: float) -> tuple[str, ...]:
    """What is no verdict, and good to know."""
    space, whole, rewards = envs.space, trace.episodes(), trace.rewards
    seen = f"integers below {space.categories}" if space.categories else f"{space.shape} {space.dtype}"
    masks = ", masked" if space.masked else ""
    lines = [f"observations {seen}; {space.num_actions} actions{masks}; a step takes {1e3 * seconds:.2g} ms"]
    lengths, returns = [e.steps for e in whole], trace.sums()
    played = f"{len(rewards):,} random steps, {len(whole)} whole episodes"
    if whole:
        ended = sum(e.terminated for e in whole)
        played += (
            f" of {min(lengths):,} to {max(lengths):,} steps ({ended} terminated, {len(whole) - ended} truncated), "
            f"returns from {number(float(returns.min()))} to {number(float(returns.max()))}"
        )
    lines.append(played)
    lines.append(
        f"rewards from {number(float(rewards.min()))} to {number(float(rewards.max()))}, "
        f"{np.count_nonzero(rewards) / len(rewards):.1%} of them not 0"
    )
    return tuple(lines)


def parted(config: Config) -> str:
    """Where two plays with the same seed and actions part; nothing where they do not."""
    one, other = recorded(config), recorded(config)
    for step, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        for what, a, b in zip(("observation", "reward", "end"), mine, theirs, strict=True):
            if not np.array_equal(a, b):
                return f"another {what} at step {step}"
    return ""


def recorded(config: Config) -> list[tuple[Array, Array, Array]]:
    """What follows from the same seed and actions each time."""
    envs, rng = build_envs(config, 1, stream="repeat"), np.random.default_rng(config.seed)
    try:
        found = [(envs.reset(), np.zeros(1), np.zeros(1))]
        for place in rng.random(REPEATED):
            allowed = np.arange(envs.space.num_actions) if envs.mask is None else np.flatnonzero(envs.mask[0])
            obs, reward, terminated, done = envs.step(allowed[[int(place * len(allowed))]])
            found.append((obs, reward, np.concatenate([terminated, done])))
    finally:
        envs.close()
    return found


def in_space(config: Config) -> tuple[tuple[float, str], bool]:
    """The part of the observations that are not of the declared space, and why; and whether masks are among them."""
    envs, rng = build_envs(config, 1, stream="space"), np.random.default_rng(config.seed)
    env: Any = envs.envs[0]
    space, wrong = env.observation_space, list[str]()
    try:
        obs, info = env.reset(seed=config.seed)
        hidden = isinstance(space, spaces.Dict) and "action_mask" in space.spaces and "action_mask" not in info
        for _ in range(REPEATED):
            if why := misfit(space, obs):
                wrong.append(why)
            mask = info.get("action_mask")
            allowed = np.arange(envs.space.num_actions) if mask is None else np.flatnonzero(mask)
            action = allowed[int(rng.random() * len(allowed))] + envs.encoder.first_action
            obs, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                obs, info = env.reset()
    except Exception as error:
        raise EnvError(f"{config.env.id} raised {type(error).__name__}: {error}") from error
    finally:
        envs.close()
    return (len(wrong) / REPEATED, wrong[0] if wrong else ""), hidden


def misfit(space: Any, obs: Any) -> str:
    """Why an observation is not of its space; nothing where it is, or is but for its type or for rounding."""
    if not isinstance(space, spaces.Box):
        return "" if space.contains(obs) else f"{obs} is not of {space}"
    array = np.asarray(obs)
    if array.shape != space.shape:
        return f"shape {array.shape}, declared {space.shape}"
    if space.dtype == np.uint8 and array.dtype.kind == "f":
        return f"{array.dtype} numbers, declared uint8"
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    slack = 1e-3 * np.maximum(1.0, np.where(np.isfinite(high - low), high - low, 1.0))
    beyond = (array < low - slack) | (array > high + slack)
    if not beyond.any():
        return ""
    where = tuple(np.argwhere(beyond)[0])
    value, least, most = (number(float(x[where])) for x in (array, low, high))
    return f"{value} where {least} to {most} is declared"
