"""Exploration, the actor, networks, and the environments' contract."""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from qlearn.actor import Actor, Window
from qlearn.envs import encoder, episode_seed, make_envs
from qlearn.errors import EnvError, QlearnError, UsageError
from qlearn.evaluate import evaluate
from qlearn.exploration import Linear, epsilon_greedy
from qlearn.networks import Encode
from qlearn.scores import mean_interval, text
from qlearn.torsos import make_torso
from qlearn.types import Array, Space
from tests.scripted import Scripted


def test_each_environment_tosses_a_coin_of_its_own() -> None:
    rng = np.random.default_rng(0)
    explored = np.array([epsilon_greedy(lambda: np.full(8, -1), 0.5, 8, 4, rng) != -1 for _ in range(4_000)])
    assert explored.mean(0) == pytest.approx(np.full(8, 0.5), abs=0.03)
    correlation = np.corrcoef(explored.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.06
    assert len(set(explored.sum(1))) == 9  # from none to all


def test_epsilon_is_the_probability_of_a_random_action() -> None:
    rng = np.random.default_rng(0)
    actions = np.concatenate([epsilon_greedy(lambda: np.zeros(10, int), 0.3, 10, 4, rng) for _ in range(4_000)])
    assert np.bincount(actions) / len(actions) == pytest.approx([0.775, 0.075, 0.075, 0.075], abs=0.01)
    assert (epsilon_greedy(lambda: np.full(3, 2), 0.0, 3, 4, rng) == 2).all()


def test_a_schedule_is_a_pure_function_of_the_step() -> None:
    schedule = Linear(1.0, 0.1, 1_000_000)
    assert [schedule(0), schedule(500_000), schedule(10**9)] == [1.0, pytest.approx(0.55), 0.1]
    assert Linear(0.05, 0.05, 0)(0) == 0.05


def test_the_actor_acts_on_the_first_observation_of_an_episode_and_reports_true_returns() -> None:
    envs = Scripted([[(3, "terminated"), (2, "truncated")]])
    seen: list[list[float]] = []

    def q_values(obs: torch.Tensor) -> torch.Tensor:
        seen.append(obs[0].tolist())
        return torch.zeros(1, 7)

    actor = Actor(envs, q_values, np.random.default_rng(0))
    episodes = [e for _ in range(7) for e in actor.rollout(0.0)[1]]
    assert [(e.episode_return, e.length) for e in episodes] == [(1 + 2 + 3, 3), (101 + 102, 2)]
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 1, 0], [0, 1, 1], [0, 1, 2]]


def test_the_actors_stack_is_the_replays() -> None:
    envs = Scripted([[(3, "terminated")]])
    seen: list[Any] = []

    def q_values(obs: torch.Tensor) -> torch.Tensor:
        seen.append(obs[0].tolist())
        return torch.zeros(1, 7)

    actor = Actor(envs, q_values, np.random.default_rng(0), stack=3)
    for _ in range(6):
        actor.rollout(0.0)
    blank = [0, 0, 0]
    assert seen[0] == [blank, blank, [0, 0, 0]]
    assert seen[2] == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    assert seen[4] == [blank, blank, [0, 1, 0]]
    assert seen[5] == [blank, [0, 1, 0], [0, 1, 1]]


def test_a_window_of_one_adds_no_axis() -> None:
    assert Window(np.ones((2, 5)), 1).view().shape == (2, 5)
    assert Window(np.ones((2, 5)), 4).view().shape == (2, 4, 5)


SPACES: list[tuple[gym.Space[Any], tuple[int, ...], str]] = [
    (spaces.Box(-1, 1, (3,), np.float64), (3,), "float32"),
    (spaces.Box(0, 255, (10, 8), np.uint8), (10, 8), "uint8"),
    (spaces.Box(0, 9, (2,), np.int64), (2,), "float32"),
    (spaces.Discrete(6, start=3), (), "int64"),
    (spaces.MultiBinary(4), (4,), "float32"),
    (spaces.MultiDiscrete([2, 3]), (5,), "float32"),
    (spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2, 2)))), (6,), "float32"),
    (spaces.Dict(a=spaces.Discrete(3), b=spaces.Dict(c=spaces.MultiBinary(2))), (5,), "float32"),
]


@pytest.mark.parametrize(("space", "shape", "dtype"), SPACES, ids=lambda x: type(x).__name__)
def test_every_supported_space_is_encoded_and_learned_from(
    space: gym.Space[Any], shape: tuple[int, ...], dtype: str
) -> None:
    code = encoder(space, spaces.Discrete(2))
    space.seed(0)
    encoded = np.stack([code.encode(space.sample()) for _ in range(5)])
    assert encoded.shape == (5, *shape)
    assert (code.space.shape, code.space.dtype) == (shape, encoded.dtype)
    assert encoded.dtype == dtype
    inputs = (*shape, code.space.categories) if code.space.categories else shape
    torso, features = make_torso("mlp", inputs, (8, 4))
    assert torso(Encode(code.space)(torch.from_numpy(encoded))).shape == (5, features)


def test_a_discrete_space_starts_where_it_says() -> None:
    code = encoder(spaces.Discrete(6, start=3), spaces.Discrete(2, start=5))
    assert int(code.encode(3)) == 0
    assert Encode(code.space)(torch.tensor([5])).tolist() == [[0, 0, 0, 0, 0, 1]]
    assert code.first_action == 5


def test_bytes_come_to_one_and_bounded_numbers_to_minus_one_to_one() -> None:
    pixels = Encode(Space((2,), np.dtype(np.uint8), 2))
    assert pixels(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == [[0.0, 1.0]]
    low, high = np.array([-1.2, -np.inf, -3e38, 0.0]), np.array([0.6, np.inf, 3e38, 10.0])
    space = Space((4,), np.dtype(np.float32), 2, 0, low, high)
    x = torch.tensor([[0.6, 7.0, 7.0, 0.0]])
    assert Encode(space, rescale=True)(x)[0].tolist() == pytest.approx([1.0, 7.0, 7.0, -1.0])
    assert torch.equal(Encode(space)(x), x)


def test_natures_convolutions_have_3136_features() -> None:
    torso, features = make_torso("nature", (4, 84, 84), ())
    assert sum(p.numel() for p in torso.parameters()) == 77_984
    assert torso(torch.zeros(2, 4, 84, 84)).shape == (2, features) == (2, 3_136)
    last, features = make_torso("auto", (96, 96, 3), (16,))  # channels last are turned
    assert last(torch.zeros(2, 96, 96, 3)).shape == (2, features) == (2, 16)
    normed, _ = make_torso("nature", (4, 84, 84), (), layer_norm=True)
    assert normed(torch.rand(2, 4, 84, 84)).shape == (2, 3_136)
    with pytest.raises(UsageError, match="36 x 36"):
        make_torso("nature", (3, 20, 20), (16,))


def test_an_episode_is_a_function_of_its_seed_and_actions_whatever_plays_beside_it() -> None:
    def played(num_envs: int) -> dict[int, list[Array]]:
        envs = make_envs("CartPole-v1", num_envs, seed=7)
        obs = envs.reset()
        number, episodes = np.arange(num_envs), {n: [obs[n]] for n in range(num_envs)}
        ended = np.zeros(num_envs, bool)
        for _ in range(200):
            obs, _, _, done = envs.step(np.ones(num_envs, np.int64))
            number += num_envs * ended
            for lane in range(num_envs):
                episodes.setdefault(int(number[lane]), []).append(obs[lane])
            ended = done
        envs.close()
        return episodes

    one, three = played(1), played(3)
    assert len(one) > 10
    for n in range(10):
        assert np.array_equal(np.array(one[n]), np.array(three[n]))
    assert episode_seed(7, "train", 3) != episode_seed(7, "evaluate", 3)
    assert len({episode_seed(s, "train", n) for s in range(20) for n in range(200)}) == 4_000


def test_the_final_observation_is_the_true_one_and_the_next_step_begins_an_episode() -> None:
    envs = make_envs("tests.scripted:Corridor-v0", 1)
    envs.reset()
    for place in range(1, 5):
        obs, _, terminated, _ = envs.step(np.array([1]))
        assert (obs[0, 0], terminated[0]) == (place, False)
    obs, reward, terminated, done = envs.step(np.array([1]))
    assert (obs[0, 0], reward[0], terminated[0], done[0]) == (5, 1, True, True)
    obs, reward, terminated, done = envs.step(np.array([1]))  # this action is ignored
    assert (obs[0, 0], reward[0], terminated[0], done[0]) == (0, 0, False, False)
    for _ in range(30):
        obs, reward, terminated, done = envs.step(np.array([0]))
    assert (terminated[0], done[0]) == (False, True)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "error", "message"),
    [
        ("CartPol-v1", {}, UsageError, "unknown environment CartPol-v1; did you mean CartPole-v1"),
        ("CartPole-v9", {}, UsageError, "did you mean CartPole-v1"),
        ("Pendulum-v1", {}, UsageError, "qlearn learns Discrete actions only"),
        ("no.such.module:Thing-v0", {}, UsageError, "there is no module no"),
        ("tests.scripted:Corridor-v0", {"fault": "text"}, UsageError, "qlearn reads Box, Discrete"),
        ("tests.scripted:Corridor-v0", {"falt": 1}, UsageError, "unexpected keyword argument 'falt'"),
        ("CartPole-v1", {"sutton_barto": 1}, None, ""),
    ],
)
def test_environments_that_cannot_be_made(
    env_id: str, kwargs: dict[str, Any], error: type[QlearnError] | None, message: str
) -> None:
    if error is None:
        make_envs(env_id, 1, kwargs={"sutton_barto_reward": True}).close()
        return
    with pytest.raises(error, match=message):
        make_envs(env_id, 1, kwargs=kwargs)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "raised RuntimeError in step.*the motor is stuck"),
        ("nan", r"observation with nan at index \[0\]"),
        ("nan reward", "reward of nan"),
        ("shape", r"shape \(2,\); its space says \(1,\)"),
    ],
)
def test_environments_that_break_their_contract(fault: str, message: str) -> None:
    envs = make_envs("tests.scripted:Corridor-v0", 1, kwargs={"fault": fault, "at": 3})
    envs.reset()
    envs.step(np.array([0]))
    envs.step(np.array([0]))
    with pytest.raises(EnvError, match=message):
        envs.step(np.array([0]))


def zeros(obs: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(obs), 7)


def test_evaluation_counts_whole_episodes_and_does_not_favour_short_ones() -> None:
    script = [(length, "terminated") for length in (9, 1, 1, 1, 2, 5)]

    def returns(lanes: int) -> list[float]:
        envs = Scripted([script[lane::lanes] for lane in range(lanes)])
        return evaluate(zeros, envs, 6, env_id="x").returns

    lengths = [length for length, _ in script]
    assert returns(1) == [sum(100 * k + s + 1 for s in range(n)) for k, n in enumerate(lengths)]
    # Environment i plays episodes i and i + 3: the long one is not left out, though others would be done sooner.
    assert returns(3) == [sum(100 * (k // 3) + s + 1 for s in range(n)) for k, n in enumerate(lengths)]


def test_evaluation_of_a_real_environment_does_not_depend_on_how_many_share_the_work() -> None:
    def returns(lanes: int) -> list[float]:
        envs = make_envs("CartPole-v1", lanes, seed=3, stream="evaluate")
        return evaluate(lambda obs: obs[:, 2:4] @ torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]), envs, 7, env_id="x").returns

    assert returns(1) == returns(4)
    assert len(set(returns(4))) > 1


def test_evaluation_reports_its_protocol_and_an_interval() -> None:
    envs = Scripted([[(2, "terminated"), (3, "truncated")]])
    result = evaluate(zeros, envs, 4, env_id="x", protocol={"policy": "greedy"}).summary()
    assert result["returns"] == [3, 306, 403, 906]
    assert result["mean"] == pytest.approx(404.5)
    assert result["ci_low"] < result["mean"] < result["ci_high"]
    assert result["protocol"].items() >= {"policy": "greedy", "epsilon": 0.0, "episodes_cut": 0}.items()


def test_an_environment_without_an_end_is_cut_and_the_cut_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["qlearn.evaluate"], "MAX_EPISODE_STEPS", 5)
    result = evaluate(zeros, Scripted([[(10**9, "truncated")]] * 2), 4, env_id="x")
    assert result.returns == [15, 15, 515, 515]
    assert result.protocol["episodes_cut"] == 4


def test_a_cut_is_a_truncation_to_whoever_learns_from_it() -> None:
    actor = Actor(Scripted([[(10**9, "truncated")]]), zeros, np.random.default_rng(0), limit=3)
    rows = [actor.rollout(0.0)[0] for _ in range(5)]
    assert [bool(r.done[0, 0]) for r in rows] == [False, False, True, False, False]
    assert not any(r.terminated.any() for r in rows)
    assert [r.obs[0, 0].tolist() for r in rows[3:]] == [[0, 0, 3], [0, 1, 0]]


def test_the_interval_of_a_mean() -> None:
    assert mean_interval(np.array([5.0, 5.0])) == (5.0, 5.0)
    assert mean_interval(np.array([5.0])) == (5.0, 5.0)
    sample = np.random.default_rng(0).normal(10, 2, 400)
    low, high = mean_interval(sample)
    assert low == pytest.approx(sample.mean() - 1.96 * 0.1, abs=0.03)
    assert high == pytest.approx(sample.mean() + 1.96 * 0.1, abs=0.03)


def test_a_score_is_told_with_the_digits_that_it_has() -> None:
    assert [text(x) for x in (499.849, -13, 0.7402, -2.5, 0, 12_345.67)] == [
        "499.8", "-13.0", "0.74", "-2.50", "0.00", "12,345.7"
    ]  # fmt: skip


def test_an_environment_gets_its_action_as_its_space_would_draw_it() -> None:
    envs = make_envs("CartPole-v1", 2)
    given: list[Any] = []
    step = envs.envs[1].step

    def noting(action: Any) -> Any:
        given.append(action)
        return step(action)

    envs.envs[1].step = noting  # type: ignore[method-assign]
    envs.reset()
    envs.step(np.array([0, 1]))
    assert type(given[0]) is type(envs.envs[1].action_space.sample())
    assert given[0] == 1
    envs.close()
