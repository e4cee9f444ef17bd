"""Every product of the axes trains, and each axis is what its paper says."""

import itertools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

import qlearn
from qlearn import dqn, presets, runs
from qlearn.build import Parts, build
from qlearn.build.pieces import build_value
from qlearn.config import Config, check, override
from qlearn.draws import Draws
from qlearn.engine import CenteredRMSProp
from qlearn.envs import make_envs
from qlearn.errors import EnvError, NotFiniteError, UsageError
from qlearn.exploration import Ladder, epsilon_greedy
from qlearn.networks import Dueling, Implicit, NoisyLinear, QNetwork, evaluating, make_head
from qlearn.prioritized import Prioritized, SumTree
from qlearn.replay import Ring
from qlearn.runs import checkpoint, metrics
from qlearn.torsos import make_torso
from qlearn.types import Space, Steps
from qlearn.values import Categorical, Quantiles, Scalar
from tests.scripted import Scripted
from tests.test_replay import play

SMALL: dict[str, Any] = {
    "steps": 200,
    "env": {"id": "tests.scripted:Doors-v0"},
    "network": {"hidden": (8, 8)},
    "value": {"atoms": 5, "quantiles": 5, "v_min": -1.0, "v_max": 20.0},
    "replay": {"warmup_steps": 40, "capacity": 120},  # it overwrites itself
    "learner": {"batch_size": 8, "replay_ratio": 0.5, "target_update_steps": 20},
}
KINDS = ("scalar", "c51", "qr", "iqn")
BACKUPS: tuple[dict[str, bool], ...] = ({}, {"double": True}, {"munchausen": True})


def small(**changes: Any) -> Parts:
    return build(check(override(override(Config(), SMALL), changes)))


def trained(parts: Parts) -> Parts:
    """After its 200 steps, in which every number of its network has moved, and none is NaN."""
    before = {name: p.detach().clone() for name, p in parts.learner.online.named_parameters()}
    last = list(parts.train())[-1]
    parts.envs.close()
    assert last.steps >= 200
    assert last.updates == int((last.steps - 40) * 0.5)
    for name, parameter in parts.learner.online.named_parameters():
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), f"{name} takes no part"
    return parts


PRODUCT = list(itertools.product(KINDS, BACKUPS, (False, True), (False, True), (False, True), (1, 3)))


@pytest.mark.parametrize(
    ("kind", "backup", "dueling", "noisy", "prioritized", "n_step"),
    PRODUCT,
    ids=lambda x: "+".join(x) or "greedy" if isinstance(x, dict) else str(x),
)
def test_every_product_of_the_axes_trains(
    kind: str, backup: dict[str, bool], dueling: bool, noisy: bool, prioritized: bool, n_step: int
) -> None:
    trained(
        small(
            value={"kind": kind},
            backup=backup,
            network={"dueling": dueling, "noisy": noisy},
            replay={"prioritized": prioritized, "n_step": n_step},
        )
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "radam"])
@pytest.mark.parametrize("exploration", ["linear", "constant", "ladder"])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_the_other_axes_train_with_each_value(kind: str, optimizer: str, exploration: str, loss: str) -> None:
    parts = small(
        env={"num_envs": 3, "id": "tests.scripted:Corridor-v0", "frame_stack": 2},
        value={"kind": kind},
        network={"layer_norm": optimizer == "radam"},
        optimizer={"name": optimizer, "epsilon": 1e-4},
        exploration={"kind": exploration},
        learner={"loss": loss},
    )
    trained(parts)
    assert parts.actor.mask is None


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(("env_id", "stack"), [("tests.scripted:Doors-v0", 1), ("tests.scripted:Corridor-v0", 3)])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_pqn_trains_with_every_network(dueling: bool, noisy: bool, env_id: str, stack: int, loss: str) -> None:
    config = override(
        presets.get("pqn"),
        {
            "steps": 200,
            "env": {"id": env_id, "num_envs": 4, "frame_stack": stack},
            "network": {"hidden": (8, 8), "dueling": dueling, "noisy": noisy},
            "pqn": {"rollout_steps": 8, "minibatches": 2},
            "learner": {"loss": loss},
        },
    )
    parts = build(check(config))
    before = {name: p.detach().clone() for name, p in parts.learner.online.named_parameters()}
    last = list(parts.train())[-1]
    parts.envs.close()
    assert last.updates >= 5 * 4 * 2
    for name, parameter in parts.learner.online.named_parameters():
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_learns_the_corridor(name: str) -> None:
    """Five steps to the right: chance goes there seldom, and every preset always."""
    config = presets.get(name, "tests.scripted:Corridor-v0")
    if config.algorithm == "tabular":
        pytest.skip("its observations are no integers")
    config = override(
        config,
        {
            "steps": 5_000,
            "network": {"hidden": (32, 32)},
            "value": {"v_min": -1.0, "v_max": 2.0},
            "replay": {"warmup_steps": 500, "capacity": 2_000, "beta_steps": 5_000},
            "learner": {"batch_size": 32, "replay_ratio": 0.5, "target_update_steps": 50},
            "optimizer": {"learning_rate": 2e-3, "end_learning_rate": None, "decay_steps": 0},
        },
    )
    if config.exploration.kind == "linear":
        config = override(config, {"exploration": {"decay_steps": 1_000}})
    parts = build(check(config))
    list(parts.train())
    parts.envs.close()
    with evaluating(parts.learner.online):
        q = parts.learner.q_values(torch.arange(5.0)[:, None])
    assert (q.argmax(-1) == 1).all(), q


# Masks


def test_only_allowed_actions_are_chosen_and_stored_with_their_masks() -> None:
    parts = small(exploration={"end": 0.5, "decay_steps": 100}, env={"num_envs": 2})  # the environment raises else
    trained(parts)
    assert isinstance(parts.learner, dqn.Learner)
    storage = parts.learner.ring.storage
    assert storage.mask is not None
    rows = torch.arange(len(storage.mask))
    played = ~storage.final & (rows < 120)
    assert storage.mask[rows, storage.action][played].all()
    assert (storage.mask[played].sum(-1) == 2).all()
    index = torch.from_numpy(parts.replay.sample(64)[0].numpy() if parts.replay else rows.numpy())
    batch = parts.learner.ring.batch(index)
    assert batch.next_mask is not None
    goes_on = batch.discount > 0
    place = batch.next_obs[goes_on]
    assert batch.next_mask[goes_on].gather(1, place[:, None]).all()
    assert batch.next_mask[goes_on].gather(1, (place[:, None] + 2) % 5).all()


def test_a_random_action_is_uniform_over_the_allowed() -> None:
    mask = np.array([[True, False, True, True], [False, False, False, True]])
    rng = np.random.default_rng(0)
    chosen = np.array([epsilon_greedy(lambda: np.zeros(2, int), 1.0, 2, 4, rng, mask) for _ in range(6_000)])
    assert np.bincount(chosen[:, 0], minlength=4) / 6_000 == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.02)
    assert (chosen[:, 1] == 3).all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("late", r"gives an action_mask in step\(\), but gave none in its first reset\(\)"),
        ("shape", r"action_mask of shape \(4,\) for 5 actions"),
        ("nothing", "allows no action, and the episode goes on"),
        ("gone", "gave no action_mask, as it did before"),
    ],
)
def test_masks_that_break_their_contract(fault: str, message: str) -> None:
    envs = make_envs("tests.scripted:Doors-v0", 1, kwargs={"fault": fault})
    envs.reset()
    with pytest.raises(EnvError, match=message):
        [envs.step(np.array([0])) for _ in range(5)]


def test_an_agent_is_told_what_is_allowed(tmp_path: Path) -> None:
    run = qlearn.train("Taxi-v4", steps=300, progress=False, run_dir=tmp_path / "r", replay={"warmup_steps": 100})
    agent = qlearn.load(run.path)
    for action in range(6):
        only = np.eye(6, dtype=np.int8)[action]
        assert agent.act(3, action_mask=only) == action
        assert agent.act(3, action_mask=only, epsilon=1.0) == action
    assert agent.act(np.array([3, 4]), action_mask=np.eye(6)[[2, 5]]).tolist() == [2, 5]
    for wrong in (np.ones(5), np.zeros(6)):
        with pytest.raises(UsageError, match="action_mask of shape"):
            agent.act(3, action_mask=wrong)


# Networks


def test_noise_is_new_in_each_pass_and_none_in_evaluation() -> None:
    torch.manual_seed(0)
    layer, x = NoisyLinear(50, 40), torch.randn(7, 50)
    layer.draws = Draws(torch.Generator().manual_seed(1))
    assert not torch.equal(layer(x), layer(x))
    plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with evaluating(layer):
        assert torch.equal(layer(x), plain)
    assert layer.training
    sizes = torch.cat([layer.weight_noise.flatten(), layer.bias_noise])
    assert torch.allclose(sizes, torch.tensor(0.5 / 50**0.5))
    assert layer.weight.abs().max() <= 1 / 50**0.5
    # One draw for the whole batch, factorised: outs_j (sum_i sigma x_i ins_i + sigma), f(e) = sign(e) sqrt|e|.
    same = layer(x[:1].expand(7, 50)) - plain[:1]
    assert torch.equal(same, same[:1].expand(7, 40))
    draws = torch.stack([layer(x) - plain for _ in range(4_000)]) / layer.bias_noise[0]  # [D, B, out]
    # E[f(e)^2] = E|e| = sqrt(2/pi), so the variance is sqrt(2/pi) (1 + sqrt(2/pi) |x|^2).
    c = (2 / np.pi) ** 0.5
    expected = c * (1 + c * x.square().sum(-1))
    assert draws.var(0).mean(-1).tolist() == pytest.approx(expected.tolist(), rel=0.1)
    assert draws.mean().item() == pytest.approx(0, abs=0.1)


def test_online_and_target_draw_noise_of_their_own_from_one_generator() -> None:
    parts = small(network={"noisy": True, "hidden": (8, 8)}, env={"id": "CartPole-v1"})
    learner, obs = parts.learner, torch.ones(1, 4)
    assert isinstance(learner, dqn.Learner)
    learner.synchronize()
    assert not torch.equal(learner.online(obs).z, learner.target(obs).z)
    assert not torch.equal(learner.q_values(obs), learner.q_values(obs))  # two acts in a row
    with evaluating(learner.online), evaluating(learner.target):
        assert torch.equal(learner.online(obs).z, learner.target(obs).z)
    assert learner.descent.draws.generator is not None
    before = learner.descent.draws.generator.get_state()
    learner.statistics()  # looking draws nothing
    assert torch.equal(before, learner.descent.draws.generator.get_state())
    parts.envs.close()


def test_dueling_is_value_plus_advantage_less_its_mean_number_by_number() -> None:
    torch.manual_seed(0)
    head, x = make_head(6, 8, 3, 5, dueling=True), torch.randn(4, 6)
    assert isinstance(head, Dueling)
    z, value = head(x), head.value(x)
    assert z.shape == (4, 3, 5)
    assert torch.allclose(z.mean(1), value, atol=1e-6)  # quantile k of the mean over actions is quantile k of V
    advantage = head.advantage(x).unflatten(-1, (3, 5))
    for b, a, k in itertools.product(range(4), range(3), range(5)):
        assert z[b, a, k].item() == pytest.approx((value[b, k] + advantage[b, a, k] - advantage[b, :, k].mean()).item())
    # Where an action only shifts the return, its quantiles keep the order and the spacing of V's.
    with torch.no_grad():
        first, last = head.value[-1], head.advantage[-1]
        assert isinstance(first, torch.nn.Linear)
        assert isinstance(last, torch.nn.Linear)
        first.weight.zero_()
        first.bias.copy_(torch.tensor([-2.0, 0.0, 0.5, 3.0, 4.0]))
        last.weight.copy_(last.weight.view(3, 5, 8)[:, :1].expand(3, 5, 8).flatten(0, 1))
        last.bias.copy_(last.bias.view(3, 5)[:, :1].expand(3, 5).flatten())
    gaps = head(x).diff(dim=-1)
    assert torch.allclose(gaps, torch.tensor([2.0, 0.5, 2.5, 1.0]).expand(4, 3, 4), atol=1e-5)


def test_a_dueling_network_has_the_papers_two_streams() -> None:
    torso, features = make_torso("nature", (4, 84, 84), ())
    net = QNetwork(torch.nn.Identity(), torso, make_head(features, 512, 6, 51, dueling=True))
    streams = 2 * (3_136 * 512 + 512) + 513 * 51 + 513 * 6 * 51
    assert sum(p.numel() for p in net.parameters()) == 77_984 + streams


def test_implicit_quantiles_are_drawn_for_each_observation_and_evenly_spaced_in_evaluation() -> None:
    torch.manual_seed(0)
    head = make_head(6, 8, 3, 4, implicit=True)
    assert isinstance(head, Implicit)
    x = torch.randn(5, 6)
    one, two = head(x), head(x)
    assert one.z.shape == (5, 3, 4)
    assert one.tau.shape == (5, 4)
    assert len(one.tau.unique()) == 20
    assert not torch.equal(one.tau, two.tau)
    with evaluating(head):
        assert torch.equal(head(x).z, head(x).z)
        assert head(x).tau.tolist() == [[0.125, 0.375, 0.625, 0.875]] * 5


def test_layers_are_normalised_before_their_relu() -> None:
    torso, _ = make_torso("mlp", (4,), (16,), layer_norm=True)
    assert [type(m).__name__ for m in torso.children()] == ["Flatten", "Linear", "LayerNorm", "ReLU"]
    head = make_head(16, 8, 2, 1, layer_norm=True).get_submodule("layers")
    assert [type(m).__name__ for m in head.children()] == ["Linear", "LayerNorm", "ReLU", "Widen", "Linear"]


# Prioritised replay


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_the_sum_tree_is_a_cumulative_sum(size: int, seed: int) -> None:
    rng, tree, naive = np.random.default_rng(seed), SumTree(size), np.zeros(size)
    for _ in range(5):
        index, value = rng.integers(size, size=20), rng.random(20) * rng.integers(2, size=20)
        tree.set(index, value)
        for i, v in zip(index, value, strict=True):
            naive[i] = v
        assert np.array_equal(tree.leaves[:size], naive)
        assert tree.total == pytest.approx(naive.sum(), rel=1e-12)
    if naive.sum() > 0:
        at = (rng.random(50) * 0.999 + 0.0005) * naive.sum()
        found = tree.find(tree.nodes, torch.from_numpy(at)).numpy()
        assert np.array_equal(found, np.searchsorted(naive.cumsum(), at, "right"))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["terminated", "truncated"])), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
)
def test_the_tree_holds_exactly_the_transitions_of_the_ring(
    script: list[tuple[int, str]], n: int, stack: int, lanes: int, bursts: list[int]
) -> None:
    envs = Scripted([script] * lanes)
    ring = Ring(envs.space, 16 * lanes, lanes, n_step=n, stack=stack)
    replay = Prioritized(ring, np.random.default_rng(0))
    play(envs, ring, 8)
    for burst in bursts:
        actor = play(envs, ring, burst)
        index, weight = replay.sample(16)
        rows = {t % ring.rows * lanes + e for t, e in itertools.product(ring.starts, range(lanes))}
        valid = {row for row in rows if not ring.storage.final[row]}
        assert set(np.flatnonzero(replay.tree.leaves)) == valid
        assert replay.count == len(valid)
        assert set(index.tolist()) <= valid
        assert replay.probability(np.array(sorted(valid))).sum() == pytest.approx(1)
        assert weight.max() == 1
        replay.reweigh(index, torch.rand(16) * 3)
    ring.cut(actor.obs)
    other = Prioritized(Ring(envs.space, 16 * lanes, lanes, n_step=n, stack=stack), np.random.default_rng(0))
    other.ring.put_rows(ring.known, ring.rows_of(ring.known))
    other.restore(*replay.state())
    other.rng.bit_generator.state = replay.rng.bit_generator.state
    for mine, theirs in zip(replay.sample(32), other.sample(32), strict=True):
        assert torch.equal(mine, theirs)


def test_what_is_new_has_the_largest_priority_and_what_is_wrong_is_sampled_more() -> None:
    envs = Scripted([[(50, "truncated")]])
    ring = Ring(envs.space, 100, 1)
    replay = Prioritized(ring, np.random.default_rng(0), exponent=0.5, beta=1.0)
    play(envs, ring, 20)
    index, _ = replay.sample(8)
    replay.reweigh(index, torch.full((8,), 9.0))
    assert replay.largest == 3.0
    play(envs, ring, 5)
    replay.sample(1)
    new = replay.tree.leaves[20:24]
    assert new.tolist() == [3.0] * 4
    replay.reweigh(torch.arange(24), torch.cat([torch.full((23,), 1e-8), torch.tensor([4.0])]))
    drawn = np.bincount(np.concatenate([replay.sample(24)[0].numpy() for _ in range(50)]), minlength=24)
    assert drawn.argmax() == 23
    assert (drawn[:23] > 0).any()  # never out of reach
    assert replay.largest == 3.0


def test_a_minibatch_says_nothing_of_the_next_one() -> None:
    """The arrays that sampling writes again and again are none of those that it returns."""
    envs = Scripted([[(5, "truncated")]])
    ring = Ring(envs.space, 100, 1)
    replay = Prioritized(ring, np.random.default_rng(0))
    play(envs, ring, 80)
    index, weight = replay.sample(16)
    replay.reweigh(index, torch.rand(16))
    index, weight = replay.sample(16)
    kept = index.clone(), weight.clone()
    for size in (16, 8, 16):
        assert [len(x) for x in replay.sample(size)] == [size, size]
    assert torch.equal(index, kept[0])
    assert torch.equal(weight, kept[1])


@pytest.mark.parametrize("more", [-1, 0, 1, 40])
def test_as_many_rows_enter_in_a_call_as_there_is_room_for_and_more_at_once(more: int) -> None:
    ring = Ring(Space((), np.dtype(np.float32), 2), 60, 2)
    replay = Prioritized(ring, np.random.default_rng(0))

    def append(count: int) -> None:
        rows = np.zeros((count, 2))
        done = np.arange(2 * count).reshape(count, 2) % 7 == 1
        replay.append(Steps(rows, rows.astype(np.int64), rows, done, done))

    append(35)  # the ring is full: as many rows leave as enter
    replay.sample(4)
    with patch.object(replay, "_enter_at_once", wraps=replay._enter_at_once) as at_once:
        append(replay._most // 2 + more)  # in two environments
        replay.sample(4)
    assert at_once.called == (more > 0)
    rows = {t % ring.rows * 2 + e for t, e in itertools.product(ring.starts, range(2))}
    valid = {row for row in rows if not ring.final[row]}
    assert set(np.flatnonzero(replay.tree.leaves)) == valid
    assert replay.count == len(valid)
    assert replay.tree.total == pytest.approx(len(valid))


def test_the_uniform_part_of_a_minibatch_is_drawn_of_all_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = Scripted([[(3, "truncated")]])
    ring = Ring(envs.space, 100, 1)
    replay = Prioritized(ring, np.random.default_rng(0), exponent=1.0)
    play(envs, ring, 80)
    index = replay.sample(1)[0]
    replay.reweigh(index, torch.tensor([1e9]))  # all but what is uniform falls here
    assert set(replay.sample(64)[0].tolist()) == {int(index)}
    monkeypatch.setattr("qlearn.prioritized.MIX", 0.5)
    drawn = replay.sample(1_000)[0]
    uniform = drawn != index
    assert 400 < int(uniform.sum()) < 600
    assert 150 < int(uniform[:500].sum()) < 350  # whichever part of the sum a draw is from
    assert len(set(drawn.tolist())) == replay.count
    assert (replay.tree.leaves[drawn.numpy()] > 0).all()


def test_a_hostile_priority_is_refused() -> None:
    envs = Scripted([[(5, "truncated")]])
    ring = Ring(envs.space, 30, 1)
    play(envs, ring, 20)
    arrays, state = Prioritized(ring, np.random.default_rng(0)).state()
    bad = ({**arrays, "priority": arrays["priority"] * np.nan}, state), (arrays, {**state, "largest": 0})
    for wrong in (*bad, ({**arrays, "priority": arrays["priority"][:3]}, state)):
        with pytest.raises(ValueError, match="priorities"):
            Prioritized(Ring(envs.space, 30, 1), np.random.default_rng(0)).restore(*wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weights_reach_every_loss(kind: str) -> None:
    parts = small(value={"kind": kind}, learner={"max_grad_norm": 0.0})
    assert parts.replay is not None
    assert isinstance(parts.learner, dqn.Learner)
    learner = parts.learner
    for _ in range(60):
        parts.replay.append(parts.actor.rollout(1.0)[0])
    index = parts.replay.sample(4)[0]
    learner.online.eval(), learner.target.eval()  # the same quantile levels each time
    learner.set_learning_rate(1e-30)

    def gradient(weight: list[float]) -> torch.Tensor:
        mean = learner.descent.memory["exp_avg"].zero_()
        learner.update(index, torch.tensor(weight))
        return mean / (1 - 0.9)

    each = [gradient([float(i == k) for i in range(4)]) for k in range(4)]
    weighted = gradient([0.5, 0.0, 2.0, 1.0])
    assert torch.allclose(weighted, 0.5 * each[0] + 2 * each[2] + each[3], rtol=1e-3, atol=1e-6)
    assert each[1].norm() > 0
    parts.envs.close()


def test_the_errors_that_become_priorities() -> None:
    loss = torch.tensor([0.04, 0.5, 3.5])
    z, y = torch.tensor([[0.0], [0.0]]), torch.tensor([[0.3], [-7.0]])
    for huber in (False, True):
        value = Scalar(huber)
        assert value.error(value.loss(z, None, y)).tolist() == pytest.approx([0.3, 7.0])
    for other in (Categorical(), Quantiles()):
        assert torch.equal(other.error(loss), loss)


def test_beta_goes_to_one_over_the_run_also_after_a_break() -> None:
    parts = small(replay={"prioritized": True, "beta": 0.4})
    assert isinstance(parts.replay, Prioritized)
    for tick in parts.train():
        assert parts.replay.beta(parts.replay.steps) == pytest.approx(min(1.0, 0.4 + 0.6 * tick.steps / 200))
    again = small(replay={"prioritized": True, "beta": 0.4, "beta_steps": 1_000})
    assert isinstance(again.replay, Prioritized)
    ring = parts.replay.ring
    again.replay.ring.put_rows(ring.known, ring.rows_of(ring.known))
    again.replay.restore(*parts.replay.state())
    assert again.replay.beta(again.replay.steps) == pytest.approx(0.4 + 0.6 * 200 / 1_000)
    for each in (parts, again):
        each.envs.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_exponent_of_priorities_goes_with_their_kind(kind: str) -> None:
    for asked, exponent in ({None: 0.6 if kind == "scalar" else 0.5, 0.9: 0.9}).items():
        parts = small(value={"kind": kind}, replay={"prioritized": True, "priority_exponent": asked})
        assert isinstance(parts.replay, Prioritized)
        assert parts.replay.exponent == exponent
        parts.envs.close()


# Exploration and optimisers


def test_the_ladder_is_ape_xs() -> None:
    rates = Ladder(0.4, 0.4**8, 5)(123)
    assert rates == pytest.approx([0.4 ** (1 + 7 * i / 4) for i in range(5)])
    parts = small(exploration={"kind": "ladder", "start": 0.4, "end": 0.4**8}, env={"num_envs": 5})
    ticks = list(parts.train())
    assert ticks[0].epsilon == 1.0  # the warm-up
    assert ticks[-1].epsilon == pytest.approx(rates)
    parts.envs.close()
    rng = np.random.default_rng(0)
    explored = np.mean([epsilon_greedy(lambda: np.full(5, -1), rates, 5, 9, rng) >= 0 for _ in range(3_000)], 0)
    assert explored == pytest.approx(rates, abs=0.03)


def test_greedy_has_no_epsilon_where_it_is_constant_zero() -> None:
    config = presets.get("rainbow", "CartPole-v1")
    assert (config.exploration.kind, config.exploration.end, config.network.noisy) == ("constant", 0.0, True)
    assert presets.get("noisy").exploration.end == 0.0


# Mixes that cannot be


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backup": {"double": True, "munchausen": True}}, "a soft policy has no best action to choose twice"),
        ({"value": {"kind": "c51", "v_min": 5.0, "v_max": 5.0}}, "the atoms must lie from low to high"),
        ({"network": {"torso": "custom", "noisy": True}}, "build them into yours"),
        ({"network": {"torso": "custom"}, "value": {"kind": "iqn"}}, "needs a network that is asked for quantiles"),
        ({"exploration": {"kind": "ladder", "end": 0.0}}, "must be more than 0 for a ladder"),
        ({"exploration": {"kind": "ladder"}}, "a ladder has a rung for each environment"),
        ({"algorithm": "tabular", "network": {"noisy": True}}, "of networks, and a table is none"),
        ({"algorithm": "pqn", "value": {"kind": "c51"}}, "value.kind is c51, but pqn learns means"),
        ({"algorithm": "pqn", "backup": {"double": True}}, "pqn has none"),
        ({"algorithm": "pqn", "replay": {"prioritized": True}}, "needs a replay memory, and pqn has none"),
        ({"algorithm": "pqn", "replay": {"n_step": 3}}, "pqn has no replay memory to look ahead in.*--preset pqn"),
        ({"algorithm": "pqn", "pqn": {"minibatches": 33}}, "minibatches is 33, more than the 32 steps of a rollout"),
        ({"algorithm": "tabular", "env": {"frame_stack": 2}}, "a table has no frames"),
        ({"algorithm": "tabular", "runtime": {"device": "cuda"}}, "a table is on the CPU"),
        ({"algorithm": "tabular", "optimizer": {"learning_rate": 1.5}}, "learning_rate is 1.5; for a table"),
    ],
)
def test_a_mix_that_cannot_be_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check(override(Config(), changes))


def test_your_own_network_may_be_one_of_a_distribution(tmp_path: Path) -> None:
    def make(shape: tuple[int, ...], actions: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(shape[0], actions * 11), torch.nn.Unflatten(1, (actions, 11)))

    quick: dict[str, Any] = {"steps": 300, "progress": False, "replay": {"warmup_steps": 100}}
    for kind in ("c51", "qr"):
        value = {"kind": kind, "atoms": 11, "quantiles": 11, "v_min": 0.0, "v_max": 100.0}
        run = qlearn.train("CartPole-v1", network=make, run_dir=tmp_path / kind, value=value, **quick)
        assert qlearn.load(run.path, network=make).q_values(np.zeros(4)).shape == (2,)
    with pytest.raises(UsageError, match=r"returned \(2, 2, 11\).*\(2, 2, 51\), the last axis the numbers"):
        qlearn.train("CartPole-v1", network=make, run_dir=tmp_path / "w", value={"kind": "c51"}, **quick)


# Presets


def test_rainbow_is_a_few_lines_from_dqn() -> None:
    assert presets.diff(presets.get("dqn"), presets.get("rainbow")).keys() == {
        "network.dueling", "network.noisy", "value.kind", "backup.double", "replay.prioritized", "exploration.kind",
        "exploration.end",
    }  # fmt: skip
    for name, preset in presets.PRESETS.items():
        if preset.base is not None:
            assert len(presets.diff(presets.get("dqn"), presets.get(name))) <= 7, name


ATARI = "ALE/Pong-v5"
PAPER: dict[str, tuple[Any, ...]] = {  # algorithms, table by table; periods in agent steps
    #          optimiser  rate     epsilon         norm  end   decay      target  warmup  double dueling noisy
    "dqn":     ("adam", 6.25e-5, 1.5e-4, 0, 0.01, 250_000, 8_000, 20_000, False, False, False),
    "nature":  ("rmsprop", 2.5e-4, 0.01 / 1024, 0, 0.1, 1_000_000, 10_000, 50_000, False, False, False),
    "double":  ("rmsprop", 2.5e-4, 0.01 / 1024, 0, 0.01, 1_000_000, 30_000, 50_000, True, False, False),
    "dueling": ("rmsprop", 2.5e-4, 0.01 / 1024, 10, 0.01, 1_000_000, 30_000, 50_000, True, True, False),
    "per":     ("rmsprop", 6.25e-5, 0.01 / 16384, 0, 0.01, 1_000_000, 30_000, 50_000, True, False, False),
    "c51":     ("adam", 2.5e-4, 0.01 / 32, 10, 0.01, 1_000_000, 10_000, 50_000, False, False, False),
    "qr":      ("adam", 5e-5, 0.01 / 32, 10, 0.01, 1_000_000, 10_000, 50_000, False, False, False),
    "iqn":     ("adam", 5e-5, 0.01 / 32, 0, 0.01, 1_000_000, 10_000, 20_000, False, False, False),
    "rainbow": ("adam", 6.25e-5, 0.005 / 32, 10, 0.0, None, 8_000, 20_000, True, True, True),
    "m-dqn":   ("adam", 5e-5, 0.01 / 32, 0, 0.01, 250_000, 8_000, 20_000, False, False, False),
    "m-iqn":   ("adam", 5e-5, 0.01 / 32, 0, 0.01, 250_000, 8_000, 20_000, False, False, False),
    "noisy":   ("rmsprop", 2.5e-4, 0.01 / 1024, 0, 0.0, None, 10_000, 50_000, False, False, True),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_settings_for_atari_are_the_published_ones(name: str) -> None:
    config = check(presets.get(name, ATARI))
    optimizer, learner, explore = config.optimizer, config.learner, config.exploration
    kind, rate, epsilon, norm, end, decay, target, warmup, *switches = PAPER[name]
    assert (optimizer.name, optimizer.learning_rate) == (kind, rate)
    assert optimizer.epsilon == pytest.approx(epsilon)
    assert optimizer.end_learning_rate is None
    assert (learner.max_grad_norm, learner.target_update_steps) == (norm, target)
    assert (learner.batch_size, learner.replay_ratio) == (32, 0.25)
    assert explore.end == end
    assert decay is None or (explore.start, explore.decay_steps) == (1.0, decay)
    replay = config.replay
    assert (replay.capacity, replay.warmup_steps, replay.gamma) == (1_000_000, warmup, 0.99)
    assert replay.n_step == (3 if name == "rainbow" else 1)
    assert [config.backup.double, config.network.dueling, config.network.noisy] == switches
    assert (config.env.frame_stack, config.network.torso, config.network.hidden) == (4, "auto", (512,))
    assert config.env.protocol == ("sticky" if name in ("dqn", "m-dqn", "m-iqn") else "nature")
    assert replay.clip_rewards


def test_pqns_settings_are_purejaxqls() -> None:
    for env_id, rate, end, steps, decay, final in (
        (ATARI, 2.5e-4, None, 50_000_000, 5_000_000, 0.001),
        ("MinAtar/Breakout-v1", 5e-4, 0.0, 10_000_000, 1_000_000, 0.05),
    ):
        config = check(presets.get("pqn", env_id))
        assert (config.env.num_envs, config.pqn.rollout_steps, config.pqn.epochs, config.pqn.minibatches) == (
            128,
            32,
            2,
            32,
        )
        assert (config.pqn.trace, config.replay.gamma, config.steps) == (0.65, 0.99, steps)
        assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.end_learning_rate) == (
            "radam",
            rate,
            end,
        )
        assert (config.exploration.start, config.exploration.end, config.exploration.decay_steps) == (1.0, final, decay)
        assert (config.learner.loss, config.learner.max_grad_norm) == ("squared", 20.0)  # its loss and limit are halves
        assert config.network.layer_norm


def test_minatars_settings_are_its_papers() -> None:
    for name in ("dqn", "double", "iqn", "m-iqn", "c51"):
        config = check(presets.get(name, "MinAtar/Breakout-v0"))
        assert (config.learner.batch_size, config.learner.replay_ratio, config.learner.target_update_steps) == (
            32,
            1,
            1_000,
        )
        assert (config.replay.capacity, config.replay.warmup_steps, config.replay.n_step) == (100_000, 5_000, 1)
        assert (config.exploration.end, config.exploration.decay_steps) == (0.1, 100_000)
        assert (config.network.torso, config.network.hidden) == ("minatar", (128,))
        assert (config.value.v_min, config.value.v_max) == (-100.0, 100.0)


def test_atoms_reach_where_returns_do_whichever_preset_asks() -> None:
    for env_id, ends in {"CartPole-v1": (0, 100), "Acrobot-v1": (-100, 0), "LunarLander-v3": (-300, 300)}.items():
        for name in ("dqn", "c51", "rainbow"):
            value = presets.get(name, env_id).value
            assert (value.v_min, value.v_max) == ends


def test_what_else_the_published_agents_have() -> None:
    atari = {name: presets.get(name, ATARI) for name in presets.PRESETS}
    assert [atari[n].value.quantiles for n in ("qr", "iqn", "m-iqn")] == [201, 64, 64]
    for name in ("c51", "rainbow"):
        value = atari[name].value
        assert (value.kind, value.atoms, value.v_min, value.v_max) == ("c51", 51, -10.0, 10.0)
    assert atari["rainbow"].network.noise == 0.1
    for name, exponent in {"per": 0.6, "rainbow": 0.5}.items():
        replay = atari[name].replay
        assert (replay.prioritized, replay.beta, replay.beta_steps) == (True, 0.4, None)
        assert build_value(atari[name]).exponent == exponent
    for name in ("m-dqn", "m-iqn"):
        backup = atari[name].backup
        assert (backup.munchausen, backup.alpha, backup.temperature, backup.clip) == (True, 0.9, 0.03, -1.0)
    assert atari["nstep"].replay.n_step == 3
    assert atari["dqn"].learner.loss == "squared"
    assert {atari[n].learner.loss for n in ("double", "per", "dueling")} == {"huber"}


@pytest.mark.parametrize("name", ["rainbow", "m-iqn", "noisy", "pqn", "tabular"])
def test_a_run_of_any_kind_is_saved_and_goes_on(name: str, tmp_path: Path) -> None:
    env_id = "FrozenLake-v1" if name == "tabular" else "tests.scripted:Doors-v0"
    config = override(presets.get(name, env_id), {**SMALL, "env": {"id": env_id, "num_envs": 2}, "steps": 150})
    config = override(config, {"pqn": {"rollout_steps": 8, "minibatches": 2}, "runtime": {"log_steps": 40}})
    runs.start(check(config), run_dir=tmp_path / "r")
    assert set(metrics_of(tmp_path / "r", "train")[-1]) >= {"epsilon", "td_error", "q_max"}
    saved = checkpoint.newest(tmp_path / "r" / "checkpoints")
    parts, again = build(config), build(config)
    for each in (parts, again):
        saved.restore(each)
    mine, theirs = parts.learner.tensors(), again.learner.tensors()
    stored = load(saved.content("networks.safetensors"))
    assert stored.keys() == mine["networks"].keys()
    for group, tensors in mine.items():
        assert tensors.keys() == theirs[group].keys()
        assert all(torch.equal(theirs[group][key], tensors[key]) for key in tensors), group
    assert all(torch.equal(stored[key], tensor) for key, tensor in mine["networks"].items())
    if isinstance(parts.replay, Prioritized):
        assert isinstance(again.replay, Prioritized)
        assert parts.replay.tree.total > 0
        assert np.array_equal(parts.replay.tree.leaves, again.replay.tree.leaves)
    longer = runs.resume(tmp_path / "r", steps=260)
    assert longer.summary["steps"] >= 260
    agent = runs.load(tmp_path / "r")
    assert np.array_equal(agent.q_values(3), agent.q_values(3))
    result = qlearn.evaluate(tmp_path / "r", episodes=2)
    assert "no noise" in result.protocol["network"]
    parts.envs.close()
    again.envs.close()


def metrics_of(run: Path, kind: str) -> list[dict[str, Any]]:
    return list(metrics.read(run, kind))


def test_a_table_is_drawn_at_the_end_of_its_run(tmp_path: Path) -> None:
    run = qlearn.train("FrozenLake-v1", preset="tabular", steps=800, progress=False, run_dir=tmp_path / "r")
    assert (run.path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert run.agent.q_values(0).shape == (4,)
    last = metrics_of(run.path, "train")
    assert not last or last[-1]["states_visited"] > 1
    with pytest.raises(UsageError, match="a table has a row for each one"):
        qlearn.train("CartPole-v1", preset="tabular", progress=False, run_dir=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_minatars_torso_is_its_papers() -> None:
    torso, features = make_torso("minatar", (4, 10, 10), ())
    assert features == 1_024
    assert sum(p.numel() for p in torso.parameters()) == 16 * 4 * 9 + 16
    assert torso(torch.zeros(2, 4, 10, 10)).shape == (2, 1_024)
    with pytest.raises(UsageError, match=r"network\.torso minatar needs an image"):
        make_torso("minatar", (4,), ())


def test_iqn_needs_features_to_multiply() -> None:
    with pytest.raises(UsageError, match="without convolutions it needs two layers"):
        small(value={"kind": "iqn"}, network={"hidden": (8,)})


def test_a_network_of_your_own_takes_the_place_of_a_presets(tmp_path: Path) -> None:
    def make(shape: tuple[int, ...], actions: int) -> torch.nn.Module:
        return torch.nn.Linear(shape[0], actions)

    run = qlearn.train("CartPole-v1", preset="pqn", network=make, steps=300, progress=False, run_dir=tmp_path / "r")
    assert sum(p.numel() for p in run.agent.network.parameters()) == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backup", BACKUPS, ids=lambda b: "+".join(b) or "greedy")
def test_nan_is_named_whatever_the_value(kind: str, backup: dict[str, bool]) -> None:
    parts = small(value={"kind": kind}, backup=backup)
    assert isinstance(parts.learner, dqn.Learner)
    assert parts.replay is not None
    for _ in range(60):
        parts.replay.append(parts.actor.rollout(1.0)[0])
    with torch.no_grad():
        next(parts.learner.target.parameters()).fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="the target network's parameter"):
        parts.learner.update(*parts.replay.sample(8))
    parts.envs.close()


def test_rounding_does_not_let_rmsprop_divide_by_nothing() -> None:
    """A gradient that hardly changes: the mean of its square less the square of its mean is less than 0 by rounding."""
    torch.manual_seed(0)
    optimizer, theta = CenteredRMSProp(1e-4, epsilon=0.01 / 32**2 / 16), torch.zeros(1_000)
    memory: tuple[torch.Tensor, ...] = (torch.zeros(1_000), torch.zeros(1_000))
    for _ in range(400):
        theta, memory = optimizer.descend(theta, 1 + 1e-4 * torch.randn(1_000), memory, (torch.tensor(1e-4),))
    assert theta.isfinite().all()


def test_atoms_that_do_not_reach_the_returns_are_told_once(tmp_path: Path) -> None:
    quick: dict[str, Any] = {**SMALL, "env": {}, "steps": 400, "runtime": {"log_steps": 50}, "progress": False}
    narrow = {**quick, "value": {"kind": "c51", "v_min": -1.0, "v_max": 1.0}}
    with pytest.warns(UserWarning, match="outside -1 to 1, and is cut off there; widen value.v_min") as told:
        run = qlearn.train("CartPole-v1", run_dir=tmp_path / "n", **narrow)
    assert len(told) == 1
    assert metrics_of(run.path, "train")[-1]["outside_support"] > 0.5
    wide = {**quick, "value": {"kind": "c51", "v_min": 0.0, "v_max": 100.0}}
    run = qlearn.train("CartPole-v1", run_dir=tmp_path / "w", **wide)  # a warning would be an error
    assert metrics_of(run.path, "train")[-1]["outside_support"] < 0.05


def test_the_part_outside_the_support_is_what_is_clipped() -> None:
    value = Categorical(0.0, 10.0, 11)
    z = torch.full((1, 11), 1 / 11)
    for reward, discount, outside in ((0.0, 1.0, 0), (2.0, 1.0, 2), (-3.5, 1.0, 4), (1.0, 0.9, 0), (20.0, 0.0, 11)):
        found = value.diagnose(z, torch.tensor([reward]), torch.tensor([discount]))
        assert found["outside_support"] == pytest.approx(outside / 11)
