"""The Python calls, as the documentation makes them."""

import resource
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qlearn
from qlearn import presets, runs
from qlearn.agent import Agent
from qlearn.build import build
from qlearn.config import Config, check, flatten, override, to_dict
from qlearn.envs import encoder
from qlearn.errors import UsageError
from qlearn.networks import Encode, QNetwork, make_head
from qlearn.runs import directory, plot
from qlearn.values import Scalar

QUICK: dict[str, Any] = {"steps": 600, "progress": False, "replay": {"warmup_steps": 100}, "network": {"hidden": (8,)}}


def test_train_load_act_and_q_values(tmp_path: Path) -> None:
    run = qlearn.train("CartPole-v1", seed=1, run_dir=tmp_path / "r", **QUICK)
    assert run.summary["steps"] == 600
    assert run.path == tmp_path / "r"
    agent = qlearn.load(run.path)
    env = gym.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    q = agent.q_values(obs)
    assert q.shape == (2,)
    assert agent.act(obs) == int(q.argmax())
    assert isinstance(agent.act(obs), int)
    batch = np.stack([obs, obs + 0.1, obs - 0.1])
    assert agent.q_values(batch).shape == (3, 2)
    assert agent.q_values(list(batch)).shape == (3, 2)
    assert agent.q_values(batch)[0] == pytest.approx(q, abs=1e-6)
    assert agent.act(batch).shape == (3,)
    assert run.agent.q_values(obs) == pytest.approx(q)  # what was saved is what was trained
    explored = {agent.act(obs, epsilon=1.0, rng=np.random.default_rng(n)) for n in range(20)}
    assert explored == {0, 1}
    with pytest.raises(UsageError, match=r"shape \(3,\); the agent takes \(4,\)"):
        agent.q_values(obs[:3])
    for wrong in ({"episodes": 0}, {"num_envs": 0}, {"seed": -1}):
        arguments: dict[str, Any] = wrong
        with pytest.raises(UsageError, match="must be at least"):
            qlearn.evaluate(run.path, **arguments)
    resumed = qlearn.resume(run.path, steps=700, progress=False)
    assert resumed.summary["steps"] == 700
    assert len(qlearn.evaluate(run.path, episodes=3).returns) == 3


class MyNetwork(nn.Module):
    def __init__(self, shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(shape[0], 24), nn.Tanh(), nn.Linear(24, actions))

    def forward(self, obs: Tensor) -> Tensor:
        q: Tensor = self.layers(obs)
        return q


def test_a_network_of_your_own(tmp_path: Path) -> None:
    quick = {k: v for k, v in QUICK.items() if k != "network"}
    run = qlearn.train("CartPole-v1", network=MyNetwork, run_dir=tmp_path / "r", **quick)
    assert qlearn.load(run.path, network=MyNetwork).q_values(np.zeros(4, np.float32)).shape == (2,)
    assert runs.command("resume", run.path) == f"qlearn.resume('{run.path}', network=...) in Python"
    assert "qlearn.train('CartPole-v1', preset='dqn', steps=600" in (run.path / "command.txt").read_text()
    with pytest.raises(UsageError, match="network=make_network"):
        qlearn.load(run.path)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight, self.last = self.first.weight, nn.Linear(4, 2)

        def forward(self, obs: Tensor) -> Tensor:
            q: Tensor = self.last(self.second(self.first(obs).relu()).relu())
            return q

    tied = qlearn.train("CartPole-v1", network=lambda s, a: Tied(), run_dir=tmp_path / "t", **quick)
    obs = np.ones(4, np.float32)
    assert qlearn.load(tied.path, network=lambda s, a: Tied()).q_values(obs) == pytest.approx(tied.agent.q_values(obs))
    for wrong, message in {
        lambda s, a: nn.Linear(3, a): r"does not take observations of shape \(2, 4\)",
        lambda s, a: nn.Linear(4, a).double(): "float32; it has torch.float64",
        lambda s, a: nn.Identity(): "it has none",
    }.items():
        with pytest.raises(UsageError, match=message):
            qlearn.train("CartPole-v1", network=wrong, run_dir=tmp_path / "w", **quick)
    with pytest.raises(UsageError, match=r"returned \(2, 5\) for 2 observations.*\(2, 2\)"):
        qlearn.train("CartPole-v1", network=lambda s, a: MyNetwork(s, 5), run_dir=tmp_path / "q", **quick)
    assert not (tmp_path / "q").exists()


SMALL = ["Taxi", "FrozenLake-v1", "Blackjack-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("num_envs", "stack", "n_step"), [(1, 1, 1), (3, 2, 4)])
def test_any_environment_with_discrete_actions_trains(
    name: str, num_envs: int, stack: int, n_step: int, tmp_path: Path
) -> None:
    env_id = next(i for i in sorted(gym.registry, reverse=True) if i.startswith(name) and not i.endswith("-v1.5"))
    config = override(
        presets.get("dqn", env_id),
        {
            "steps": 400,
            "env": {"num_envs": num_envs, "frame_stack": stack},
            "replay": {"warmup_steps": 100, "n_step": n_step},
            "network": {"hidden": (8,)},
            "learner": {"batch_size": 8},
        },
    )
    if "Taxi" in name or "Frozen" in name or "Black" in name:
        config = override(config, {"env": {"frame_stack": 1}})
    parts = build(check(config))
    last = list(parts.train())[-1]
    parts.envs.close()
    assert last.steps >= 400
    assert last.updates == int((last.steps - 100) * config.learner.replay_ratio)


def test_intro_is_the_tutorials_own_set_up() -> None:
    config = presets.get("intro", "CartPole-v0")
    assert config.network.hidden == (16, 16, 16)
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-3)
    assert config.optimizer.end_learning_rate is None
    assert (config.replay.capacity, config.replay.warmup_steps) == (10_000, 1_000)
    assert (config.replay.n_step, config.replay.gamma) == (1, 0.99)
    assert (config.exploration.start, config.exploration.end) == (0.05, 0.05)
    assert (config.learner.batch_size, config.learner.replay_ratio) == (32, 1.0)
    assert (config.learner.target_update_steps, config.learner.loss) == (2_500, "squared")
    assert config.learner.max_grad_norm == 0
    assert not config.backup.double
    assert (config.until_solved, config.window, config.max_episodes) == (True, 100, 5_000)
    parts = build(config)
    shapes = [tuple(p.shape) for p in parts.learner.online.parameters()]
    assert shapes == [(16, 4), (16,), (16, 16), (16,), (16, 16), (16,), (2, 16), (2,)]
    parts.envs.close()


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = override(
        presets.get("intro", "CartPole-v0"), {"seed": 7, "env": {"kwargs": '{"sutton_barto_reward": true}'}}
    )
    path = directory.create(config, tmp_path / "r")
    assert directory.read_config(path) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stps": 1}, "unknown field stps; did you mean steps"),
        ({"replay": {"gama": 1}}, r"unknown field replay\.gama; did you mean gamma"),
        ({"replay": 5}, "replay is a group of fields, not 5"),
        ({"replay": {"gamma": float("nan")}}, "replay.gamma is nan"),
        ({"optimizer": {"learning_rate": 0.0}}, "optimizer.learning_rate is 0.0; it must be more than 0"),
        ({"network": {"hidden": ()}}, "network.hidden is empty"),
        ({"network": {"hidden": (0,)}}, "network.hidden is 0; it must be from 1 to 100,000"),
        ({"env": {"kwargs": "[1]"}}, "JSON object"),
        ({"seed": True}, "seed is True; it must be an int"),
        ({"optimizer": {"learning_rate": float("inf")}}, "learning_rate is inf; it must be a finite number"),
        ({"optimizer": {"end_learning_rate": 1e-4}}, "end_learning_rate needs optimizer.decay_steps"),
        ({"env": {"kwargs": '{"render_mode": "human"}'}}, "render_mode, which qlearn gives itself"),
        ({"env": {"kwargs": "[" * 100_000}}, "env.kwargs is .* not JSON"),
        ({"replay": {"capacity": 10**15}}, "capacity is 1000000000000000; it must be from 1 to"),
        ({"steps": "many"}, "steps is 'many'; it must be an int"),
    ],
)
def test_a_configuration_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(override(Config(), changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": {"capacity": 10**12}}, "replay.capacity is 1,000,000,000,000"),
        ({"network": {"hidden": (100_000,) * 2}}, "hidden"),
    ],
)
def test_what_does_not_fit_in_memory_is_named(changes: dict[str, Any], message: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (20 * 2**30, resource.RLIM_INFINITY))
    try:
        with pytest.raises(UsageError, match=message):
            build(check(override(presets.get("dqn", "CartPole-v1"), changes)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_numbers_are_taken_as_what_they_are_meant() -> None:
    config = override(Config(), {"replay": {"gamma": 1}, "network": {"hidden": [4, 5]}})
    assert config.replay.gamma == 1.0
    assert isinstance(config.replay.gamma, float)
    assert config.network.hidden == (4, 5)
    assert "max_episodes" not in to_dict(config)
    assert dict(flatten(config))["replay.gamma"] == 1.0


def test_fields_of_the_environment_can_be_set_from_python(tmp_path: Path) -> None:
    run = qlearn.train("CartPole-v1", env={"num_envs": 4}, run_dir=tmp_path / "r", **QUICK)
    assert directory.read_config(run.path).env.num_envs == 4


@pytest.mark.parametrize("space", [gym.spaces.MultiBinary(3), gym.spaces.MultiDiscrete([2, 3]), gym.spaces.Discrete(5)])
def test_batches_of_any_array_observation(space: gym.Space[Any]) -> None:
    code = encoder(space, gym.spaces.Discrete(2))
    size = code.space.categories or code.space.shape[0]
    net = QNetwork(Encode(code.space), nn.Flatten(), make_head(size, 4, 2, 1))
    agent = Agent(net, Scalar(), code)
    space.seed(0)
    some = [space.sample() for _ in range(5)]
    assert agent.q_values(some[0]).shape == (2,)
    assert agent.q_values(np.array(some)).shape == (5, 2)
    assert agent.q_values(np.array(some)) == pytest.approx(np.stack([agent.q_values(one) for one in some]), abs=1e-6)


def test_every_preset_is_a_valid_configuration_of_every_environment_it_is_tuned_for() -> None:
    for preset in presets.PRESETS.values():
        for family in ("Anything-v0", *(f"{name}-v1" for name in preset.tuned)):
            assert check(preset.config(family)).preset == preset.name
    assert presets.family("ALE/Pong-v5") == "Pong"
    assert presets.family("my.module:CartPole-v12") == "CartPole"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_network_can_be_on_a_gpu(tmp_path: Path) -> None:
    run = qlearn.train("CartPole-v1", run_dir=tmp_path / "r", runtime={"device": "cuda"}, **QUICK)
    assert run.summary["device"] == "cuda"
    assert qlearn.load(run.path).q_values(np.zeros(4)).shape == (2,)


def test_a_run_leaves_the_global_generators_and_threads_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()  # type: ignore[index]
    qlearn.train("CartPole-v1", run_dir=tmp_path / "r", **QUICK)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_plot_groups_seeds_and_names_what_was_changed(tmp_path: Path) -> None:
    for seed in (1, 2):
        qlearn.train("CartPole-v1", seed=seed, run_dir=tmp_path / f"a{seed}", **QUICK)
    qlearn.train("CartPole-v1", seed=3, run_dir=tmp_path / "b", learner={"batch_size": 16}, **QUICK)
    plot([tmp_path / "a1", tmp_path / "a2", tmp_path / "b"], tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert "2 seeds" in drawn
    assert "learner.batch_size 16" in drawn
