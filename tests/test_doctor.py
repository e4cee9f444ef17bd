"""The doctor: each rule with a run that it speaks of and one that it passes, the probes, the command, mistakes."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import qlearn
from qlearn import presets
from qlearn.config import override
from qlearn.doctor import Report, Verdict, examine_env, examine_run, experience, learning, predictions, probes, trial
from qlearn.doctor import soundness as so
from qlearn.doctor.evidence import Evidence, Memory, read_run
from qlearn.doctor.report import NotJudgedError, judge
from qlearn.doctor.rules import RULES
from qlearn.doctor.sample import Sample
from qlearn.doctor.trace import Trace
from qlearn.types import Array
from tests.conftest import Cli
from tests.test_cli import fails

SMALL: dict[str, Any] = {
    "network": {"hidden": (32, 32)},
    "replay": {"warmup_steps": 200},
    "learner": {"batch_size": 32, "target_update_steps": 100},
    "optimizer": {"learning_rate": 2e-3, "end_learning_rate": None, "decay_steps": 0},
    "exploration": {"decay_steps": 1_000},
    "runtime": {"compile": "eager", "log_steps": 100},
    "until_solved": False,
}


def train(path: Path, env: str = "CartPole-v1", preset: str = "dqn", steps: int = 1_200, **changes: Any) -> Path:
    def config(given: dict[str, Any]) -> dict[str, Any]:
        merged = {k: {**v, **given.pop(k, {})} if isinstance(v, dict) else v for k, v in SMALL.items()}
        return merged | given

    return qlearn.train(env, preset=preset, steps=steps, run_dir=path, progress=False, **config(changes)).path


class Room(gym.Env[Any, Any]):
    """Nothing to do but to wait for its end; options make it broken."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, fault: str = "", render_mode: str | None = None) -> None:
        self.fault, self.render_mode, self.time = fault, render_mode, 0
        self.action_space = spaces.Discrete(2)
        high = 255.0 if fault == "unscaled" else 1.0
        self.observation_space: spaces.Space[Any] = spaces.Box(0.0, high, (30, 30) if fault == "unscaled" else (3,))
        if fault == "mask":
            box = spaces.Box(0.0, 1.0, (3,))
            self.observation_space = spaces.Dict({"view": box, "action_mask": spaces.MultiBinary(2)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.view(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        clocked, over = self.time == 20, bool(self.np_random.random() < 0.05)
        reward = 0.0 if self.fault == "unpaid" else 5_000.0 * over if self.fault == "large" else float(over)
        if self.fault == "endless":
            return self.view(), reward, False, False, {}
        terminated = clocked if self.fault in ("clock", "visible clock") else over
        return self.view(), reward, terminated, clocked and not terminated, {}

    def view(self) -> Any:
        if self.fault == "unscaled":
            return (255 * (self.np_random.random((30, 30)) < 0.1)).astype(np.float32)
        view = self.np_random.random(3).astype(np.float32)
        if self.fault == "unseeded":
            view = np.random.random(3).astype(np.float32)
        if self.fault == "constant":
            view[:] = 0.5
        if self.fault == "beyond":
            view += 0.5
        if self.fault == "visible clock":
            view[0] = self.time / 20
        if self.fault == "nan" and self.time == 7:
            view[1] = np.nan
        return {"view": view, "action_mask": np.ones(2, np.int8)} if self.fault == "mask" else view


FAULTS = {
    "": "",
    "unscaled": "scale",
    "unpaid": "reward",
    "clock": "truncation",
    "visible clock": "",
    "large": "reward-scale",
    "endless": "endless",
    "unseeded": "seed",
    "constant": "constant",
    "beyond": "space",
    "mask": "mask",
    "nan": "contract",
}


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Trials take less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "TURNS", 600)
        yield


@pytest.fixture(scope="module", autouse=True)
def rooms() -> Iterator[None]:
    ids = {f"{fault.replace(' ', '') or 'sound'}room-v0": fault for fault in FAULTS}
    for env_id, fault in ids.items():
        gym.register(env_id, Room, kwargs={"fault": fault})  # type: ignore[arg-type]
    yield
    for env_id in ids:
        del gym.registry[env_id]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy run, if a short one."""
    return train(tmp_path_factory.mktemp("doctor") / "run", steps=3_000)


@pytest.fixture(scope="module")
def healthy(run: Path) -> Evidence:
    return read_run(run)


def changed(evidence: Evidence, changes: dict[str, Any]) -> Evidence:
    """The evidence with another configuration."""
    return dataclasses.replace(evidence, config=override(evidence.config, changes))


def lines(evidence: Evidence, **columns: Array) -> Evidence:
    """The evidence with other training lines."""
    count = len(next(iter(columns.values())))
    train = [
        {**evidence.train[-1], "steps": 100 * (i + 1), **{name: float(column[i]) for name, column in columns.items()}}
        for i in range(count)
    ]
    return dataclasses.replace(evidence, train=tuple(train))


def returning(evidence: Evidence, returns: Array) -> Evidence:
    """The evidence with other episodes."""
    return dataclasses.replace(
        evidence, episodes=tuple({"return": float(r), "length": 10, "steps": 10 * i} for i, r in enumerate(returns))
    )


def sampled(evidence: Evidence, **parts: Any) -> Evidence:
    assert evidence.sample
    return dataclasses.replace(evidence, sample=dataclasses.replace(evidence.sample, **parts))


def remembering(evidence: Evidence, trace: Trace, **parts: Any) -> Evidence:
    return dataclasses.replace(evidence, memory=Memory(trace, **parts))


def episodes(lengths: list[int], *, terminated: bool = True, reward: float = 1.0, value: float = np.nan) -> Trace:
    """One environment that played these."""
    rows = [
        (0.0 if final else reward, terminated and step == length - 1, step == length - 1, final, value)
        for length in lengths
        for step, final in [*((i, False) for i in range(length)), (length, True)]
    ]
    r, t, d, f, v = (np.array(column)[:, None] for column in zip(*rows, strict=True))
    return Trace(r, t, d, f, v, fresh=True)


def speaks(rule: Callable[[Any], Verdict | None], evidence: Any, name: str, *parts: str) -> Verdict:
    """The rule has this verdict, and its sentence has the number's parts."""
    verdict = rule(evidence)
    assert verdict is not None
    assert verdict.rule == name
    assert "threshold" in verdict.sentence
    assert verdict.fix
    for part in parts:
        assert part in verdict.sentence
    return verdict


def passes(rule: Callable[[Any], Verdict | None], evidence: Any) -> None:
    assert rule(evidence) is None


def not_judged(rule: Callable[[Any], Verdict | None], evidence: Any, why: str) -> None:
    with pytest.raises(NotJudgedError, match=why):
        rule(evidence)


def test_a_healthy_run_has_no_verdict_and_says_what_was_checked(run: Path, healthy: Evidence) -> None:
    report = examine_run(run)
    assert report.verdicts == ()
    assert report.subject == str(run)
    promises = {promise for promise, _ in RULES}
    judged = promises & set(report.checked)
    assert len(judged) >= 13
    assert any(line.startswith("3,000 steps") for line in report.checked)
    assert "bound" in report.checked[1]
    assert judge(healthy, RULES)[0] == ()


def test_a_young_run_is_not_judged_before_its_time(tmp_path: Path) -> None:
    report = examine_run(train(tmp_path / "run", steps=500, exploration={"decay_steps": 200}))
    assert report.verdicts == ()
    unjudged = [line for line in report.checked if line.startswith("not judged")]
    assert any("it takes 2,000" in line for line in unjudged)
    assert not any("C51" in line or "stack" in line for line in report.checked)  # not meant for it: nothing is said


@pytest.mark.filterwarnings("ignore:.*lies outside")
@pytest.mark.parametrize(
    ("env", "preset", "steps", "changes", "rule"),
    [
        ("unscaledroom-v0", "dqn", 600, {}, "scale"),
        ("CartPole-v1", "c51", 1_500, {"value": {"v_min": 0.0, "v_max": 3.0}}, "support"),
        ("unpaidroom-v0", "dqn", 2_000, {"learner": {"replay_ratio": 0.05}}, "reward"),
        ("clockroom-v0", "dqn", 800, {}, "truncation"),
        ("CartPole-v1", "dqn", 800, {"optimizer": {"learning_rate": 0.2}}, "rate"),
    ],
)
def test_the_five_broken_set_ups_are_named(
    tmp_path: Path, env: str, preset: str, steps: int, changes: dict[str, Any], rule: str
) -> None:
    report = examine_run(train(tmp_path / "run", env, preset, steps, **changes))
    found = {v.rule: v for v in report.verdicts}
    assert rule in found
    assert found[rule].number is not None
    assert found[rule].threshold is not None


@pytest.mark.parametrize(
    ("preset", "env"), [("tabular", "FrozenLake-v1"), ("pqn", "CartPole-v1"), ("rainbow", "CartPole-v1")]
)
def test_every_algorithm_can_be_examined(tmp_path: Path, preset: str, env: str) -> None:
    changes: dict[str, Any] = {"optimizer": {"learning_rate": 0.1}} if preset == "tabular" else {}
    report = examine_run(train(tmp_path / "run", env, preset, 600, **changes))
    assert report.verdicts == ()
    replay = [line for line in report.checked if "no replay memory" in line]
    assert bool(replay) == (preset != "rainbow")


def test_a_run_without_a_checkpoint_is_judged_by_its_metrics(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.rmtree(copy / "checkpoints")
    report = examine_run(copy)
    assert report.verdicts == ()
    assert any(line.endswith("there is no checkpoint yet") for line in report.checked)
    (copy / "metrics.jsonl").unlink()
    assert examine_run(copy).verdicts == ()


def test_a_run_of_a_gpu_or_of_a_network_of_your_own_is_judged_by_its_metrics(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    text = (copy / "config.toml").read_text()
    if not torch.cuda.is_available():
        (copy / "config.toml").write_text(text.replace('device = "cpu"', 'device = "cuda"'))
        assert any(line.endswith("there is none here") for line in examine_run(copy).checked)
    (copy / "config.toml").write_text(text.replace('torso = "auto"', 'torso = "custom"'))
    report = examine_run(copy)
    assert report.verdicts == ()
    assert any(line.endswith("not in its files") for line in report.checked)


def test_examining_changes_nothing(run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    examine_run(run)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


# What the network says.


def test_q_beyond_the_bound(healthy: Evidence) -> None:
    passes(predictions.bounded, healthy)
    q = np.full((100, 2), 130.0)
    speaks(predictions.bounded, sampled(healthy, q=q), "bound", "130", "100", "125")
    passes(predictions.bounded, sampled(healthy, q=q - 10))
    speaks(predictions.bounded, sampled(healthy, q=-q), "bound")
    soft = changed(healthy, {"backup": {"munchausen": True}})  # whose rewards reach 1.9
    passes(predictions.bounded, sampled(soft, q=q))
    not_judged(predictions.bounded, changed(healthy, {"replay": {"gamma": 1.0}}), "gamma is 1")
    not_judged(predictions.bounded, remembering(healthy, episodes([50] * 4, reward=0.0)), "every reward is 0")


def test_q_rising_alone(healthy: Evidence) -> None:
    rising = lines(healthy, q_mean=np.linspace(1, 60, 30), updates=np.full(30, 5_000))
    rising = remembering(rising, episodes([10] * 20))  # of which at most 9.6 is earned
    flat, better = np.full(60, 10.0), np.linspace(10, 60, 60)
    speaks(predictions.rising, returning(rising, flat), "rising", "9.56")
    passes(predictions.rising, returning(rising, better))
    passes(predictions.rising, returning(lines(rising, q_mean=np.linspace(1, 9, 30)), flat))
    passes(predictions.rising, returning(lines(rising, q_mean=np.linspace(60, 30, 30)), flat))
    not_judged(predictions.rising, returning(rising, flat[:9]), "9 episodes")


def test_promises_that_are_not_kept(healthy: Evidence) -> None:
    old = lines(healthy, updates=np.array([5_000]))
    speaks(
        predictions.overestimated,
        dataclasses.replace(old, played=episodes([20] * 10, value=60.0)),
        "overestimated",
        "60",
    )
    passes(predictions.overestimated, dataclasses.replace(old, played=episodes([20] * 10, value=12.0)))
    passes(predictions.overestimated, dataclasses.replace(old, played=episodes([20] * 10, value=-60.0)))
    cut = episodes([20] * 10, value=60.0, terminated=False)
    not_judged(predictions.overestimated, dataclasses.replace(old, played=cut), "too few")
    not_judged(predictions.overestimated, healthy, "1,400 updates")
    unpaid = episodes([20] * 10, value=0.1, reward=0.0)
    not_judged(predictions.overestimated, dataclasses.replace(old, played=unpaid), "nothing at all")


def test_a_support_that_is_too_small(healthy: Evidence) -> None:
    atoms = changed(healthy, {"value": {"kind": "c51", "v_min": 0.0, "v_max": 10.0}})
    speaks(predictions.supported, sampled(atoms, outside=0.45), "support", "45%", "30%")
    passes(predictions.supported, sampled(atoms, outside=0.1))
    not_judged(predictions.supported, healthy, "^$")


def test_one_action_always(healthy: Evidence) -> None:
    one = sampled(healthy, q=np.tile([1.0, 0.0], (200, 1)))
    speaks(predictions.varied, returning(one, np.full(60, 10.0)), "action", "100.0%", "99%")
    passes(predictions.varied, returning(one, np.linspace(10, 60, 60)))
    both = sampled(healthy, q=np.tile([[1.0, 0.0], [0.0, 1.0]], (100, 1)))
    passes(predictions.varied, returning(both, np.full(60, 10.0)))


# What it has seen.


def test_no_reward(healthy: Evidence) -> None:
    passes(experience.rewarded, healthy)
    unpaid = remembering(returning(healthy, np.zeros(30)), episodes([50] * 10, reward=0.0))
    speaks(experience.rewarded, unpaid, "reward", "no reward")
    passes(experience.rewarded, returning(unpaid, np.eye(30)[0]))  # once, and no longer in the memory
    few, same = (episodes([50] * n, reward=-1.0, terminated=False) for n in (10, 20))
    not_judged(experience.rewarded, remembering(returning(healthy, np.full(10, -50.0)), few), "10 episodes")
    speaks(experience.rewarded, remembering(returning(healthy, np.full(10, -50.0)), same), "reward", "same reward")
    ended = episodes([50, 40, 50, 50, 50, 50], reward=-1.0)
    passes(experience.rewarded, remembering(returning(healthy, np.full(10, -50.0)), ended))
    not_judged(experience.rewarded, dataclasses.replace(unpaid, steps=900), "900 steps")


def test_observations(healthy: Evidence) -> None:
    passes(experience.scaled, healthy)
    speaks(experience.scaled, sampled(healthy, size=80.0), "scale", "80")
    passes(experience.changing, healthy)
    speaks(experience.changing, sampled(healthy, spread=0.0), "constant")
    not_judged(experience.scaled, sampled(healthy, size=None), "^$")
    not_judged(experience.moving, healthy, "^$")
    passes(experience.moving, sampled(healthy, still=0.5))
    speaks(experience.moving, sampled(healthy, still=0.98), "still", "98%", "90%")


def test_truncation_taken_for_termination(healthy: Evidence) -> None:
    piled = remembering(healthy, episodes([12, 30, 50, 50, 50, 50, 50, 7]))
    piled = dataclasses.replace(piled, episodes=({"length": 50, "return": 50.0},))
    speaks(experience.bootstrapped, piled, "truncation", "5 of 8", "50 steps")
    assert piled.memory
    trace = piled.memory.trace
    passes(experience.bootstrapped, remembering(piled, trace, clock=1.0))  # the end can be seen coming
    passes(experience.bootstrapped, dataclasses.replace(piled, episodes=({"length": 51, "return": 51.0},)))
    passes(experience.bootstrapped, remembering(piled, episodes([50] * 8, terminated=False)))
    passes(experience.bootstrapped, remembering(piled, episodes([13, 13, 13, 13, 13, 13, 40])))  # the shortest way
    passes(experience.bootstrapped, remembering(piled, episodes([5] * 20)))  # a game of so many turns
    passes(experience.bootstrapped, changed(remembering(piled, episodes([50] * 8)), {"replay": {"gamma": 0.5}}))
    speaks(experience.bootstrapped, remembering(piled, episodes([50] * 8), clock=0.3), "truncation", "8 of 8")
    not_judged(experience.bootstrapped, remembering(piled, episodes([50] * 8)), "all episodes take 50 steps")


def test_evaluation_unlike_training(healthy: Evidence) -> None:
    old = lines(healthy, updates=np.array([20_000]))
    better = dataclasses.replace(returning(old, np.linspace(10, 200, 200)), finished=True)
    bad, good = episodes([10] * 10), episodes([150] * 10)
    speaks(experience.alike, dataclasses.replace(better, played=bad), "evaluation", "10")
    passes(experience.alike, dataclasses.replace(better, played=good))
    passes(experience.alike, dataclasses.replace(returning(better, np.full(200, 20.0)), played=bad))
    not_judged(experience.alike, dataclasses.replace(better, played=bad, finished=False), "goes on")
    not_judged(experience.alike, lines(better, updates=np.array([2_000])), "2,000 updates")


# How it learns.


def test_no_updates(healthy: Evidence) -> None:
    passes(learning.updated, healthy)
    speaks(learning.updated, changed(healthy, {"replay": {"warmup_steps": 3_000}}), "updates", "0 updates")


def test_losses_that_are_none(healthy: Evidence) -> None:
    passes(learning.finite, healthy)
    speaks(learning.finite, lines(healthy, loss=np.array([1, np.nan, 2, 3])), "loss", "1 of 4")
    speaks(learning.finite, lines(healthy, loss=np.array([1.0] + 12 * [0.0])), "loss", "last 10")
    passes(learning.finite, lines(healthy, loss=np.array([0.0, 0.0, 0.0, 1.0])))


def test_gradients_that_are_always_clipped(healthy: Evidence) -> None:
    passes(learning.free, healthy)
    speaks(learning.free, lines(healthy, grad_norm=np.full(30, 500.0)), "clipped", "100%", "95%")
    passes(learning.free, lines(healthy, grad_norm=np.array(20 * [500.0] + 10 * [1.0])))
    not_judged(learning.free, lines(healthy, grad_norm=np.full(9, 500.0)), "9 lines")


def test_a_learning_rate_beside_its_weights(healthy: Evidence) -> None:
    passes(learning.gentle, healthy)
    speaks(learning.gentle, changed(healthy, {"optimizer": {"learning_rate": 0.1}}), "rate", "0.1", "98%", "30%")


@pytest.mark.parametrize("name", presets.PRESETS)
@pytest.mark.parametrize(("env", "inputs"), [("CartPole-v1", 128), ("MountainCar-v0", 128), ("ALE/Pong-v5", 3_136)])
def test_no_preset_has_a_rate_that_is_too_large_and_a_hundred_times_it_is(name: str, env: str, inputs: int) -> None:
    config = presets.get(name, env)
    inputs = max(*config.network.hidden, 0) if env != "ALE/Pong-v5" else inputs
    evidence = Evidence(config, 1, False, False, (), (), sample=Sample(np.zeros((1, 2)), fan_in=inputs))
    if config.algorithm == "tabular":
        not_judged(learning.gentle, evidence, "^$")
        return
    passes(learning.gentle, evidence)
    rate = 100 * config.optimizer.learning_rate
    speaks(learning.gentle, changed(evidence, {"optimizer": {"learning_rate": rate}}), "rate")


def test_a_target_that_is_never_synchronised(healthy: Evidence) -> None:
    passes(learning.synchronised, healthy)
    speaks(learning.synchronised, changed(healthy, {"learner": {"target_update_steps": 10_000}}), "target", "2,800")


def test_an_epsilon_that_stays(healthy: Evidence) -> None:
    passes(learning.decayed, healthy)
    speaks(learning.decayed, changed(healthy, {"exploration": {"decay_steps": 100_000}}), "epsilon", "0.9")
    passes(learning.decayed, dataclasses.replace(changed(healthy, {"exploration": {"end": 0.9}}), solved=True))
    passes(learning.decayed, changed(dataclasses.replace(healthy, finished=False, steps=300), {"steps": 100_000}))


def test_dormant_units(healthy: Evidence) -> None:
    passes(learning.awake, healthy)
    speaks(learning.awake, sampled(healthy, dormant={"torso.1": 0.2, "head.1": 0.97}), "dormant", "97%", "head.1")
    not_judged(learning.awake, sampled(healthy, dormant={}), "no layers")


def test_priorities_that_leave_little(healthy: Evidence) -> None:
    per = changed(healthy, {"replay": {"prioritized": True}})
    assert per.memory
    trace = per.memory.trace
    speaks(learning.even, remembering(per, trace, effective=0.04), "priorities", "4%", "10%")
    passes(learning.even, remembering(per, trace, effective=0.6))
    not_judged(learning.even, healthy, "^$")


def test_where_the_time_goes(healthy: Evidence) -> None:
    passes(learning.balanced, healthy)
    slow = lines(dataclasses.replace(healthy, env_seconds=0.02), steps_per_second=np.full(5, 48.0))
    speaks(learning.balanced, slow, "time", "20 ms", "96%")
    passes(learning.balanced, lines(slow, steps_per_second=np.full(5, 20.0)))
    quick = dataclasses.replace(healthy, env_seconds=1e-5)
    passes(learning.balanced, lines(quick, steps_per_second=np.full(5, 99_000.0)))


# How evidence is made.


def test_what_was_earned_is_told_where_it_is_known() -> None:
    trace = episodes([3])
    assert trace.realised(0.5)[:3, 0].tolist() == [1.75, 1.5, 1.0]
    assert np.isnan(trace.realised(0.5)[3, 0])
    cut = episodes([60], terminated=False).realised(0.9)[:, 0]
    assert np.isfinite(cut[:39]).all()  # 0.9 ^ 22 is less than a tenth
    assert np.isnan(cut[39:]).all()


def test_whole_episodes_of_a_ring_that_went_round() -> None:
    trace = dataclasses.replace(episodes([3, 5, 4]), fresh=False)
    assert [e.steps for e in trace.episodes()] == [5, 4]
    assert [e.steps for e in dataclasses.replace(trace, fresh=True).episodes()] == [3, 5, 4]
    assert trace.sums().tolist() == [5.0, 4.0]


def test_the_ring_is_read_in_order_of_time(tmp_path: Path) -> None:
    evidence = read_run(train(tmp_path / "run", steps=900, replay={"capacity": 400}))
    assert evidence.memory
    whole = [e.steps for e in evidence.memory.trace.episodes()]
    ended = [line["length"] for line in evidence.episodes]
    cut = 1 + (whole[-1] != ended[-1])  # the last one was running when the checkpoint was made
    assert whole[:-1] == ended[len(ended) - len(whole) + cut - 1 : len(ended) + cut - 2]
    assert evidence.sample
    assert evidence.sample.fan_in == 32
    assert set(evidence.sample.dormant) == {"torso.2", "head.layers.1"}


# Environments.


@pytest.mark.parametrize(("fault", "rule"), FAULTS.items())
def test_a_fault_of_an_environment_is_named(fault: str, rule: str) -> None:
    verdicts, checked = so.examine_soundness(f"{fault.replace(' ', '') or 'sound'}room-v0", "dqn", 0)
    assert [v.rule for v in verdicts] == ([rule] if rule else [])
    assert rule or len(checked) >= 10


def test_a_trial_that_shows_no_motion_or_no_end() -> None:
    tried = trial.tried(presets.get("dqn", "soundroom-v0"))
    not_judged(so.moving, tried, "^$")
    passes(so.moving, dataclasses.replace(tried, still=0.2))
    speaks(so.moving, dataclasses.replace(tried, still=0.95), "still", "95%")
    running = dataclasses.replace(tried, trace=episodes([50]), limit=100)
    endless = dataclasses.replace(running.trace, done=np.zeros((51, 1), bool))
    passes(so.ending, running)
    not_judged(so.ending, dataclasses.replace(running, trace=endless), "limit of 100")
    speaks(so.ending, dataclasses.replace(running, trace=endless, limit=None), "endless")


@pytest.mark.parametrize("env", ["CartPole-v1", "FrozenLake-v1", "Taxi-v4", "Blackjack-v1", "MinAtar/Breakout-v1"])
def test_sound_environments_have_no_verdict(env: str) -> None:
    verdicts, checked = so.examine_soundness(env, "dqn", 0)
    assert verdicts == ()
    assert any("random steps" in line for line in checked)


def test_an_environment_and_its_probes_are_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", probes.PROBES[:1])
    report = examine_env("FrozenLake-v1", preset="tabular")
    assert report.subject == "FrozenLake-v1"
    assert report.verdicts == ()
    assert "tabular learns a constant reward on this machine" in report.checked
    assert any("random steps" in line for line in report.checked)


def test_masks_in_their_place_are_used() -> None:
    verdicts, checked = so.examine_soundness("Taxi-v4", "tabular", 1)  # gives an action_mask
    assert verdicts == ()
    assert any("masked" in line for line in checked)


def test_the_probes_are_learned() -> None:
    verdicts, checked = probes.examine_learning("dqn", 0)
    assert verdicts == ()
    assert len(checked) == 5


@pytest.mark.parametrize("preset", ["c51", "m-dqn", "tabular"])
def test_other_algorithms_learn_the_last_probe(preset: str) -> None:
    assert probes.learned(probes.PROBES[-1], probes.small(preset, probes.PROBES[-1], 0, {})) is None


def test_an_algorithm_that_is_broken_fails_in_its_probe() -> None:
    constant, _, delayed, *_ = probes.PROBES
    stuck = probes.learned(constant, probes.small("dqn", constant, 0, {"optimizer": {"learning_rate": 1e-9}}))
    assert stuck
    assert stuck.rule == "probe-constant"
    blind = {"replay": {"gamma": 0.0}}  # does not look ahead: only the third asks for that
    assert probes.learned(constant, probes.small("dqn", constant, 0, blind)) is None
    verdict = probes.learned(delayed, probes.small("dqn", delayed, 0, {**blind, "replay": {"gamma": 0.0, "n_step": 1}}))
    assert verdict
    assert verdict.rule == "probe-delayed"
    assert "0.90 and 1.00" in verdict.sentence


# The command.


def test_the_command_shows_verdicts_first_and_exits_with_3(here: Cli, run: Path) -> None:
    result = here("doctor", str(run))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing found" in result.stdout
    assert "✓" in result.stdout
    told = json.loads(here("doctor", str(run), "--json").stdout)
    assert told["verdicts"] == []
    assert told["subject"] == str(run)


def test_the_command_on_an_environment(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", probes.PROBES[:1])
    result = here("doctor", "unpaidroom-v0")
    assert result.returncode == 3
    first, second = result.stdout.index("✗"), result.stdout.index("✓")
    assert first < second
    assert "fix: " in result.stdout
    result = here("doctor", "unpaidroom-v0", "--json")
    assert result.returncode == 3
    (verdict,) = json.loads(result.stdout)["verdicts"]
    assert set(verdict) == {"rule", "sentence", "number", "threshold", "fix"}


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["CartPol-v1"], 2, ["unknown environment", "CartPole-v1"]),
        (["Pendulum-v1"], 2, ["Discrete"]),
        (["runs/nothing"], 2, ["there is no run runs/nothing"]),
        (["empty"], 1, ["is not a run"]),
        (["run", "--preset", "dqn"], 2, ["--preset is for environments"]),
        (["CartPole-v1", "--seed", "-1"], 2, ["seed is -1", "from 0"]),
        (["CartPole-v1", "--preset", "rainbo"], 2, ["unknown preset", "rainbow"]),
        (["CartPole-v1", "--module", "nowhere_at_all"], 2, ["no module"]),
        ([], 2, ["doctor"]),
    ],
)
def test_a_mistake_is_one_line(
    here: Cli, run: Path, tmp_path: Path, words: list[str], code: int, parts: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").symlink_to(run)
    fails(here("doctor", *words), code, *parts)


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        '{"kind": "train", "steps": 1, "updates": 1}\nnonsense\n',
        '{"kind": "train", "steps": 1}',
        '{"kind": "train", "steps": 1, "updates": 1, "loss": "much"}',
        '{"kind": "train", "steps": Infinity, "updates": 1}',
        '{"kind": "episode", "steps": 1, "return": 1.0, "length": null}',
    ],
)
def test_a_damaged_run_is_one_line(here: Cli, run: Path, tmp_path: Path, content: str) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "metrics.jsonl").write_text(content + "\n")
    fails(here("doctor", str(copy)), 1, "metrics.jsonl")


def test_a_damaged_checkpoint_is_one_line(here: Cli, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    for file in copy.glob("checkpoints/**/*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    fails(here("doctor", str(copy)), 1, "damaged")


def test_a_report_is_plain_values() -> None:
    report = Report("x", (Verdict("a", "b", None, 1.0, "c"),), ("d",))
    assert json.loads(json.dumps(dataclasses.asdict(report)))["verdicts"][0]["threshold"] == 1.0
