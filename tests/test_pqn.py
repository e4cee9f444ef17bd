"""PQN against its own equations, its loop against its own description."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from qlearn import pqn
from qlearn.actor import Actor
from qlearn.engine import RAdam
from qlearn.errors import NotFiniteError
from qlearn.exploration import Linear
from qlearn.pqn import Learner, lambda_returns, train
from qlearn.types import Array, Dist, Space, Steps, Tick
from qlearn.values import Scalar
from tests.scripted import Scripted


class Mlp(nn.Module):
    """Observations `[B, 3]` (any further axes are flattened) to Q of 7 actions, normalised."""

    def __init__(self, inputs: int = 3, actions: int = 7) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, actions)
        )
        self.seen: list[Tensor] = []

    def forward(self, obs: Tensor) -> Dist:
        self.seen.append(obs.clone())
        return Dist(self.layers(obs)[..., None])


@dataclass(frozen=True)
class Straight:
    """Plain gradient descent."""

    learning_rate: float
    memory: tuple[str, ...] = ()

    def numbers(self, step: int, learning_rate: float) -> tuple[float, ...]:
        return (learning_rate,)

    def descend(
        self, vector: Tensor, gradient: Tensor, memory: tuple[Tensor, ...], numbers: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return vector - numbers[0] * gradient, memory


def parts(envs: Scripted, *, stack: int = 1, learning_rate: float = 1e-3, **settings: float) -> tuple[Learner, Actor]:
    torch.manual_seed(0)
    chosen = {"gamma": 0.9, "trace": 0.7, "epochs": 2, "minibatches": 4, **settings}
    learner = Learner(
        Mlp(3 * stack),
        Scalar(),
        RAdam(learning_rate),
        rng=np.random.default_rng(0),
        **chosen,  # type: ignore[arg-type]
    )
    return learner, Actor(envs, learner.q_values, np.random.default_rng(1), stack=stack)


def watched(learner: Learner) -> list[tuple[Tensor, Tensor]]:
    """The observations and targets of every minibatch from now on, without what weighs nothing."""
    seen, step = [], learner.descent.step

    def watch(weight: Tensor, *inputs: Tensor, suspects: Any) -> Tensor:
        assert weight.mean().item() == pytest.approx(1)
        seen.append((inputs[0][weight > 0], inputs[2][weight > 0]))
        return step(weight, *inputs, suspects=suspects)

    learner.descent.step = watch  # type: ignore[method-assign]
    return seen


# ---------------------------------------------------------------------------------------------- the returns


def oracle(t: int, reward: Array, terminated: Array, done: Array, value: Array, *, gamma: float, trace: float) -> float:
    """G of row t of one environment, written as the equation is; `value[t]` is max_a Q(s_{t+1}, a)."""
    if terminated[t]:
        return float(reward[t])
    if done[t] or t == len(reward) - 1:
        return float(reward[t] + gamma * value[t])
    after = oracle(t + 1, reward, terminated, done, value, gamma=gamma, trace=trace)
    return float(reward[t] + gamma * (trace * after + (1 - trace) * value[t]))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    st.sampled_from([0.0, 0.9, 1.0]),
)
def test_the_returns_are_those_of_the_equation(seed: int, t: int, e: int, trace: float, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    done = rng.random((t, e)) < 0.3
    terminated = np.where(done, rng.random((t, e)) < 0.5, rng.random((t, e)) < 0.1)  # a life lost: it goes on
    final = np.vstack([np.zeros((1, e), bool), done[:-1]])
    done, terminated = done & ~final, terminated & ~final
    reward, value = rng.normal(size=(t, e)) * ~final, rng.normal(size=(t, e))
    returns = lambda_returns(*map(torch.from_numpy, (reward, terminated, done, value)), gamma=gamma, trace=trace)
    for row in range(t):
        for env in range(e):
            column = (x[:, env] for x in (reward, terminated, done, value))
            assert returns[row, env].item() == pytest.approx(oracle(row, *column, gamma=gamma, trace=trace))


def columns(*rows: tuple[float, bool, bool, float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([[row[k]] for row in rows]) for k in range(4))


EPISODES = columns(
    (1.0, False, False, 5.0),
    (2.0, False, True, 7.0),  # cut: its final observation, the next row, is worth 7
    (0.0, False, False, 100.0),  # that row: nothing of it or behind it comes back
    (3.0, False, False, 9.0),
    (4.0, True, True, 1000.0),  # terminated
    (0.0, False, False, 1000.0),
    (5.0, False, False, 11.0),
    (6.0, False, False, 13.0),  # the rollout ends here, the episode does not
)
STEPS = [0, 1, 3, 4, 6, 7]


def test_lambda_0_is_q_learning() -> None:
    assert lambda_returns(*EPISODES, gamma=0.5, trace=0.0)[STEPS, 0].tolist() == [3.5, 5.5, 7.5, 4.0, 10.5, 12.5]


def test_lambda_1_is_the_sum_of_rewards_with_a_bootstrap_where_the_episode_did_not_terminate() -> None:
    assert lambda_returns(*EPISODES, gamma=0.5, trace=1.0)[STEPS, 0].tolist() == [
        1 + 0.5 * 2 + 0.25 * 7,
        2 + 0.5 * 7,
        3 + 0.5 * 4,
        4.0,
        5 + 0.5 * 6 + 0.25 * 13,
        6 + 0.5 * 13,
    ]


def test_what_follows_a_termination_may_be_anything() -> None:
    wrong = columns((1.0, False, False, 2.0), (1.0, True, True, -torch.inf), (0.0, False, False, torch.nan))
    assert lambda_returns(*wrong, gamma=0.5, trace=1.0)[:2, 0].tolist() == [1.5, 1.0]


# ---------------------------------------------------------------------------------------------- a rollout


def rollout(envs: Scripted, actor: Actor, rows: int) -> tuple[Steps, Array]:
    """Rows of random play, and which of them only hold a final observation."""
    made = []
    for _ in range(rows):
        final = np.array(envs.ended)
        made.append(pqn.Row(actor.rollout(1.0)[0], final))
    return pqn.joined(made)


def test_the_targets_are_the_returns_with_the_values_of_the_next_rows() -> None:
    envs = Scripted([[(3, "truncated"), (4, "terminated")], [(5, "terminated")]])
    learner, actor = parts(envs)
    rows, _ = rollout(envs, actor, 10)
    targets = learner.returns(rows, actor.obs, None)
    following = np.concatenate([rows.obs[1:], actor.obs[None]])
    value = learner.q_values(torch.from_numpy(following).flatten(0, 1)).max(-1).values.view(10, 2)
    for env in range(2):
        column = (x[:, env] for x in (rows.reward, rows.terminated, rows.done, value.double().numpy()))
        arrays = tuple(column)
        for t in range(10):
            assert targets[t, env].item() == pytest.approx(oracle(t, *arrays, gamma=0.9, trace=0.7), rel=1e-5)


def test_the_targets_are_those_of_acting_time_in_every_minibatch() -> None:
    envs = Scripted([[(4, "terminated")]] * 3)
    learner, actor = parts(envs, learning_rate=0.1, epochs=3)
    rows, final = rollout(envs, actor, 8)
    before = learner.returns(rows, actor.obs, None)
    trained: dict[tuple[float, ...], set[float]] = {}

    seen = watched(learner)
    assert learner.update(rows, final, actor.obs, None) == 3 * 4
    for minibatch, targets in seen:
        for obs, target in zip(minibatch.tolist(), targets.tolist(), strict=True):
            trained.setdefault(tuple(obs), set()).add(target)
    expected = {
        tuple(rows.obs[t, e].tolist()): {before[t, e].item()} for t in range(8) for e in range(3) if not final[t, e]
    }
    assert trained == expected
    assert not torch.allclose(before, learner.returns(rows, actor.obs, None), rtol=0.05)  # so it makes a difference


def test_every_step_is_learned_from_once_an_epoch_and_final_observations_never() -> None:
    envs = Scripted([[(2, "terminated"), (3, "truncated")], [(1, "truncated")]])
    learner, actor = parts(envs, epochs=3, minibatches=5)
    rows, final = rollout(envs, actor, 9)
    assert final.sum() == 6
    targets = learner.returns(rows, actor.obs, None)
    learner.returns = lambda *_: targets  # type: ignore[method-assign]
    seen = watched(learner)
    assert learner.update(rows, final, actor.obs, None) == 15
    sizes = [len(obs) for obs, _ in seen]
    assert len(sizes) == 15
    assert set(sizes) == {2, 3}  # 12 steps in 5 parts
    steps = sorted(rows.obs[~final].tolist())
    orders = [torch.cat([obs for obs, _ in seen[k : k + 5]]).tolist() for k in (0, 5, 10)]
    assert all(sorted(order) == steps for order in orders)
    assert orders[0] != orders[1] != orders[2]  # dealt out anew
    rows.reward[final], targets[torch.from_numpy(final)] = np.nan, torch.nan  # or it would say so
    learner.update(rows, final, actor.obs, None)


def test_one_gradient_step_on_a_table_is_the_equation() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Parameter(torch.arange(6.0).view(3, 2))

        def forward(self, obs: Tensor) -> Dist:
            return Dist((nn.functional.one_hot(obs, 3).float() @ self.q)[..., None])

    learner = Learner(
        Table(),
        Scalar(),
        Straight(0.1),
        gamma=0.5,
        trace=0.0,
        epochs=1,
        minibatches=1,
        max_grad_norm=0.0,
        rng=np.random.default_rng(0),
    )
    no = np.zeros((2, 1), bool)
    rows = Steps(np.array([[0], [1]]), np.array([[1], [0]]), np.array([[1.0], [2.0]]), no, no)
    assert learner.update(rows, no, np.array([2]), None) == 1
    # G = 1 + 0.5 max(2, 3) = 2.5 for Q(0, 1) = 1, and 2 + 0.5 max(4, 5) = 4.5 for Q(1, 0) = 2
    step = 0.1 * 2 / 2  # of the mean of two squares
    expected = [[0, 1 + step * 1.5], [2 + step * 2.5, 3], [4, 5]]
    q = learner.q_values(torch.arange(3)).tolist()
    assert q == [pytest.approx(row) for row in expected]


def test_the_maximum_is_over_the_actions_allowed() -> None:
    envs = Scripted([[(50, "terminated")]])
    learner, actor = parts(envs)
    rows, final = rollout(envs, actor, 3)
    following = torch.from_numpy(np.concatenate([rows.obs[1:, 0], actor.obs]))
    q = learner.q_values(following)
    mask = torch.ones(4, 1, 7, dtype=torch.bool)
    mask[1:, 0].scatter_(1, q.argmax(-1, keepdim=True), False)  # the best at each next observation is forbidden
    masked = Steps(rows.obs, rows.action, rows.reward, rows.terminated, rows.done, mask[:3].numpy())
    returns = learner.returns(masked, actor.obs, mask[3].numpy())[:, 0].tolist()
    second = q.topk(2).values[:, 1].double().numpy()
    columns = rows.reward[:, 0], rows.terminated[:, 0], rows.done[:, 0], second
    assert returns == [pytest.approx(oracle(t, *columns, gamma=0.9, trace=0.7), rel=1e-5) for t in range(3)]
    learner.update(masked, final, actor.obs, mask[3].numpy())
    batch = learner._batch
    assert batch is not None
    assert batch.mask is not None
    allowed = learner.q_values(batch.obs).masked_fill(~batch.mask, -torch.inf)
    assert learner.statistics()["q_max"] == pytest.approx(allowed.max().item())


# ---------------------------------------------------------------------------------------------- the loop


@pytest.mark.parametrize("num_envs", [1, 3])
def test_the_loop_counts_steps_updates_and_ticks(num_envs: int) -> None:
    envs = Scripted([[(4, "terminated"), (7, "truncated")]] * num_envs)
    learner, actor = parts(envs)
    ticks = list(train(actor, learner, epsilon=Linear(0.5, 0.1, 50), total_steps=200, rollout_steps=8))
    rows, steps = 0, 0
    for rows, tick in enumerate(ticks, 1):
        assert tick.updates == rows // 8 * 2 * 4  # every 8 rows, 2 epochs of 4 minibatches
        assert tick.epsilon == pytest.approx(max(0.1, 0.5 - 0.4 * steps / 50))
        steps = tick.steps
    assert steps == len(envs.log)  # rows with a final observation are no steps
    assert steps < rows * num_envs
    assert 200 <= steps < 200 + num_envs
    assert sum(len(tick.episodes) for tick in ticks) == sum(
        at[0] + ended for at, ended in zip(envs.at, envs.ended, strict=True)
    )


def test_the_loop_hands_over_what_was_seen_and_done(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = Scripted([[(3, "terminated"), (2, "truncated")], [(4, "truncated")]])
    learner, actor = parts(envs, stack=2)
    given: list[tuple[Steps, Array, Array]] = []

    def update(rows: Steps, final: Array, last_obs: Array, last_mask: Array | None) -> int:
        assert last_mask is None
        given.append((rows, final, last_obs.copy()))
        return 0

    monkeypatch.setattr(learner, "update", update)
    for _ in train(actor, learner, epsilon=Linear(1, 1), total_steps=30, rollout_steps=5):
        pass
    assert len(given) >= 3
    stream = np.concatenate([rows.obs for rows, _, _ in given])
    action = np.concatenate([rows.action for rows, _, _ in given])
    final = np.concatenate([f for _, f, _ in given])
    done = np.concatenate([rows.done for rows, _, _ in given])
    assert np.array_equal(final[1:], done[:-1])
    taken = {(e, *stream[t, e, 1, 1:], action[t, e]) for t, e in np.argwhere(~final)}
    assert taken == {entry for entry in envs.log if (entry[0], *entry[1:3]) in {k[:3] for k in taken}}
    for t, e in np.argwhere(stream[:, :, 1, 2] >= 0):  # each observation with the one before it, or zeros
        before = stream[t - 1, e, 1] if stream[t, e, 1, 2] > 0 else np.zeros(3)
        assert t == 0 or np.array_equal(stream[t, e, 0], before)
    for k in range(len(given) - 1):
        assert np.array_equal(given[k][2], given[k + 1][0].obs[0])  # the last observation is the next rollout's first


def test_a_run_can_continue_after_a_tick() -> None:
    envs = Scripted([[(4, "terminated")]] * 2)
    learner, actor = parts(envs)
    *others, half = train(actor, learner, epsilon=Linear(), total_steps=50, rollout_steps=8)
    rest = list(train(actor, learner, epsilon=Linear(), total_steps=100, rollout_steps=8, after=half))
    assert rest[-1].steps in (100, 101)
    assert rest[-1].steps == len(envs.log)
    assert half.updates == (len(others) + 1) // 8 * 8
    assert rest[-1].updates == (len(others) + 1 + len(rest)) // 8 * 8  # also of the rollout that was begun
    assert list(train(actor, learner, epsilon=Linear(), total_steps=100, after=rest[-1])) == []


def test_what_a_checkpoint_keeps_is_all_that_the_learner_is() -> None:
    envs = Scripted([[(4, "terminated")]] * 2)
    learner, actor = parts(envs)
    rows, final = rollout(envs, actor, 8)
    learner.update(rows, final, actor.obs, None)
    other, _ = parts(envs)
    other.restore({file: load(save(tensors)) for file, tensors in learner.tensors().items()})
    other.rng.bit_generator.state = learner.rng.bit_generator.state
    for each in (learner, other):
        each.update(rows, final, actor.obs, None)
    mine, theirs = learner.tensors(), other.tensors()
    assert {*(f"online.{name}" for name in learner.online.state_dict()), "generator"} == set(mine["networks"])
    for file in ("networks", "optimizer"):
        assert mine[file].keys() == theirs[file].keys()
        assert mine[file]
        assert all(torch.equal(tensor, theirs[file][name]) for name, tensor in mine[file].items())


@pytest.mark.parametrize(
    ("poison", "named"),
    [
        ("parameter", "the network's parameter layers.1.weight"),
        ("observation", "the rollout's obs"),
        ("reward", "the rollout's return G"),
        ("huge", "the loss"),
    ],
)
def test_nan_is_named_and_spares_the_weights(poison: str, named: str) -> None:
    envs = Scripted([[(4, "terminated")]] * 2)
    learner, actor = parts(envs)
    rows, final = rollout(envs, actor, 8)
    if poison == "parameter":
        with torch.no_grad():
            learner.online.get_parameter("layers.1.weight")[0, 0] = torch.nan
    elif poison == "observation":
        rows.obs[:] = np.nan
    elif poison == "reward":
        rows.reward[:] = np.nan
    else:
        rows.reward[:] = 1e30
    before = learner.online.get_parameter("layers.4.weight").clone()
    with pytest.raises(NotFiniteError, match=re.escape(named)):
        learner.update(rows, final, actor.obs, None)
    assert torch.equal(before, learner.online.get_parameter("layers.4.weight"))
    assert not any(vector.any() for vector in learner.descent.memory.values())


def test_statistics_are_of_the_last_minibatch() -> None:
    envs = Scripted([[(4, "terminated")]] * 2)
    learner, actor = parts(envs)
    assert learner.statistics() == {}
    rows, final = rollout(envs, actor, 8)
    learner.update(rows, final, actor.obs, None)
    batch = learner._batch
    assert batch is not None
    assert len(batch.obs) in (3, 4)
    q = learner.q_values(batch.obs)
    statistics = learner.statistics()
    assert statistics["q_max"] == pytest.approx(q.max().item())
    assert statistics["q_mean"] == pytest.approx(q.max(-1).values.mean().item())
    error = (batch.target - q.gather(1, batch.action[:, None])[:, 0]).abs().mean().item()
    assert statistics["td_error"] == pytest.approx(error, rel=1e-5)
    assert (statistics["loss"], statistics["grad_norm"]) == (
        learner.descent.gradient.loss,
        learner.descent.gradient.norm,
    )


def test_the_gradient_and_the_learning_rate_are_as_told() -> None:
    envs = Scripted([[(4, "terminated")]] * 2)
    learner, actor = parts(envs, max_grad_norm=0.5, epochs=1, minibatches=1)
    rows, final = rollout(envs, actor, 8)
    learner.set_learning_rate(0.0)
    before = learner.q_values(torch.ones(1, 3))
    learner.update(rows, final, actor.obs, None)
    assert torch.equal(before, learner.q_values(torch.ones(1, 3)))
    assert learner.descent.gradient.norm > 0.5
    flat = learner.descent.memory["exp_avg"]
    assert (flat.norm() / (1 - 0.9)).item() == pytest.approx(0.5, rel=1e-5)


# ---------------------------------------------------------------------------------------------- it learns


class Rounds:
    """Five cells in a row; right of the last one is the first, and the way there pays 1. Cut after 20 steps."""

    mask: Array | None = None
    lost: Array | None = None

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.space = Space((5,), np.dtype(np.float32), 2)
        self.cell, self.time = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)

    def reset(self) -> Array:
        return self._obs()

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        ended = self.time == 20
        reward = (~ended & (self.cell == 4) & (action == 1)).astype(np.float64)
        moved = np.where(action == 1, (self.cell + 1) % 5, np.maximum(self.cell - 1, 0))
        self.cell, self.time = np.where(ended, 0, moved), np.where(ended, 0, self.time + 1)
        done = self.time == 20
        return self._obs(), reward, np.zeros(self.num_envs, bool), done

    def abandon(self, env: int) -> None:
        self.time[env] = 20

    def close(self) -> None:
        pass

    def _obs(self) -> Array:
        return np.eye(5, dtype=np.float32)[self.cell]


@pytest.mark.parametrize(("trace", "seed"), [(0.0, 0), (0.65, 1), (0.65, 2), (0.95, 3)])
def test_it_finds_the_values_of_endless_rounds_whatever_their_time_limit(trace: float, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    learner = Learner(Mlp(5, 2), Scalar(), RAdam(1e-2), gamma=0.8, trace=trace, minibatches=4, rng=rng)
    actor = Actor(Rounds(8), learner.q_values, rng)
    for tick in train(actor, learner, epsilon=Linear(1.0, 0.2, 4_000), total_steps=10_000, rollout_steps=16):
        learner.set_learning_rate(1e-2 * (1 - tick.steps / 10_100))
    q = learner.q_values(torch.eye(5))
    best = 1 / (1 - 0.8**5)  # at the last cell; 0.8 of it one step before, and so on
    assert q.argmax(-1).tolist() == [1] * 5
    assert q[:, 1].tolist() == pytest.approx([best * 0.8 ** (4 - cell) for cell in range(5)], abs=0.2)


def test_the_file_reads_as_the_algorithm() -> None:
    """Its seven lines open it, and each comes back as a comment where it happens, in order."""
    text = Path(pqn.__file__).read_text()
    head, _, body = text.partition('"""\n\n')
    assert [int(n) for n in re.findall(r"^    +(\d)  ", head, re.M)] == list(range(1, 8))
    marks = [int(n) for marks in re.findall(r"# ((?:\d, )*\d)$", body, re.M) for n in marks.split(", ")]
    assert set(marks) == set(range(1, 8))


def test_a_tick_is_what_the_other_loops_yield() -> None:
    learner, actor = parts(Scripted([[(4, "terminated")]]))
    assert isinstance(next(train(actor, learner, epsilon=Linear(), total_steps=9)), Tick)
