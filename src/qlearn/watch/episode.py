"""An episode as it is watched: what was seen, what was thought of it, what was done, and what came of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qlearn.actor import Actor
from qlearn.config import Config
from qlearn.dqn import allowed
from qlearn.envs import GymEnvs
from qlearn.networks import evaluating
from qlearn.types import Array, Dist
from qlearn.values import Categorical, Value
from qlearn.watch.names import actions_of, numbers_of
from qlearn.watch.pictures import frame_uri, observation
from qlearn.watch.plain import packed

STEPS = 1_000  # of an episode that are shown, at most
BINS = 48  # of a distribution of quantiles


@dataclass
class Tape:
    """The steps of an episode, in order, and the value of where it ended."""

    q: list[Array] = field(default_factory=list)  # [A] each
    z: list[Array] = field(default_factory=list)  # [A, K] each
    mask: list[Array | None] = field(default_factory=list)
    action: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    frames: list[str | None] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)  # as `observation` has it
    inputs: list[Array] = field(default_factory=list)  # what the network saw
    done: bool = False
    last_value: float = 0.0  # of the observation after the last step


def play(
    network: torch.nn.Module, value: Value, envs: GymEnvs, config: Config, *, epsilon: float, frames: bool
) -> Tape:
    """Play one episode, or its first `STEPS` steps, epsilon-greedily."""
    tape, q = Tape(), torch.zeros(1, envs.space.num_actions)
    actor = Actor(envs, lambda _: q, np.random.default_rng(0), stack=config.env.frame_stack)
    with torch.no_grad(), evaluating(network):
        while not tape.done:
            dist: Dist = network(torch.from_numpy(actor.seen))
            q = value.mean(dist)
            if len(tape.action) == STEPS:
                break
            tape.q.append(q[0].numpy().copy())
            tape.z.append(shares(value, dist)[0].numpy())
            tape.mask.append(None if actor.mask is None else actor.mask[0].copy())
            tape.frames.append(_drawn(envs) if frames else None)
            tape.seen.append(observation(actor.seen[0], envs.space))
            tape.inputs.append(actor.seen[0].copy())
            rows, ended = actor.rollout(epsilon)
            tape.action.append(int(rows.action[0, 0]))
            tape.reward.append(float(rows.reward[0, 0]))
            tape.terminated.append(bool(rows.terminated[0, 0]))
            tape.done = bool(ended)
        q = value.mean(network(torch.from_numpy(actor.seen)))
        mask = None if actor.mask is None else torch.from_numpy(actor.mask)
        tape.last_value = float(allowed(q, mask).max())
    return tape


def shares(value: Value, dist: Dist) -> torch.Tensor:
    """Probabilities of atoms, or quantile values, `[B, A, K]`."""
    return dist.z.softmax(-1) if isinstance(value, Categorical) else dist.z


def _drawn(envs: GymEnvs) -> str | None:
    try:
        return frame_uri(envs.envs[0].render())
    except Exception:  # whatever an environment does when it draws, the page can do without
        return None


def told(tape: Tape, value: Value, envs: GymEnvs, config: Config, *, name: str, epsilon: float) -> dict[str, Any]:
    """The episode for the page.

    V(s) is the largest Q-value allowed. The realised return is the discounted sum of the rewards as they are learned
    from; where the episode was cut, by a time limit or by `STEPS`, V of its last observation stands for the rest. The
    error is that of one step, r + gamma V(s') - Q(s, a).
    """
    q = np.asarray(tape.q)
    mask = np.ones_like(q, bool) if tape.mask[0] is None else np.asarray(tape.mask)
    seen_q = np.where(mask, q, -np.inf)
    best, v = seen_q.argmax(-1), seen_q.max(-1)
    reward, over = np.asarray(tape.reward), np.asarray(tape.terminated)
    learned = reward.clip(-1, 1) if config.replay.clip_rewards else reward
    gamma, action = config.replay.gamma, np.asarray(tape.action)
    after = np.append(v[1:], tape.last_value) * ~over
    error = learned + gamma * after - q[np.arange(len(q)), action]
    gap = np.sort(seen_q, -1)
    gaps = gap[:, -1] - gap[:, -2] if q.shape[1] > 1 else np.zeros(len(q))
    return {
        "name": name,
        "epsilon": epsilon,
        "gamma": gamma,
        "actions": actions_of(envs, config.env.id),
        "return": float(reward.sum()),
        "length": len(q),
        "end": _end(tape),
        "clipped": config.replay.clip_rewards,
        "soft": config.backup.munchausen,
        "q": q,
        "mask": None if tape.mask[0] is None else mask,
        "action": action,
        "greedy": best,
        "v": v,
        "realised": realised(learned, over, gamma, tape.last_value),
        "reward": reward,
        "terminated": over,
        "error": error,
        "gap": np.where(np.isfinite(gaps), gaps, 0.0),
        "small_gap": float(np.quantile(gaps[np.isfinite(gaps)], 0.1)) if np.isfinite(gaps).any() else 0.0,
        "large_error": float(np.quantile(np.abs(error), 0.95)),
        "fps": int(envs.envs[0].metadata.get("render_fps") or 30),
        "frames": tape.frames if any(tape.frames) else None,
        "seen": tape.seen,
        "numbers": _numbers(tape.seen[0], config, envs),
        "shape": list(tape.inputs[0].shape),
        "dist": distribution(value, tape.z),
    }


def _end(tape: Tape) -> str:
    if not tape.done:
        return "and it went on"
    return "terminated" if tape.terminated[-1] else "truncated by its time limit"


def _numbers(seen: Any, config: Config, envs: GymEnvs) -> list[str] | None:
    """The names of the numbers that the network sees, where it sees numbers."""
    if not isinstance(seen, list):
        return None
    if envs.space.categories:
        return [f"state, of {envs.space.categories:,}"]
    one, stack = len(seen) // config.env.frame_stack, config.env.frame_stack
    names = numbers_of(config.env.id, one)
    if stack == 1:
        return names
    return [f"{name}, {back} back" if back else name for back in reversed(range(stack)) for name in names]


def realised(reward: Array, terminated: Array, gamma: float, last_value: float) -> Array:
    """The discounted return from each step on, `[T]`: nothing follows a termination, `last_value` the last step."""
    returns, following = np.zeros(len(reward)), last_value
    for step in reversed(range(len(reward))):
        following = reward[step] + gamma * following * (not terminated[step])
        returns[step] = following
    return returns


def distribution(value: Value, z: list[Array]) -> dict[str, Any] | None:
    """The distribution of each action's return at each step, as shares of bins, the largest of a step 1; packed."""
    stack = np.asarray(z)  # [T, A, K]
    if stack.shape[-1] == 1:
        return None
    if isinstance(value, Categorical):
        low, high, mass = value.v_min, value.v_max, stack
        half = (high - low) / (value.atoms - 1) / 2
        low, high = low - half, high + half
    else:
        low, high = float(stack.min()), float(stack.max())
        high = high if high > low else low + 1
        edges = np.linspace(low, high, BINS + 1)
        mass = np.asarray([[histogram(np.sort(k), edges) for k in step] for step in stack])
    top = mass.max((1, 2), keepdims=True)
    return {"low": low, "high": high, "bins": mass.shape[-1], "data": packed(mass / np.where(top > 0, top, 1))}


def histogram(quantiles: Array, edges: Array) -> Array:
    """The probability between the edges `[N + 1]`, of sorted quantile values at the middles of equal parts: `[N]`.

    Between two quantiles probability is spread evenly; what is beyond the first and the last lies on them.
    """
    levels = (np.arange(len(quantiles)) + 0.5) / len(quantiles)
    below = np.interp(edges, quantiles, levels, left=0.0, right=1.0)
    below[0], below[-1] = 0.0, 1.0
    return np.maximum(np.diff(below), 0.0)


def episodes(
    network: torch.nn.Module, value: Value, envs: GymEnvs, config: Config, epsilons: dict[str, float], *, frames: bool
) -> Iterator[tuple[dict[str, Any], Tape]]:
    """The episode that the seed of evaluations gives, played with each epsilon."""
    for name, epsilon in epsilons.items():
        envs.episodes = [0] * envs.num_envs
        tape = play(network, value, envs, config, epsilon=epsilon, frames=frames)
        yield told(tape, value, envs, config, name=name, epsilon=epsilon), tape
