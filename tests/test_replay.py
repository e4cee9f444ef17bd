"""The ring against brute force: every transition that it makes is one that the scripted environments played."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.actor import Actor
from qlearn.replay import Ring, Uniform
from qlearn.types import Array, Space, Steps
from tests.scripted import Scripted

GAMMA = 0.9
Key = tuple[int, int, int]  # environment, episode, step


def play(envs: Scripted, ring: Ring, ticks: int) -> Actor:
    actor = Actor(envs, lambda obs: torch.zeros(len(obs), 7), np.random.default_rng(0), stack=ring.stack)
    for _ in range(ticks):
        ring.append(actor.rollout(1.0)[0])
    return actor


def expected(envs: Scripted, key: Key, n: int) -> tuple[float, float, Key]:
    """Return, discount and next observation of the n-step transition that starts at `key`, by definition."""
    env, episode, step = key
    length, end = envs.script(env, episode)
    total, discount = 0.0, 1.0
    for _ in range(n):
        step += 1
        total += discount * (100 * episode + step)
        discount *= GAMMA
        if step == length:
            return total, 0.0 if end == "terminated" else discount, (env, episode, step)
        if step in envs.life:
            return total, 0.0, (env, episode, step)
    return total, discount, (env, episode, step)


def frames(key: Key, stack: int) -> list[list[float]]:
    env, episode, step = key
    return [[env, episode, s] if s >= 0 else [0, 0, 0] for s in range(step - stack + 1, step + 1)]


scripts = st.lists(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["terminated", "truncated"])), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=300)
@given(scripts, st.integers(1, 5), st.integers(1, 4), st.integers(12, 40), st.integers(12, 90), st.booleans())
def test_the_ring_holds_exactly_the_transitions_that_were_played(
    script: list[list[tuple[int, str]]], n: int, stack: int, rows: int, ticks: int, lives: bool
) -> None:
    envs = Scripted(script, life=(2,) if lives else ())
    ring = Ring(envs.space, rows * envs.num_envs, envs.num_envs, n_step=n, gamma=GAMMA, stack=stack)
    play(envs, ring, ticks)
    actions = {(env, episode, step): action for env, episode, step, action in envs.log}

    starts = [t % rows * envs.num_envs + env for t, env in product(ring.starts, range(envs.num_envs))]
    starts = [row for row in starts if not ring.storage.final[row]]
    batch = ring.batch(torch.tensor(starts, dtype=torch.int64))
    seen: set[Key] = set()
    for i in range(len(starts)):
        now = batch.obs[i] if stack == 1 else batch.obs[i, -1]
        env, episode, step = (int(x) for x in now)
        key = (env, episode, step)
        seen.add(key)
        total, discount, following = expected(envs, key, n)
        assert int(batch.action[i]) == actions[key]
        assert float(batch.reward[i]) == pytest.approx(total, rel=1e-5)
        assert float(batch.discount[i]) == pytest.approx(discount, rel=1e-5)
        if stack > 1:
            assert batch.obs[i].tolist() == frames(key, stack)
        if discount:  # nothing is read from what follows where nothing is bootstrapped
            after = batch.next_obs[i].tolist()
            assert after == (list(following) if stack == 1 else frames(following, stack))
    # None is missing: of each environment, every step but those too new, and those overwritten.
    for env in range(envs.num_envs):
        newest = [s[:3] for s in envs.log if s[0] == env]
        mine = sorted(key for key in seen if key[0] == env)
        if mine:
            first = newest.index(mine[0])
            assert newest[first : first + len(mine)] == mine
            assert len(newest) - (first + len(mine)) <= n
            assert first == 0 or ring.written >= rows
    assert len(seen) == len(starts)


def test_every_step_of_an_episode_can_start_a_transition_also_the_last_ones() -> None:
    envs = Scripted([[(5, "terminated"), (5, "truncated")]])
    ring = Ring(envs.space, 100, 1, n_step=3, gamma=GAMMA)
    play(envs, ring, 12 + 3)
    replay = Uniform(ring, np.random.default_rng(0))
    index, weight = replay.sample(4_000)
    batch = ring.batch(index)
    counts = dict.fromkeys(product((0, 1), range(5)), 0)
    for obs in batch.obs.tolist():
        counts[int(obs[1]), int(obs[2])] += 1
    assert min(counts.values()) > 300  # all ten, each about 400 times: uniform
    assert max(counts.values()) < 500
    assert torch.equal(weight, torch.ones(4_000))


def test_sampling_is_uniform_after_wrapping_and_never_gives_a_final_row() -> None:
    envs = Scripted([[(1, "terminated"), (3, "truncated")], [(2, "terminated")]])
    ring = Ring(envs.space, 2 * 20, 2)
    play(envs, ring, 77)
    index, _ = Uniform(ring, np.random.default_rng(0)).sample(20_000)
    assert not ring.storage.final[index].any()
    rows, counts = np.unique(index.numpy(), return_counts=True)
    valid = [t % 20 * 2 + e for t, e in product(ring.starts, range(2))]
    assert sorted(rows) == sorted(row for row in valid if not ring.storage.final[row])
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


def test_sampling_changes_nothing() -> None:
    envs = Scripted([[(4, "truncated")]])
    ring = Ring(envs.space, 30, 1, n_step=2, stack=2)
    play(envs, ring, 50)
    before = {name: column.clone() for name, column in ring.storage.columns().items()}
    replay = Uniform(ring, np.random.default_rng(0))
    ring.batch(replay.sample(64)[0])
    assert all(torch.equal(before[name], column) for name, column in ring.storage.columns().items())


def test_each_observation_is_stored_once() -> None:
    ring = Ring(Space((84, 84), np.dtype(np.uint8), 4), 1_000, 1, stack=4)
    stored = sum(column.nbytes for column in ring.storage.columns().values())
    assert stored == 1_000 * (84 * 84 + 8 + 4 + 3)


def test_the_ring_continues_from_its_state() -> None:
    envs = Scripted([[(4, "terminated"), (3, "truncated")]])
    ring = Ring(envs.space, 20, 1, n_step=2)
    play(envs, ring, 33)
    copy = Ring(envs.space, 20, 1, n_step=2)
    assert ring.known == range(13, 33)
    for rows in (range(13, 22), range(22, 33)):  # in two parts, of which one goes over the end
        copy.put_rows(rows, ring.rows_of(rows))
    copy.restore(ring.written)
    assert copy.starts == ring.starts
    assert all(
        torch.equal(a, b) for a, b in zip(ring.storage.columns().values(), copy.storage.columns().values(), strict=True)
    )


@pytest.mark.parametrize("ticks", range(1, 12))
def test_a_cut_ends_the_running_episode_as_a_time_limit_would(ticks: int) -> None:
    envs = Scripted([[(3, "terminated")], [(4, "truncated")]])
    ring = Ring(envs.space, 60, 2, n_step=2, gamma=GAMMA)
    actor = play(envs, ring, ticks)
    ring.cut(actor.obs)
    fresh = Scripted([[(9, "terminated")], [(9, "terminated")]])  # the environments after a restart
    fresh.at = [[50, 0], [60, 0]]
    play(fresh, ring, 6)
    rows = [t % ring.rows * 2 + e for t, e in product(ring.starts, range(2))]
    batch = ring.batch(torch.tensor([row for row in rows if not ring.storage.final[row]]))
    for obs, after, discount in zip(batch.obs.tolist(), batch.next_obs.tolist(), batch.discount.tolist(), strict=True):
        if discount:  # every bootstrap is from the same episode, and not from further than n steps
            assert obs[:2] == after[:2]
            assert 1 <= after[2] - obs[2] <= 2
            assert discount == pytest.approx(GAMMA ** (after[2] - obs[2]))
    played = {(obs[0], obs[1], obs[2]) for obs in batch.obs.tolist() if obs[1] < 50}
    assert played == {(float(e), float(k), float(s)) for e, k, s, _ in envs.log}


def test_append_counts_transitions_not_rows() -> None:
    ring = Ring(Space((1,), np.dtype(np.float32), 2), 10, 1)

    def row(done: bool) -> Steps:
        one: Array = np.zeros((1, 1))
        return Steps(np.zeros((1, 1, 1)), one, one, one, np.full((1, 1), done))

    assert [ring.append(row(done)) for done in (False, True, False, False)] == [1, 1, 0, 1]
    assert ring.fill == 0.4


# Observations kept compressed


@settings(max_examples=60, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    n_step=st.integers(1, 4),
    stack=st.integers(1, 4),
    rows=st.integers(12, 30),
    turns=st.integers(8, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_ring_that_compresses_equals_one_that_does_not(
    num_envs: int, n_step: int, stack: int, rows: int, turns: int, seed: int
) -> None:
    """For every transition, whole or around the end of the ring, and after a checkpoint."""
    pytest.importorskip("lz4.block")
    rng, space = np.random.default_rng(seed), Space((5, 4), np.dtype(np.uint8), 3)
    options: dict[str, Any] = {"n_step": n_step, "gamma": 0.9, "stack": stack}
    plain, packed, again = (
        Ring(space, rows * num_envs, num_envs, **options, compress=compress) for compress in (0, 7, 7)
    )
    ended = np.zeros(num_envs, np.bool_)
    for _ in range(turns):
        done = (rng.random(num_envs) < 0.2) & ~ended
        steps = Steps(
            rng.integers(0, 256, (1, num_envs, 5, 4), dtype=np.uint8),
            rng.integers(0, 3, (1, num_envs)),
            rng.normal(size=(1, num_envs)),
            (done & (rng.random(num_envs) < 0.5))[None],
            done[None],
        )
        ended = done
        assert plain.append(steps) == packed.append(steps)
    again.put_rows(packed.known, packed.rows_of(packed.known))
    again.restore(packed.written)
    starts = np.array([row % rows * num_envs + env for row in plain.starts for env in range(num_envs)], np.int64)
    for part in np.array_split(starts, -(-len(starts) // 7)) if len(starts) else ():
        index = torch.from_numpy(part)
        expected = plain.batch(index)
        for ring in (packed, again):
            ring.prepare(index)
            found = ring.batch(index)
            for name in ("obs", "action", "reward", "discount", "next_obs"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_compressed_observations_of_another_ring_or_damaged_ones_are_refused() -> None:
    pytest.importorskip("lz4.block")
    space = Space((5, 4), np.dtype(np.uint8), 3)
    ring = Ring(space, 20, 1, compress=4)
    for _ in range(6):
        zeros = np.zeros((1, 1))
        ring.append(Steps(np.zeros((1, 1, 5, 4), np.uint8), zeros, zeros, zeros, zeros))
    arrays = ring.rows_of(ring.known)
    for change in (
        {"packed": arrays["packed"][:-1]},
        {"sizes": arrays["sizes"] - 1},
        {"sizes": arrays["sizes"][:-1]},
        {"packed": np.full_like(arrays["packed"], 255)},
    ):
        with pytest.raises(ValueError, match="packed observation"):
            Ring(space, 20, 1, compress=4).put_rows(ring.known, {**arrays, **change})
    with pytest.raises(ValueError, match="there is room for 8"):
        ring.prepare(torch.arange(20).repeat(2))
