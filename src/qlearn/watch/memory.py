"""The replay memory as it is: what is in it, how old, how likely to be drawn, and what surprises most."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlearn.dqn import Greedy, Learner, allowed, backed_up, taken
from qlearn.networks import evaluating
from qlearn.prioritized import Prioritized
from qlearn.replay import Replay
from qlearn.types import Array, Batch, Space
from qlearn.watch.pictures import observation

EXAMINED = 4_096  # transitions whose error is computed, at most
SHOWN = 8  # of them, the largest
BINS, AGES, FEW = 24, 12, 12  # bars of a histogram, of that of ages, and values that are few enough to be told each


@dataclass(frozen=True)
class Target:
    """Transitions, their targets and what these are made of, `[B]` each."""

    q: Array  # Q(s, a)
    reward: Array  # what is backed up with the value: n steps of reward, and Munchausen's additions
    plain: Array  # the n steps of reward alone
    discount: Array
    after: Array  # Q(s', a*), or the soft value
    best: Array  # a*
    y: Array

    @property
    def error(self) -> Array:
        """y - Q(s, a)."""
        error: Array = self.y - self.q
        return error


def memory(learner: Learner, replay: Replay, space: Space, batch_size: int, actions: list[str]) -> dict[str, Any]:
    """The replay memory for the page."""
    rows = transitions(replay)
    ring = replay.ring
    if not len(rows):
        return {"note": "the memory is empty"}
    columns = {name: column.reshape(-1, *column.shape[2:]) for name, column in ring.columns.items()}
    done, terminated = columns["done"][rows], columns["terminated"][rows]
    rng = np.random.default_rng(0)
    some = rows if len(rows) <= EXAMINED else rng.choice(rows, EXAMINED, replace=False)
    target = targets(learner, some, batch_size)
    return {
        "size": len(rows),
        "capacity": ring.rows * ring.num_envs,
        "fill": ring.fill,
        "rewards": histogram(columns["reward"][rows]),
        "nonzero": float(np.count_nonzero(columns["reward"][rows]) / len(rows)),
        "largest_reward": float(columns["reward"][rows].max()),
        "actions": [
            (actions[n] if n < len(actions) else str(n), int(count))
            for n, count in enumerate(np.bincount(columns["action"][rows], minlength=len(actions)))
        ],
        "terminated": int(np.count_nonzero(terminated)),
        "truncated": int(np.count_nonzero(done & ~terminated)),
        "ages": ages(replay, rows),
        "priorities": priorities(replay, rows),
        "examined": len(some),
        "error_mean": float(np.abs(target.error).mean()),
        "errors": histogram(target.error),
        "surprises": [
            {**surprise, **_ends(learner, space, row, batch_size, actions), "age": int(old)}
            for surprise, row, old in _largest(target, some, age(replay, some), actions)
        ],
    }


def transitions(replay: Replay) -> Array:
    """The rows of which a complete transition can be made, `[N]`, oldest first."""
    ring = replay.ring
    rows = (np.arange(ring.starts.start, ring.starts.stop) % ring.rows)[:, None] * ring.num_envs
    flat: Array = (rows + np.arange(ring.num_envs)).reshape(-1)
    kept: Array = flat[~ring.final[flat]]
    return kept


def age(replay: Replay, rows: Array) -> Array:
    """How many rows of its environment were written after each row, `[B]`."""
    ring = replay.ring
    ages: Array = (ring.written - 1 - rows // ring.num_envs) % ring.rows
    return ages


def histogram(values: Array) -> dict[str, Any]:
    """How many of the values are what: each value where there are few, else equal parts of their range."""
    values = values[np.isfinite(values)].astype(float)
    if not len(values):
        return {"labels": [], "counts": []}
    found, counts = np.unique(values, return_counts=True)
    if len(found) <= FEW:
        return {"labels": [f"{value:g}" for value in found], "counts": counts}
    counts, edges = np.histogram(values, BINS)
    return {"edges": edges, "counts": counts}


def ages(replay: Replay, rows: Array) -> dict[str, Any]:
    """The share of transitions in each part of the memory's age, and of the draws that fall on it."""
    old = age(replay, rows)
    edges = np.linspace(0, max(1, int(old.max())), AGES + 1)
    stored = np.histogram(old, edges)[0] / len(rows)
    drawn = stored
    if isinstance(replay, Prioritized):
        chance = replay.probability(rows)
        drawn = np.histogram(old, edges, weights=chance / chance.sum())[0]
    return {"edges": edges, "stored": stored, "drawn": drawn}


def priorities(replay: Replay, rows: Array) -> dict[str, Any] | None:
    """How unequal the draws are: N P(i), which is 1 of a uniform draw; None where they are uniform."""
    if not isinstance(replay, Prioritized):
        return None
    chance = replay.probability(rows)
    chance = chance / chance.sum()
    times = np.log10(np.maximum(chance * len(rows), 1e-6))
    counts, edges = np.histogram(times, BINS)
    return {
        "edges": 10.0**edges,
        "counts": counts,
        "effective": float(1 / np.square(chance).sum() / len(rows)),
        "exponent": replay.exponent,
        "beta": replay.beta(replay.steps),
    }


def batches(learner: Learner, rows: Array, batch_size: int) -> Iterator[Batch]:
    """The transitions at rows, so many at a time as the memory unpacks."""
    for part in torch.split(torch.from_numpy(np.ascontiguousarray(rows)), batch_size):
        learner.ring.prepare(part)
        yield learner.ring.batch(part)


@torch.no_grad()
def targets(learner: Learner, rows: Array, batch_size: int) -> Target:
    """What the learner would learn of the transitions now, without noise."""
    parts: list[tuple[Tensor, ...]] = []
    value = learner.value
    with evaluating(learner.online), evaluating(learner.target):
        for batch in batches(learner, rows, batch_size):
            z, reward, discount = backed_up(value, learner.backup, learner.online, learner.target, batch)
            double = isinstance(learner.backup, Greedy) and learner.backup.double
            chooser = learner.online if double else learner.target
            best = allowed(value.mean(chooser(batch.next_obs)), batch.next_mask).argmax(-1)
            q = taken(value.mean(learner.online(batch.obs))[..., None], batch.action).squeeze(-1)
            y = value.expected(value.backup(z, reward, discount))
            parts.append((q, reward, batch.reward, discount, value.expected(z), best, y))
    return Target(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


def _largest(target: Target, rows: Array, old: Array, actions: list[str]) -> Iterator[tuple[dict[str, Any], int, int]]:
    """The targets with the largest errors taken apart, with their rows and ages."""
    for n in np.argsort(-np.abs(target.error))[:SHOWN]:
        whole = target.reward[n] + target.discount[n] * target.after[n]
        apart = {
            "best": actions[int(target.best[n])],
            "q": target.q[n],
            "reward": target.plain[n],
            "bonus": target.reward[n] - target.plain[n],  # Munchausen's
            "discount": target.discount[n],
            "after": target.after[n],
            "target": target.y[n],
            "cut": target.y[n] - whole,  # by the ends of C51's support
            "error": target.error[n],
            "terminated": bool(target.discount[n] == 0),
        }
        yield apart, int(rows[n]), int(old[n])


def _ends(learner: Learner, space: Space, row: int, batch_size: int, actions: list[str]) -> dict[str, Any]:
    """What a transition leads from, by which action, and to."""
    batch = next(batches(learner, np.array([row]), batch_size))
    return {
        "obs": observation(batch.obs[0].numpy(), space),
        "next": observation(batch.next_obs[0].numpy(), space),
        "action": actions[int(batch.action[0])],
    }
