"""Atari: real games, frame by frame; skipped where ale-py is not installed."""

import csv
import json
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import qlearn
from qlearn import dqn, pqn, presets
from qlearn.actor import Actor
from qlearn.atari57 import Reference, games, human_normalized
from qlearn.build import build
from qlearn.cli import main
from qlearn.config import check, override
from qlearn.engine import why_not_bfloat16
from qlearn.envs import make_envs
from qlearn.envs.atari import PROTOCOLS, Game, find_game, known_games, make_atari, rules_of
from qlearn.errors import UsageError
from qlearn.evaluate import evaluate
from qlearn.replay import Ring
from qlearn.runs import results, suite
from qlearn.scores import iqm
from qlearn.types import Array, Steps

ale_py = pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")

ACTIONS = np.random.default_rng(0).integers(0, 4, 400)


def played(game: str, actions: Array, *, seed: int = 3, **kwargs: Any) -> tuple[list[Array], list[float], list[int]]:
    """The frames, rewards and lives of a game until it ends."""
    found = find_game(game)
    assert found is not None
    env = make_atari(found, **kwargs)
    obs, info = env.reset(seed=seed)
    frames, rewards, lives = [obs.copy()], [], [info["lives"]]
    for action in actions:
        obs, reward, over, cut, info = env.step(int(action))
        frames.append(obs.copy())
        rewards.append(reward)
        lives.append(info["lives"])
        if over or cut:
            break
    return frames, rewards, lives


def test_the_ids_of_atari_games_are_known_and_old_ones_are_told_the_new() -> None:
    assert find_game("ALE/MsPacman-v5") == Game("ms_pacman", "v5")
    assert find_game("PongNoFrameskip-v4") == Game("pong", "nature")
    assert find_game("ale_py:ALE/Pong-v5") == Game("pong", "v5")
    assert find_game("CartPole-v0") is None
    assert find_game("MinAtar/Breakout-v1") is None
    with pytest.raises(UsageError, match=r"use ALE/Breakout-v5 --env.obs-type ram$"):
        find_game("Breakout-ram-v0")
    with pytest.raises(UsageError, match=r"use ALE/Pong-v5$"):
        find_game("Pong-v4")
    with pytest.raises(UsageError, match=r"unknown environment ALE/Pongg-v5.*ALE/Pong-v5"):
        find_game("ALE/Pongg-v5")


def test_every_game_can_be_made_from_pixels_and_from_ram() -> None:
    assert len(known_games()) > 100
    gym.register_envs(ale_py)
    registered = {spec.id for spec in gym.registry.values() if spec.id.startswith("ALE/")}
    assert {f"ALE/{name}-v5" for name in known_games()} == registered
    for game in ("Pong", "MsPacman", "Tetris"):
        for obs_type, shape in (("pixels", (84, 84)), ("ram", (128,))):
            envs = make_envs(f"ALE/{game}-v5", 1, kwargs={"obs_type": obs_type})
            assert envs.reset().shape == (1, *shape)
            assert envs.space.dtype == np.uint8


@pytest.mark.parametrize("obs_type", ["pixels", "ram"])
@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_game_is_a_function_of_its_seed_and_its_actions(obs_type: str, protocol: str) -> None:
    kwargs: dict[str, Any] = {"protocol": protocol, "obs_type": obs_type}
    one, two = (played("ALE/SpaceInvaders-v5", ACTIONS, **kwargs) for _ in "ab")
    assert np.array_equal(one[0], two[0])
    assert one[1:] == two[1:]
    other = played("ALE/SpaceInvaders-v5", ACTIONS, seed=4, **kwargs)
    assert len(one[0]) != len(other[0]) or not np.array_equal(one[0], other[0])


def test_sticky_actions_are_there_where_the_protocol_says_so() -> None:
    """Without no-ops, two seeds of a game without sticky actions are one game."""
    for probability, same in ((0.0, True), (0.25, False)):
        rules: dict[str, Any] = {"protocol": "sticky", "repeat_action_probability": probability}
        one, two = (played("ALE/Breakout-v5", ACTIONS, seed=seed, **rules) for seed in (1, 2))
        assert (len(one[0]) == len(two[0]) and np.array_equal(one[0], two[0])) == same


def test_an_action_lasts_four_frames_and_a_game_begins_with_up_to_thirty_no_ops() -> None:
    found = find_game("ALE/Pong-v5")
    assert found is not None
    env, begins = make_atari(found, protocol="nature"), set()
    for seed in range(60):
        _, info = env.console._envs.reset(seed=np.array([seed]))  # type: ignore[union-attr]
        begins.add(int(info["episode_frame_number"][0]))
    assert (min(begins), max(begins)) == (0, 30)
    env.step(0)
    env.console.send(0)
    frames = env.console._envs.recv()[4]["episode_frame_number"]  # type: ignore[union-attr]
    assert int(frames[0]) == int(info["episode_frame_number"][0]) + 8


def test_preprocessing_is_that_of_gymnasium() -> None:
    """Frame by frame the same as `AtariPreprocessing` on the emulator without frame skip, no-ops or sticky actions."""
    gym.register_envs(ale_py)
    raw = gym.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0)
    theirs = gym.wrappers.AtariPreprocessing(raw, noop_max=0, frame_skip=4)
    rules: dict[str, Any] = {"protocol": "nature", "noop_max": 0}
    frames, rewards, lives = played("ALE/Breakout-v5", ACTIONS, **rules)
    obs, info = theirs.reset(seed=0)
    assert np.array_equal(obs, frames[0])
    for t, reward in enumerate(rewards):
        obs, their_reward, over, _, info = theirs.step(int(ACTIONS[t]))
        assert their_reward == reward
        assert info["lives"] == lives[t + 1]
        if not over:  # ALE's vector environment leaves the last two frames of a game as they were
            assert np.array_equal(obs, frames[t + 1]), t


def test_a_life_lost_ends_what_is_bootstrapped_and_not_the_game() -> None:
    for protocol, deaths in (("nature", 4), ("sticky", 0)):
        envs = make_envs("ALE/Breakout-v5", 1, kwargs={"protocol": protocol})
        actor = Actor(envs, lambda obs: torch.zeros(len(obs), 4), np.random.default_rng(0))
        terminated = done = 0
        while not done:
            rows, episodes = actor.rollout(1.0)
            terminated += int(rows.terminated.sum())
            done += int(rows.done.sum())
        assert terminated == deaths + 1  # Breakout has five lives; the last is the game
        assert episodes[0].length > 100


def test_the_cap_truncates_and_is_bootstrapped() -> None:
    envs = make_envs("ALE/Pong-v5", 1, kwargs={"protocol": "nature", "noop_max": 0, "max_frames": 80})
    ring = Ring(envs.space, 100, 1, gamma=0.5)
    actor = Actor(envs, lambda obs: torch.zeros(len(obs), 6), np.random.default_rng(0))
    rows = [actor.rollout(1.0) for _ in range(30)]
    for steps, _ in rows:
        ring.append(steps)
    ends = [t for t, (steps, _) in enumerate(rows) if steps.done.any()]
    assert ends[0] == 19  # 80 frames
    assert not rows[19][0].terminated.any()
    assert ring.batch(torch.tensor([19])).discount.item() == 0.5


def test_stacks_begin_with_nothing_and_learning_clips_rewards() -> None:
    envs = make_envs("ALE/Pong-v5", 1)
    ring = Ring(envs.space, 2_000, 1, gamma=0.99, n_step=3, stack=4, clip=True)
    actor = Actor(envs, lambda obs: torch.zeros(len(obs), 6), np.random.default_rng(0), stack=4)
    seen, rewards = [], []
    for _ in range(200):
        seen.append(actor.seen[0].copy())
        steps, _ = actor.rollout(1.0)
        rewards.append(float(steps.reward[0, 0]) * 7)
        ring.append(steps._replace(reward=steps.reward * 7))
    batch = ring.batch(torch.arange(100))
    assert torch.equal(batch.obs, torch.from_numpy(np.stack(seen[:100])))
    assert not batch.obs[0, :3].any()
    assert batch.obs[0, 3].any()
    clipped = np.clip(rewards, -1, 1)
    assert any(abs(reward) > 1 for reward in rewards[:100])
    for t in range(100):
        expected = clipped[t] + 0.99 * clipped[t + 1] + 0.99**2 * clipped[t + 2]
        assert batch.reward[t].item() == pytest.approx(expected, abs=1e-6)


def test_games_side_by_side_are_those_alone() -> None:
    """Three games that work at once give what each gives by itself."""
    together = make_envs("ALE/Breakout-v5", 3, seed=5)
    rng, rows = np.random.default_rng(1), []
    together.reset()
    actions = rng.integers(0, 4, (60, 3))
    for action in actions:
        obs, reward, *_ = together.step(action)
        rows.append((obs, reward))
    found = find_game("ALE/Breakout-v5")
    assert found is not None
    from qlearn.envs import episode_seed

    for env in range(3):
        alone = make_atari(found)
        alone.reset(seed=episode_seed(5, "train", env))
        for t, action in enumerate(actions[:, env]):
            obs, points, over, *_ = alone.step(int(action))
            assert np.array_equal(obs, rows[t][0][env])
            assert points == rows[t][1][env]
            if over:
                break


def test_settings_of_games_are_refused_where_they_make_no_sense() -> None:
    with pytest.raises(UsageError, match=r"env.obs_type is ram, but CartPole-v1 is no Atari game"):
        build(check(override(presets.get("dqn", "CartPole-v1"), {"env": {"obs_type": "ram"}})))
    found = find_game("ALE/Pong-v5")
    assert found is not None
    with pytest.raises(UsageError, match=r"env.kwargs has frame_skip.*frameskip"):
        rules_of(found, "nature", {"frame_skip": 2})
    for name, value in {
        "frameskip": 0,
        "noop_max": "3",
        "repeat_action_probability": 2,
        "max_frames": 1.5,
        "maxpool": 1,
        "epsilon": -1,
    }.items():
        with pytest.raises(UsageError, match=rf"env.kwargs has {name} .*; it must be "):
            rules_of(found, "nature", {name: value})
    with pytest.raises(UsageError, match=r"a field of its own: --env.obs-type"):
        build(check(override(presets.get("dqn", "ALE/Pong-v5"), {"env": {"kwargs": '{"obs_type": "ram"}'}})))


@pytest.mark.parametrize("preset", [name for name in presets.PRESETS if name not in ("intro", "tabular", "pqn")])
def test_presets_build_from_pixels(preset: str) -> None:
    small = {"replay": {"capacity": 1_000}, "runtime": {"compile": "eager", "precision": "fp32"}}
    parts = build(check(override(presets.get(preset, "ALE/Pong-v5"), small)))
    assert parts.replay is not None
    for _ in range(40):
        parts.replay.append(parts.actor.rollout(0.5)[0])
    index, weight = parts.replay.sample(8)
    assert parts.learner.update(index, weight).isfinite().all()  # type: ignore[union-attr, call-arg, arg-type]
    assert parts.config.replay.clip_rewards
    assert parts.config.env.protocol in PROTOCOLS
    parts.envs.close()


def test_from_ram_the_network_is_an_mlp() -> None:
    changes = {"env": {"obs_type": "ram"}, "replay": {"capacity": 1_000}}
    parts = build(check(override(presets.get("dqn", "ALE/Breakout-v5"), changes)))
    assert not any(isinstance(module, torch.nn.Conv2d) for module in parts.learner.online.modules())
    assert json.loads(parts.config.env.kwargs) == {}


# Scores

PUBLISHED = {  # column: games, median, mean with 0 for Video Pinball's random score, mean with 16,256.9; in percent
    "dqn_c51paper": (57, 79.1, 227.7, 432.6),
    "double_dqn_tuned": (57, 117.8, 307.1, 641.5),
    "dueling": (57, 151.4, 372.9, 465.1),
    "prior_dueling_ddqn": (57, 172.1, 591.9, 1119.9),
    "c51": (57, 177.7, 701.1, 1767.3),
    "qr_dqn_0": (57, 199.2, 881.1, 1663.8),
    "qr_dqn": (57, 210.7, 915.2, 1702.3),
    "apex_dqn": (57, 434.1, 1694.9, 2321.3),
    "agent57": (57, 1933.5, 4766.2, 5881.3),
}


def normalized(column: str, reference: Reference) -> list[float]:
    with (Path(__file__).parent / "fixtures" / "atari57.csv").open() as file:
        scores = {row["game"]: float(row[column]) for row in csv.DictReader(file) if row[column]}
    found = [human_normalized(game, score, reference) for game, score in scores.items()]
    return [100 * score for score in found if score is not None]


@pytest.mark.parametrize("column", PUBLISHED)
def test_the_published_aggregates_come_out_to_the_digit(column: str) -> None:
    games, median, mean, mean_of_16256 = PUBLISHED[column]
    scores = normalized(column, "modern")
    assert len(scores) == games
    assert round(float(np.median(scores)), 1) == median
    assert round(float(np.mean(scores)), 1) == mean
    assert round(float(np.mean(normalized(column, "modern-16256.9"))), 1) == mean_of_16256


def test_natures_own_humans_are_others() -> None:
    own, modern = normalized("dqn_nature", "nature"), normalized("dqn_nature", "modern")
    assert sum(score >= 75 for score in own) == 29  # the paper's claim
    assert round(float(np.median(own)), 1) == 93.5
    assert round(float(np.median(modern)), 1) == 79.3
    assert sum(score > 100 for score in modern) == 22


def test_the_subsets_are_games_of_the_57() -> None:
    assert [len(games(name)) for name in ("atari5", "atari10", "atari57", "Pong")] == [5, 10, 57, 0]
    assert set(games("atari10")) <= set(games("atari57"))
    assert set(games("atari57")) <= set(known_games().values())


def test_an_evaluation_plays_full_games_and_says_how(tmp_path: Path) -> None:
    run = qlearn.train(
        "ALE/Breakout-v5",
        preset="nature",
        run_dir=tmp_path / "run",
        progress=False,
        steps=120,
        env={"obs_type": "ram"},
        replay={"warmup_steps": 100, "capacity": 1_000},
    )
    told = qlearn.evaluate(run.path, episodes=2).summary()
    assert told["protocol"]["epsilon"] == 0.05
    assert told["protocol"]["atari"]["obs_type"] == "ram"
    assert told["protocol"]["atari"]["repeat_action_probability"] == 0.0
    assert told["human_normalized"] == pytest.approx((told["mean"] - 1.7) / (30.5 - 1.7))
    assert told["episodes"] == 2


def test_a_policy_that_never_fires_is_cut_and_that_is_said() -> None:
    envs = make_envs("ALE/Breakout-v5", 2, kwargs={"protocol": "nature", "max_frames": 400})
    limit = rules_of(Game("breakout", "v5"), "nature", {"max_frames": 400}).steps
    told = evaluate(lambda obs: torch.tensor([[1.0, 0, 0, 0]] * len(obs)), envs, 2, env_id="b", limit=limit)
    assert told.protocol["episodes_cut"] == 2
    assert told.returns == [0.0, 0.0]


def test_a_suite_of_atari5_is_of_five_games_and_is_put_beside_humans(tmp_path: Path) -> None:
    file = tmp_path / "five.toml"
    file.write_text('[[runs]]\nenv = "atari5"\npresets = ["nature"]\nseeds = 2\nset.replay.capacity = 1000\n')
    plan = suite.read(file, tmp_path)
    assert len(plan.items) == 10
    assert {item.config.env.id for item in plan.items} == {
        "ALE/BattleZone-v5", "ALE/DoubleDunk-v5", "ALE/NameThisGame-v5", "ALE/Phoenix-v5", "ALE/Qbert-v5",
    }  # fmt: skip
    rows = [
        {"label": "a", "env": env, "evaluation": {"human_normalized": score}}
        for env, scores in {"x": (1.0, 2.0), "y": (4.0, 4.0), "z": (0.0, 1.0)}.items()
        for score in scores
    ]
    (line,) = results.beside_humans([*rows, {"label": "a", "env": "CartPole-v1", "evaluation": {}}])
    assert (line["games"], line["runs"], line["median"]) == (3, 6, 1.5)
    assert line["mean"] == pytest.approx(6 / 3)
    assert line["iqm"] == pytest.approx(float(iqm(np.array([1.0, 2, 4, 4, 0, 1]))))
    assert line["ci95_low"] <= line["iqm"] <= line["ci95_high"]


# From pixels


PIXELS: dict[str, Any] = {"replay": {"capacity": 400, "warmup_steps": 20}, "runtime": {"compile": "eager"}}


def test_bfloat16_is_near_float32_and_its_values_are_told_apart() -> None:
    if why_not_bfloat16():
        pytest.skip(str(why_not_bfloat16()))
    outcomes = {}
    for precision in ("fp32", "bf16"):
        changes = {**PIXELS, "runtime": {"compile": "eager", "precision": precision}}
        parts = build(check(override(presets.get("nature", "ALE/Pong-v5"), changes)))
        assert isinstance(parts.learner, dqn.Learner)
        assert parts.replay is not None
        for _ in range(40):
            parts.replay.append(parts.actor.rollout(1.0)[0])
        for _ in range(3):
            parts.learner.update(*parts.replay.sample(16))
        outcomes[precision] = parts.learner.q_values(torch.from_numpy(parts.actor.seen)), parts.learner.online
        parts.envs.close()
    (q, network), (low, _) = outcomes["fp32"], outcomes["bf16"]
    assert torch.allclose(q, low, atol=5e-3)
    assert not torch.equal(q, low)
    assert low.dtype == torch.float32
    assert not torch.equal(low, low.bfloat16().float())  # more digits than bfloat16 has
    assert {name for name, part in network.named_modules() if getattr(part, "exact", False)} == {"head.layers.3"}


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_the_weights_in_bfloat16_are_always_those_of_now(mode: str) -> None:
    if why_not_bfloat16():
        pytest.skip(str(why_not_bfloat16()))
    changes = {**PIXELS, "runtime": {"compile": mode, "precision": "bf16"}}
    one, other = (build(check(override(presets.get("nature", "ALE/Pong-v5"), changes))) for _ in "ab")
    learner = one.learner
    assert isinstance(learner, dqn.Learner)
    assert isinstance(other.learner, dqn.Learner)
    for tick in one.train():
        vector, low = learner.descent.flat.forms
        assert low.dtype == torch.bfloat16
        assert torch.equal(low, vector.bfloat16())
        if tick.updates >= 3:
            break
    learner.synchronize()
    q = learner.q_values(torch.from_numpy(one.actor.seen))
    other.learner.restore(learner.tensors())
    assert torch.equal(other.learner.q_values(torch.from_numpy(one.actor.seen)), q)
    for parts in (one, other):
        parts.envs.close()
    assert all(torch.equal(a, b) for a, b in zip(other.learner._target.forms, learner._target.forms, strict=True))


def test_a_convolution_that_is_wrong_in_bfloat16_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.nn.functional.conv2d

    def wrong(x: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        return right(x, *given, **named) * (0.9 if x.dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.nn.functional, "conv2d", wrong)
    why_not_bfloat16.cache_clear()
    assert "is wrong on this processor" in str(why_not_bfloat16())
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    why_not_bfloat16.cache_clear()
    assert "no instructions for bfloat16" in str(why_not_bfloat16())
    with pytest.raises(UsageError, match=r"runtime.precision is bf16, but .*; use fp32"):
        build(check(override(presets.get("nature", "ALE/Pong-v5"), {"runtime": {"precision": "bf16"}})))
    assert (
        build(check(override(presets.get("nature", "ALE/Pong-v5"), PIXELS))).learner.online.precision == torch.float32
    )
    why_not_bfloat16.cache_clear()


def test_a_run_with_compressed_frames_learns_the_same_and_goes_on(tmp_path: Path) -> None:
    changes: dict[str, Any] = {**PIXELS, "steps": 60, "progress": False}
    networks = []
    for compress in (False, True):
        replay = {**PIXELS["replay"], "compress": compress}
        run = qlearn.train("ALE/Pong-v5", run_dir=tmp_path / str(compress), **{**changes, "replay": replay})
        networks.append(run.agent.network.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    again = qlearn.resume(tmp_path / "True", steps=80, progress=False)
    assert again.summary["steps"] == 80


def test_pqn_learns_from_pixels_and_from_clipped_rewards() -> None:
    changes = {"env": {"num_envs": 2}, "pqn": {"rollout_steps": 4, "minibatches": 2}, "runtime": {"compile": "eager"}}
    parts = build(check(override(presets.get("pqn", "ALE/Pong-v5"), changes)))
    assert isinstance(parts.learner, pqn.Learner)
    none = np.zeros((3, 2), np.bool_)
    rows = Steps(
        obs=np.zeros((3, 2, 4, 84, 84), np.uint8),
        action=np.zeros((3, 2), np.int64),
        reward=np.array([[5.0, -7.0]] * 3),
        terminated=none,
        done=none,
    )
    returns = parts.learner.returns(rows, np.zeros((2, 4, 84, 84), np.uint8), None)
    best = parts.learner.q_values(torch.zeros(2, 4, 84, 84, dtype=torch.uint8)).amax(-1)
    assert torch.allclose(returns[-1], torch.tensor([1.0, -1.0]) + 0.99 * best, atol=1e-4)
    ticks = parts.train()
    while next(ticks).updates == 0:
        pass
    parts.envs.close()


def test_the_film_of_a_game_is_of_that_game() -> None:
    """The camera's emulator plays along, frame by frame."""
    found = find_game("ALE/Pong-v5")
    assert found is not None
    env = make_atari(found, protocol="v5", render_mode="rgb_array")
    obs, _ = env.reset(seed=5)
    for action in ACTIONS[:120]:
        obs, *_ = env.step(int(action))
        grey = cv2.cvtColor(env.render(), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - obs).mean() < 1.0


def test_the_claims_of_the_benchmarks_can_be_run() -> None:
    root = Path(__file__).parent.parent / "benchmarks"
    sys.path.insert(0, str(root / "atari"))
    try:
        claims = runpy.run_path(str(root / "atari" / "learn.py"))["CLAIMS"]
    finally:
        sys.path.remove(str(root / "atari"))
    for words in claims.values():
        env_id, *rest = shlex.split(words)
        assert main(["train", env_id, *rest, "--steps", "-1"]) == 2  # all else is read before
        fields = {rest[i].removeprefix("--"): rest[i + 1] for i in range(0, len(rest) - 1, 2) if rest[i] == "--preset"}
        config = override(presets.get(fields["preset"], env_id), {"replay": {"capacity": 1_000}})
        if "ram" in words:
            config = override(config, {"env": {"obs_type": "ram"}, "network": {"torso": "mlp", "hidden": (256, 256)}})
        build(check(config)).envs.close()
