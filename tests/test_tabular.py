"""Q-learning with a table: one step by hand, dqn.py's loss, the best values where they are known, and its picture."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from qlearn import dqn
from qlearn.actor import Actor
from qlearn.envs import make_envs
from qlearn.errors import NotFiniteError, UsageError
from qlearn.exploration import Ladder, Linear
from qlearn.runs.table import draw_table
from qlearn.tabular import Learner, Table, train
from qlearn.types import Array, Batch, Space, Tick
from qlearn.values import Scalar

Model = dict[int, dict[int, list[tuple[float, int, float, bool]]]]  # as Gymnasium's toys have it: env.unwrapped.P


class Played:
    """Copies of an environment (`qlearn.types.Envs`) that is given as a model; `limit` steps cut an episode."""

    lost: Array | None = None

    def __init__(self, model: Model, num_envs: int = 1, limit: int = 10**9, mask: Array | None = None) -> None:
        self.model, self.num_envs, self.limit, self.allowed = model, num_envs, limit, mask
        self.space = Space((), np.dtype(np.int64), len(model[0]), categories=len(model), masked=mask is not None)
        self.rng = np.random.default_rng(7)
        self.state, self.age = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.ended = np.zeros(num_envs, bool)
        self.mask: Array | None = None
        self.log: list[tuple[int, int, float, bool, int]] = []  # the true transitions

    def reset(self) -> Array:
        self.state[:], self.age[:], self.ended[:] = 0, 0, False
        return self._obs()

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        reward, terminated, done = np.zeros(self.num_envs), np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for env in range(self.num_envs):
            if self.ended[env]:
                self.state[env], self.age[env], self.ended[env] = 0, 0, False
                continue
            here, choice = int(self.state[env]), int(action[env])
            cases = self.model[here][choice]
            _, there, reward[env], terminated[env] = cases[self.rng.choice(len(cases), p=[case[0] for case in cases])]
            self.state[env], self.age[env] = there, self.age[env] + 1
            self.ended[env] = done[env] = terminated[env] or self.age[env] >= self.limit
            self.log.append((here, choice, float(reward[env]), bool(terminated[env]), there))
        return self._obs(), reward, terminated, done

    def abandon(self, env: int) -> None:
        self.ended[env] = True

    def close(self) -> None:
        pass

    def _obs(self) -> Array:
        self.mask = None if self.allowed is None else self.allowed[self.state]
        return self.state.copy()


def corridor(length: int) -> Model:
    """Action 1 goes right, action 0 stays; a reward of 1 for each step; the last state ends the episode."""
    ends = [min(s + 1, length) for s in range(length + 1)]
    return {s: {0: [(1.0, s, 1.0, False)], 1: [(1.0, n, 1.0, n == length)]} for s, n in enumerate(ends)}


def random_model(states: int, actions: int, outcomes: int) -> Model:
    rng = np.random.default_rng(3)

    def cases() -> list[tuple[float, int, float, bool]]:
        p = rng.dirichlet(np.ones(outcomes)) if outcomes > 1 else np.ones(1)
        return [(float(q), int(rng.integers(states)), float(rng.normal()), bool(rng.random() < 0.1)) for q in p]

    return {s: {a: cases() for a in range(actions)} for s in range(states)}


def backed_up(model: Model, value: Array, gamma: float) -> Array:
    def q(cases: list[tuple[float, int, float, bool]]) -> float:
        return sum(p * (r + (0 if end else gamma * value[n])) for p, n, r, end in cases)

    return np.asarray([[q(model[s][a]) for a in range(len(model[s]))] for s in range(len(model))])


def best_values(model: Model, gamma: float) -> Array:
    q = np.zeros((len(model), len(model[0])))
    for _ in range(2_000):
        q = backed_up(model, q.max(-1), gamma)
    return q


def policy_value(model: Model, policy: Array, gamma: float) -> Array:
    """The value of each state under a deterministic policy, solved as linear equations."""
    size = len(model)
    transition, reward = np.zeros((size, size)), np.zeros(size)
    for s, action in enumerate(policy.tolist()):
        for p, n, r, end in model[s][action]:
            reward[s] += p * r
            transition[s, n] += 0 if end else p
    return np.linalg.solve(np.eye(size) - gamma * transition, reward)


def parts(envs: Any, learning_rate: float = 0.5, gamma: float = 0.9) -> tuple[Actor, Learner]:
    learner = Learner(Table(envs.space.categories, envs.space.num_actions), gamma=gamma, learning_rate=learning_rate)
    return Actor(envs, learner.q_values, np.random.default_rng(1)), learner


def moved(learner: Learner, *transitions: tuple[int, int, float, bool, int], mask: Array | None = None) -> Array:
    state, action, reward, terminated, following = map(np.asarray, zip(*transitions, strict=True))
    return learner.update(state, action, reward, terminated, following, mask)


def table(*rows: list[float], learning_rate: float = 0.5, gamma: float = 0.9) -> Learner:
    made = Table(len(rows), len(rows[0]))
    made.q.copy_(torch.tensor(rows))
    return Learner(made, gamma=gamma, learning_rate=learning_rate)


def values(learner: Learner) -> Array:
    numbers: Array = learner.online.q.numpy().copy()
    return numbers


def test_one_update_by_hand() -> None:
    learner = table([1.0, 2.0, 0.0], [4.0, -3.0, 5.0])
    error = moved(learner, (0, 1, 3.0, False, 1))
    assert error == pytest.approx([3.0 + 0.9 * 5.0 - 2.0])
    assert values(learner) == pytest.approx(np.asarray([[1.0, 2.0 + 0.5 * 5.5, 0.0], [4.0, -3.0, 5.0]]))
    assert learner.online.visits.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_termination_stops_the_bootstrap() -> None:
    learner = table([1.0, 2.0], [4.0, 5.0])
    assert moved(learner, (0, 1, 3.0, True, 1)) == pytest.approx([1.0])


def test_the_maximum_is_over_the_actions_allowed_there() -> None:
    learner = table([0.0, 0.0], [4.0, 9.0])
    allowed = np.asarray([[True, False]])
    assert moved(learner, (0, 0, 1.0, False, 1), mask=allowed) == pytest.approx([1.0 + 0.9 * 4.0])
    nothing = np.zeros((1, 2), bool)  # a terminal state may allow none
    assert moved(learner, (0, 1, 1.0, True, 1), mask=nothing) == pytest.approx([1.0])


def test_environments_move_one_after_the_other_towards_targets_from_the_table_before() -> None:
    learner = table([0.0, 0.0], [0.0, 2.0])
    errors = moved(learner, (0, 0, 1.0, True, 0), (0, 0, 1.0, True, 0), (1, 0, 0.0, False, 0), (0, 1, 0.0, False, 1))
    assert errors == pytest.approx([1.0, 0.5, 0.0, 1.8])  # the third bootstraps from 0, not from 0.75
    assert values(learner) == pytest.approx(np.asarray([[0.75, 0.9], [0.0, 2.0]]))
    assert learner.online.visits.tolist() == [[2, 1], [1, 0]]


@pytest.mark.parametrize("masked", [False, True])
def test_an_error_squared_is_the_loss_of_dqn_to_the_bit(masked: bool) -> None:
    rng = np.random.default_rng(0)
    learner = table(*rng.normal(size=(40, 5)).astype(np.float32).tolist(), gamma=0.97)
    state, following = rng.permutation(40)[:32], rng.integers(40, size=32)  # different states: none moves twice
    action, reward, terminated = rng.integers(5, size=32), rng.normal(size=32).astype(np.float32), rng.random(32) < 0.3
    mask = rng.random((32, 5)) < 0.5 if masked else None
    if mask is not None:
        mask[:, 0] = True
    discount = torch.from_numpy(np.where(terminated, 0, 0.97).astype(np.float32))
    batch = Batch(
        torch.from_numpy(state),
        torch.from_numpy(action),
        torch.from_numpy(reward),
        discount,
        torch.from_numpy(following),
        next_mask=None if mask is None else torch.from_numpy(mask),
    )
    loss = dqn.td_loss(Scalar(), dqn.Greedy(), learner.online, learner.online, batch)
    errors = learner.update(state, action, reward, terminated, following, mask)
    assert np.array_equal(np.square(errors), loss.numpy())


def test_it_finds_the_best_values_of_a_deterministic_world_exactly() -> None:
    model = random_model(8, 3, 1)
    actor, learner = parts(Played(model, limit=20), learning_rate=1.0)
    for _ in train(actor, learner, epsilon=lambda _: 1.0, total_steps=8_000):
        pass
    reached = learner.online.visits.numpy().sum(-1) > 0
    assert reached.sum() >= 5
    assert values(learner)[reached] == pytest.approx(best_values(model, 0.9)[reached], abs=1e-5)


def test_it_comes_to_the_best_values_of_a_random_world_as_its_steps_get_smaller() -> None:
    model, gamma = random_model(6, 3, 4), 0.8
    rng, learner, best = np.random.default_rng(5), table(*[[0.0] * 3] * 6, gamma=gamma), best_values(model, gamma)
    distance = []
    for sweep in range(4_000):
        learner.set_learning_rate(1 / (1 + sweep) ** 0.8)  # its sum is infinite, that of its squares is not
        for s in model:
            for a, cases in model[s].items():
                _, n, r, end = cases[rng.choice(len(cases), p=[p for p, *_ in cases])]
                moved(learner, (s, a, r, end, n))
        distance.append(np.abs(values(learner) - best).max())
    assert distance[-1] < 0.1 < distance[50]


def test_frozen_lakes_policy_is_nearly_the_best_one() -> None:
    envs = make_envs("FrozenLake-v1", 8, seed=2)
    actor, learner = parts(envs, gamma=0.95)
    rate = Linear(0.3, 0.01, 60_000)
    for tick in train(actor, learner, epsilon=Linear(1.0, 0.2, 40_000), total_steps=60_000):
        learner.set_learning_rate(rate(tick.steps))
    model: Model = envs.envs[0].unwrapped.P  # type: ignore[attr-defined]
    start = policy_value(model, values(learner).argmax(-1), 0.95)[0]
    best = best_values(model, 0.95)[0].max()
    assert best == pytest.approx(0.18, abs=0.01)
    assert start > 0.97 * best
    envs.close()


def test_truncation_bootstraps_and_what_follows_an_end_is_not_learned_from() -> None:
    envs = Played(corridor(3), num_envs=3, limit=4)
    actor, learner = parts(envs, learning_rate=0.3)
    *_, last = train(actor, learner, epsilon=lambda _: 0.7, total_steps=900)
    again = table(*[[0.0, 0.0]] * 4, learning_rate=0.3)
    assert len(envs.log) == last.steps == last.updates == int(learner.online.visits.sum())
    assert any(not end for *_, end, _ in envs.log)
    assert not learner.online.visits[3].any()  # the corridor's end: no action was ever taken there
    envs = Played(corridor(3), limit=4)
    actor, learner = parts(envs, learning_rate=0.3)
    *_, last = train(actor, learner, epsilon=lambda _: 0.7, total_steps=900)
    for transition in envs.log:  # alone, the transitions in their order give the table
        moved(again, transition)
    assert np.array_equal(values(learner), values(again))
    assert values(learner)[0, 0] > 2.6  # 1 + 0.9 * 2.71 where a cut bootstraps; nearer to 1 where it ended


def test_masked_actions_are_neither_taken_nor_believed() -> None:
    model = corridor(3)
    model[1][0] = [(1.0, 1, 100.0, False)]
    allowed = np.ones((4, 2), bool)
    allowed[1, 0] = False
    actor, learner = parts(Played(model, num_envs=2, mask=allowed), learning_rate=1.0)
    learner.online.q[1, 0] = 50.0  # a value that must not be seen
    for _ in train(actor, learner, epsilon=lambda _: 0.5, total_steps=300):
        pass
    assert learner.online.visits[1].tolist()[0] == 0
    assert 9 < values(learner)[[0, 2]].max() < 10.01  # a reward of 1 for ever; believed, 50 would make 46 of it


def test_a_run_that_was_stopped_goes_on() -> None:
    whole, halves = (parts(Played(corridor(4), num_envs=2, limit=6)) for _ in range(2))
    ticks = list(train(*whole, epsilon=Linear(1.0, 0.1, 200), total_steps=400))
    early: list[Tick] = []
    for tick in train(*halves, epsilon=Linear(1.0, 0.1, 200), total_steps=400):
        early.append(tick)
        if len(early) > 40 and tick.episodes:  # the next row is a start, no transition
            break
    late = list(train(*halves, epsilon=Linear(1.0, 0.1, 200), total_steps=400, after=early[-1]))
    assert early + late == ticks
    assert 400 <= ticks[-1].steps <= 401
    assert ticks[-1].updates == ticks[-1].steps == int(whole[1].online.visits.sum())
    assert np.array_equal(values(whole[1]), values(halves[1]))
    assert list(train(*halves, epsilon=lambda _: 1.0, total_steps=400, after=late[-1])) == []


def test_a_rate_for_each_environment() -> None:
    actor, learner = parts(Played(corridor(4), num_envs=2))
    tick = next(train(actor, learner, epsilon=Ladder(0.4, 0.1, 2), total_steps=10))
    assert tick.epsilon == pytest.approx([0.4, 0.1])


def test_statistics_are_of_what_was_tried() -> None:
    learner = table([0.0, 0.0], [-7.0, 0.0], [0.0, 0.0])
    assert learner.statistics() == {}
    moved(learner, (0, 0, 4.0, True, 0), (1, 0, -3.0, True, 0))
    told = learner.statistics()
    assert told == pytest.approx({"q_mean": (2.0 - 5.0) / 2, "q_max": 2.0, "td_error": 4.0, "states_visited": 2})
    assert learner.statistics() == {}  # since the last call
    moved(learner, (1, 0, -5.0, True, 0))
    assert learner.statistics()["td_error"] == 0


def test_a_checkpoint_brings_the_table_back_and_another_table_is_refused() -> None:
    learner, other = table([1.0, 2.0], [3.0, 4.0]), table([0.0, 0.0], [0.0, 0.0])
    moved(learner, (0, 0, 1.0, False, 1))
    kept = learner.tensors()
    assert kept.keys() == {"networks", "last"}
    assert kept["networks"].keys() == {"online.q", "online.visits"}
    moved(learner, (1, 0, 1.0, False, 1))
    other.restore(kept)
    assert np.array_equal(values(other)[0], values(learner)[0])
    assert values(other)[1, 0] == 3.0  # what was kept is not what has moved since
    assert other.online.visits.tolist() == [[1, 0], [0, 0]]
    assert moved(other, (1, 0, 1.0, False, 1)) == pytest.approx([1.0 + 0.9 * 4.0 - 3.0])
    part = {"networks": {"online.q": torch.zeros(2, 2)}}
    bad: list[dict[str, dict[str, torch.Tensor]]] = [{}, {"networks": {}}, table([0.0]).tensors(), part]
    for tensors in bad:
        with pytest.raises(ValueError, match="this table has"):
            other.restore(tensors)


def test_a_learning_rate_beyond_one_and_a_value_beyond_all_are_refused() -> None:
    for rate in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match=r"optimizer.learning_rate .* in \(0, 1\]"):
            Learner(Table(1, 1), gamma=0.9, learning_rate=rate)
    learner = table([1.0, 1.0])
    with pytest.raises(NotFiniteError, match="state 0, action 1"):
        moved(learner, (0, 0, 1.0, False, 0), (0, 1, float("inf"), False, 0))
    assert values(learner).tolist() == [[1.0, 1.0]]


def drawn(out: Path, env_id: str, q: Array, visits: Array, **kwargs: Any) -> Array:
    """The picture's pixels, `[H, W, 3]`."""
    env = gym.make(env_id, **kwargs)
    draw_table(q, visits, env, env_id, out)
    env.close()
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(out) as image:
        return np.asarray(image.convert("RGB"), np.int64)


WORLDS: list[tuple[str, int, int, dict[str, Any]]] = [
    ("FrozenLake-v1", 16, 4, {}),
    ("FrozenLake8x8-v1", 64, 4, {}),
    ("FrozenLake-v1", 45, 4, {"desc": ["S" + "F" * 14, "F" * 15, "F" * 14 + "G"]}),
    ("CliffWalking-v1", 48, 4, {}),
    ("Taxi-v4", 500, 6, {}),
    ("CartPole-v1", 48, 4, {}),
    ("CartPole-v1", 5_000, 3, {}),
    ("FrozenLake-v1", 17, 4, {}),  # a wrapper made other states of it
]


@pytest.mark.parametrize(("env_id", "states", "actions", "kwargs"), WORLDS)
def test_every_table_has_its_picture(env_id: str, states: int, actions: int, kwargs: Any, tmp_path: Path) -> None:
    q, visits = np.random.default_rng(0).normal(size=(states, actions)).astype(np.float32), np.ones((states, actions))
    visits[: states // 2] = 0
    picture = drawn(tmp_path / "new" / "table.png", env_id, q, visits, **kwargs)
    assert min(picture.shape[:2]) > 150
    assert max(picture.shape[:2]) < 1_600
    grey = (picture == 219).all(-1).mean()  # 0.86
    colored = (np.ptp(picture, axis=-1) > 20).mean()
    assert 0.1 < grey < 0.6
    assert 0.1 < colored < 0.7


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "CartPole-v1"])
def test_a_table_that_was_never_used_has_its_picture(env_id: str, tmp_path: Path) -> None:
    drawn(tmp_path / "none.png", env_id, np.zeros((16, 4)), np.zeros((16, 4)))


def test_the_picture_shows_the_best_actions_that_are_allowed(tmp_path: Path) -> None:
    from qlearn.runs.table import _greedy

    q = np.asarray([[1.0, 1.0, 0.0], [0.0, -2.0, -2.0], [0.0, 0.0, 0.0]])
    visits, allowed = np.asarray([[1, 1, 1], [0, 3, 0], [0, 0, 0]]), np.ones((3, 3), bool)
    allowed[1, 0] = False  # never tried, so worth 0: no better than what is allowed
    value, best = _greedy(q, visits, allowed)
    assert best.tolist() == [[True, True, False], [False, True, True], [False, False, False]]
    assert value[:2].tolist() == [1.0, -2.0]
    assert np.isnan(value[2])
    ahead, back = np.zeros((16, 4)), np.zeros((16, 4))
    ahead[:, 2], back[:, 0] = 1, 1
    pictures = [drawn(tmp_path / "t.png", "FrozenLake-v1", q, np.ones((16, 4))) for q in (ahead, back)]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
