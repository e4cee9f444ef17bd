"""Several seeds trained together: each goes as it would alone, and none is another's affair."""

import json
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from qlearn import cohort, presets
from qlearn.build import Parts, build
from qlearn.config import Config, check, override
from qlearn.errors import EnvError, NotFiniteError
from qlearn.runs import directory, resume, start_seeds
from qlearn.runs.board import Board
from qlearn.runs.seeds import SomeEnded
from qlearn.runs.session import Interrupted
from qlearn.types import Tick
from tests import scripted  # noqa: F401 (registers environments)
from tests.conftest import Cli

SMALL: dict[str, Any] = {
    "steps": 400,
    "network": {"hidden": (8, 8)},
    "replay": {"warmup_steps": 60, "capacity": 150},
    "learner": {"batch_size": 8, "replay_ratio": 1.0, "target_update_steps": 50},
    "exploration": {"decay_steps": 100},
    "runtime": {"compile": "eager", "checkpoint_steps": 150, "log_steps": 100},
}


def config(env_id: str = "CartPole-v1", /, **changes: Any) -> Config:
    return check(override(override(presets.get("intro", env_id), SMALL), {"until_solved": False, **changes}))


def members(configuration: Config, count: int) -> list[Parts]:
    return [build(override(configuration, {"seed": seed})) for seed in range(count)]


def parameters(parts: Parts) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in parts.learner.online.parameters()])


VARIANTS: list[dict[str, Any]] = [
    {},
    {"steps": 600, "env": {"num_envs": 3}, "exploration": {"kind": "ladder", "start": 0.4, "end": 0.01}},
    {"env": {"frame_stack": 2}, "replay": {"n_step": 3}},
    {"replay": {"prioritized": True}},
    {"network": {"dueling": True}, "backup": {"munchausen": True}},
    {"value": {"kind": "c51", "atoms": 7}, "optimizer": {"end_learning_rate": 1e-4, "decay_steps": 200}},
    {"learner": {"max_grad_norm": 0.1}, "optimizer": {"name": "rmsprop"}},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: json.dumps(c).translate({ord(x): None for x in '{}": '}))
def test_each_goes_as_it_would_alone(changes: dict[str, Any]) -> None:
    configuration = config(**changes)
    together, alone = members(configuration, 3), members(configuration, 3)
    ticks: list[list[Tick]] = [[], [], []]
    for outcomes in cohort.train(together, [True] * 3):
        for told, outcome in zip(ticks, outcomes, strict=True):
            assert isinstance(outcome, Tick)
            told.append(outcome)
        if len(ticks[0]) == 180:
            break
    for seed, parts in enumerate(alone):
        expected = [tick for _, tick in zip(range(180), parts.train(), strict=False)]
        assert expected[-1].updates > 100
        for mine, theirs in zip(ticks[seed], expected, strict=True):
            assert mine[:2] == theirs[:2]
            assert list(mine.episodes) == list(theirs.episodes)
            np.testing.assert_array_equal(mine.epsilon, theirs.epsilon)
        torch.testing.assert_close(parameters(together[seed]), parameters(parts), rtol=1e-3, atol=1e-4)
        for name, rng in parts.generators().items():
            assert together[seed].generators()[name].bit_generator.state == rng.bit_generator.state, name
    assert not torch.allclose(parameters(alone[0]), parameters(alone[1]))


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"noisy": True, "dueling": True}, "backup": {"double": True}},
        {"value": {"kind": "iqn", "quantiles": 4}, "backup": {"munchausen": True}},
    ],
    ids=["noisy", "iqn"],
)
def test_a_step_of_networks_that_draw_is_the_one_that_each_would_make(changes: dict[str, Any]) -> None:
    """Alone they draw nothing where a random action is chosen, so whole runs differ in their noise."""
    configuration = config(**changes)
    together, alone = members(configuration, 3), members(configuration, 3)
    memories = cohort.Memories(together)
    learners = cohort.Learners(together, memories)
    rows = [[rows for _ in range(40) for rows in [parts.actor.rollout(1.0)[0]]] for parts in alone]
    for i, own in enumerate(rows):
        for row in own:
            together[i].replay.append(row)  # type: ignore[union-attr]
            alone[i].replay.append(row)  # type: ignore[union-attr]
    due = np.array([True, False, True])
    before = parameters(together[1])
    for _ in range(20):
        index, weight = memories.sample(8, due)
        outcome = learners.update(due, index, weight, [None] * 3)
        for i in (0, 2):
            error = alone[i].learner.update(index[i], weight[i])  # type: ignore[call-arg, arg-type]
            torch.testing.assert_close(outcome[i], error, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(parameters(together[i]), parameters(alone[i]), rtol=1e-4, atol=1e-5)
    assert torch.equal(parameters(together[1]), before)
    obs = torch.randn(3, 4)
    for q, parts, own in zip(learners.q_values(obs), alone, obs, strict=True):
        if parts is not alone[1]:
            torch.testing.assert_close(q, parts.learner.q_values(own[None])[0], rtol=1e-4, atol=1e-5)


def test_masks_are_each_members_own() -> None:
    configuration = config("tests.scripted:Doors-v0", network={"hidden": (8,)})
    together, alone = members(configuration, 2), members(configuration, 2)
    for count, _ in enumerate(cohort.train(together, [True] * 2)):
        if count == 149:
            break
    for mine, parts in zip(together, alone, strict=True):
        for _ in zip(range(150), parts.train(), strict=False):
            pass
        torch.testing.assert_close(parameters(mine), parameters(parts), rtol=1e-3, atol=1e-4)


def test_updates_that_are_rare_are_made_together_and_all_of_them() -> None:
    together = members(config(learner={"replay_ratio": 0.25}), 3)
    calls, last = 0, [Tick()] * 3
    for outcomes in cohort.train(together, [True] * 3):
        ticks = [outcome for outcome in outcomes if isinstance(outcome, Tick)]
        moved = [tick.updates - before.updates for tick, before in zip(ticks, last, strict=True)]
        calls, last = calls + bool(any(moved)), ticks
        for tick in ticks:
            assert 0 <= int(max(0, tick.steps - 60) * 0.25) - tick.updates <= 1
        if ticks[0].steps >= 360:
            break
    assert calls <= 85  # each alone makes about 75, at turns of its own


def test_compiled_is_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = [members(config(runtime={"compile": mode}), 2) for mode in ("compiled", "eager")]
    for run in runs:
        for count, _ in enumerate(cohort.train(run, [True] * 2)):
            if count == 179:
                break
    assert len(list(tmp_path.glob("qlearn/compiled/*.so"))) == 2  # the update, and acting
    for mine, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(parameters(mine), parameters(theirs), rtol=1e-3, atol=1e-4)


def test_a_run_directory_is_that_of_a_run_alone_and_goes_on_alone(here: Cli, tmp_path: Path) -> None:
    words = ["--preset", "intro", "--steps", "400", "--no-until-solved", "--runtime.log-steps", "100", "--seeds", "3"]
    result = here("train", "CartPole-v1", *words, "--replay.warmup-steps", "60", "--runtime.compile", "eager")
    assert result.returncode == 0, result.stderr
    assert "3 seeds: the interquartile mean of their mean returns" in result.stdout
    for seed in range(3):
        path = Path(f"runs/CartPole-v1/intro-seed{seed}-001")
        summary = json.loads((path / "summary.json").read_text())
        assert (summary["seed"], summary["steps"], summary["updates"]) == (seed, 400, 340)
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert [line["steps"] for line in lines if line["kind"] == "train"] == [100, 200, 300, 400]
        assert all(line["env"] == 0 for line in lines if line["kind"] == "episode")
        assert (path / "learning_curve.png").exists()
    again = resume(Path("runs/CartPole-v1/intro-seed1-001"), steps=500)
    assert again.summary["updates"] == 440


def test_ctrl_c_saves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    board = Board(silent=True)
    show, asked = board.update, list[str]()

    def update(name: str, steps: int, mean_return: float | None) -> None:
        show(name, steps, mean_return)
        if not asked:
            asked.append(name)
            os.kill(os.getpid(), 2)

    monkeypatch.setattr(board, "update", update)
    with pytest.raises(Interrupted, match="stopped and saved; 0 of 2 seeds are done"):
        start_seeds(config(), 2, board=board)
    for seed in range(2):
        path = tmp_path / f"runs/CartPole-v1/intro-seed{seed}-001"
        assert not (path / directory.SUMMARY).exists()
        assert resume(path).summary["steps"] == 400


class Breaks(gym.Env[Any, Any]):
    """Breaks after 70 steps, where its first seed is odd, or its observations turn into numbers that are too large."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Discrete(2)
    broken = 0

    def __init__(self, how: str, render_mode: str | None = None) -> None:
        self.how, self.steps, Breaks.broken = how, 0, Breaks.broken + 1
        self.breaks = Breaks.broken == 2  # the second that is made

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.breaks and self.steps > 70 and self.how == "raises":
            raise ValueError("boom")
        huge = self.breaks and self.steps > 70 and self.how == "huge"
        obs = np.full(2, 3e18 if huge else self.np_random.normal(), np.float32)
        return obs, 1e38 if huge else 1.0, self.np_random.random() < 0.05, False, {}


@pytest.mark.parametrize(("how", "error"), [("raises", EnvError), ("huge", NotFiniteError)])
def test_one_that_fails_is_saved_and_the_others_go_on(
    how: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Breaks, "broken", 0)
    gym.register("Breaks-v0", lambda **kwargs: Breaks(**kwargs))
    said: list[str] = []
    board = Board(silent=True)
    monkeypatch.setattr(board, "say", said.append)
    try:
        with pytest.raises(SomeEnded, match="2 of 3 seeds are done; ended before: 1"):
            start_seeds(
                config("Breaks-v0", env={"max_restarts": 0, "kwargs": json.dumps({"how": how})}), 3, board=board
            )
    finally:
        del gym.registry["Breaks-v0"]
    done = [(tmp_path / f"runs/Breaks-v0/intro-seed{seed}-001/summary.json").exists() for seed in range(3)]
    assert done == [True, False, True]
    assert any("seed 1:" in line and ("boom" in line or "is not finite" in line) for line in said)


def test_a_failure_at_the_first_step_is_told_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Breaks, "broken", 1)  # the first that is made breaks
    monkeypatch.setattr(Breaks, "step", lambda *_: 1 / 0)
    gym.register("Breaks-v0", lambda **kwargs: Breaks(**kwargs))
    try:
        with pytest.raises(SomeEnded, match="0 of 2 seeds are done; ended before: 0, 1"):
            start_seeds(config("Breaks-v0", env={"kwargs": '{"how": "raises"}'}), 2)
    finally:
        del gym.registry["Breaks-v0"]
