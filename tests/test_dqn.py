"""The algorithm against the table that it generalises, and its loop against its own description."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qlearn.actor import Actor
from qlearn.dqn import Greedy, Learner, td_loss, td_target, train
from qlearn.engine import Adam
from qlearn.errors import NotFiniteError
from qlearn.exploration import Linear
from qlearn.networks import Custom, Encode, QNetwork, make_head
from qlearn.replay import Ring, Uniform
from qlearn.types import Batch, Dist, Tick
from qlearn.values import Scalar
from tests.scripted import Scripted

S, A = 5, 3


class Table(nn.Module):
    """Q as a table `[S, A]`; an observation is a state's number."""

    def __init__(self, q: Tensor) -> None:
        super().__init__()
        self.q = nn.Parameter(q.clone())

    def forward(self, obs: Tensor) -> Dist:
        return Dist((torch.nn.functional.one_hot(obs, S).to(self.q) @ self.q)[..., None])


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1.0, 0.5, 0.125]))
def test_a_gradient_step_on_a_table_is_q_learning_to_the_last_bit(seed: int, double: bool, alpha: float) -> None:
    g = torch.Generator().manual_seed(seed)
    q, q_target = (torch.randn(S, A, generator=g, dtype=torch.float64) for _ in range(2))
    s, s2 = (int(torch.randint(S, (), generator=g)) for _ in range(2))
    a = int(torch.randint(A, (), generator=g))
    r = torch.randn(1, generator=g, dtype=torch.float64)
    discount = torch.tensor([0.99 if seed % 3 else 0.0], dtype=torch.float64)
    online, target = Table(q), Table(q_target)
    batch = Batch(torch.tensor([s]), torch.tensor([a]), r, discount, torch.tensor([s2]))

    loss = td_loss(Scalar(), Greedy(double), online, target, batch).mean()
    torch.autograd.backward(loss)
    assert online.q.grad is not None
    stepped = online.q.detach() - (alpha / 2) * online.q.grad  # d(y - q)^2 = -2 (y - q)

    best = q[s2].argmax() if double else q_target[s2].argmax()
    expected = q.clone()
    expected[s, a] = q[s, a] + alpha * (r[0] + discount[0] * q_target[s2, best] - q[s, a])
    assert torch.equal(stepped, expected)
    assert target.q.grad is None


def test_truncation_bootstraps_and_termination_does_not() -> None:
    table = Table(torch.arange(15.0).view(S, A))
    batch = Batch(
        torch.tensor([0, 0]),
        torch.tensor([1, 1]),
        torch.tensor([1.0, 1.0]),
        torch.tensor([0.9, 0.0]),  # as the ring makes them of a truncated and of a terminated step
        torch.tensor([4, 4]),
    )
    y = td_target(Scalar(), Greedy(), table, table, batch)
    assert y.tolist() == [[pytest.approx(1 + 0.9 * 14)], [1.0]]


def test_huber_is_quadratic_then_linear_and_its_gradient_is_the_clipped_error() -> None:
    z = torch.tensor([[0.0], [0.0], [0.0], [0.0]], requires_grad=True)
    y = torch.tensor([[0.5], [1.0], [10.0], [-10.0]])
    loss = Scalar(huber=True).loss(z, None, y)
    assert loss.tolist() == [0.125, 0.5, 9.5, 9.5]
    torch.autograd.backward(loss.sum())
    assert z.grad is not None
    assert z.grad.flatten().tolist() == [-0.5, -1.0, -1.0, 1.0]
    assert Scalar().loss(z, None, y).tolist() == [0.25, 1.0, 100.0, 100.0]


class Endless(Scripted):
    """Reward 1 for ever, cut after ten steps: the value is 1 / (1 - gamma), whatever the time limit says."""

    def __init__(self) -> None:
        super().__init__([[(10, "truncated")]])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        obs, reward, terminated, done = super().step(action)
        return obs * 0, (reward > 0).astype(np.float32), terminated, done


def test_a_time_limit_does_not_lower_the_value() -> None:
    learner, actor, replay = parts(Endless(), gamma=0.9, learning_rate=0.05)
    run = train(
        actor, replay, learner, epsilon=Linear(1, 1), total_steps=2_000, warmup_steps=20, target_update_steps=20
    )
    for _ in run:
        pass
    assert learner.q_values(torch.zeros(1, 3)).mean().item() == pytest.approx(10, abs=0.3)


def parts(
    envs: Scripted, *, gamma: float = 0.9, learning_rate: float = 1e-3, capacity: int = 500, n_step: int = 1
) -> tuple[Learner, Actor, Uniform]:
    torch.manual_seed(0)
    network = QNetwork(Encode(envs.space), nn.Flatten(), make_head(3, 8, envs.space.num_actions, 1))
    ring = Ring(envs.space, capacity, envs.num_envs, gamma=gamma, n_step=n_step)
    replay = Uniform(ring, np.random.default_rng(0))
    learner = Learner(network, Scalar(), Greedy(), replay, Adam(learning_rate))
    return learner, Actor(envs, learner.q_values, np.random.default_rng(1)), replay


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.0])
def test_the_loop_counts_steps_updates_and_synchronisations(num_envs: int, ratio: float) -> None:
    envs = Scripted([[(4, "terminated"), (7, "truncated")]] * num_envs)
    learner, actor, replay = parts(envs)
    synchronised: list[int] = []
    learner.synchronize = lambda: synchronised.append(len(envs.log))  # type: ignore[method-assign]
    last, episodes = Tick(), 0
    run = train(
        actor,
        replay,
        learner,
        epsilon=Linear(0.5, 0.1, 50),
        total_steps=200,
        warmup_steps=30,
        replay_ratio=ratio,
        target_update_steps=25,
        batch_size=4,
    )
    for tick in run:
        assert tick.steps == len(envs.log)  # resets are no steps
        assert tick.updates == max(0, int((tick.steps - 30) * ratio))
        before = last.steps - 30
        assert tick.epsilon == (1.0 if before < 0 else pytest.approx(max(0.1, 0.5 - 0.4 * before / 50)))
        last, episodes = tick, episodes + len(tick.episodes)
    assert 200 <= last.steps < 200 + num_envs
    assert episodes == sum(env == e and step == 0 for e in range(num_envs) for env, _, step, _ in envs.log) - sum(
        not ended and at[1] > 0 for ended, at in zip(envs.ended, envs.at, strict=True)
    )
    assert len(synchronised) == (last.steps - 30) // 25


def test_the_target_network_moves_only_when_synchronised() -> None:
    learner, actor, replay = parts(Scripted([[(4, "terminated")]]))
    for _ in range(40):
        replay.append(actor.rollout(1.0)[0])
    start = copy.deepcopy(learner.target.state_dict())
    for _ in range(3):
        learner.update(*replay.sample(8))
    assert all(torch.equal(start[k], v) for k, v in learner.target.state_dict().items())
    assert not torch.equal(start["head.layers.3.weight"], learner.online.state_dict()["head.layers.3.weight"])
    learner.synchronize()
    assert all(torch.equal(learner.online.state_dict()[k], v) for k, v in learner.target.state_dict().items())


def test_a_run_can_continue_after_a_tick() -> None:
    envs = Scripted([[(4, "terminated")]])
    learner, actor, replay = parts(envs)
    half = list(train(actor, replay, learner, epsilon=Linear(), total_steps=50, warmup_steps=10))[-1]
    rest = list(train(actor, replay, learner, epsilon=Linear(), total_steps=100, warmup_steps=10, after=half))
    assert (rest[-1].steps, rest[-1].updates) == (100, 90)


@pytest.mark.parametrize(
    ("poison", "named"),
    [
        ("parameter", "the network's parameter head.layers.0.weight"),
        ("target", "the target network's parameter head.layers.3.bias"),
        ("observation", "batch.obs"),
        ("reward", "batch.reward"),
    ],
)
def test_nan_stops_within_one_update_names_the_tensor_and_spares_the_weights(poison: str, named: str) -> None:
    learner, actor, replay = parts(Scripted([[(4, "terminated")]]))
    for _ in range(40):
        replay.append(actor.rollout(1.0)[0])
    with torch.no_grad():
        if poison == "parameter":
            learner.online.get_parameter("head.layers.0.weight")[0, 0] = torch.nan
        elif poison == "target":
            learner.target.get_parameter("head.layers.3.bias")[:] = torch.inf
        elif poison == "observation":
            replay.ring.storage.obs[:] = torch.nan
        else:
            replay.ring.storage.reward[:] = torch.nan
    before = learner.online.get_parameter("head.layers.3.weight").clone()
    with pytest.raises(NotFiniteError, match=named):
        learner.update(*replay.sample(8))
    assert torch.equal(before, learner.online.get_parameter("head.layers.3.weight"))


def test_nan_inside_a_network_is_named_as_its_output() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 7)

        def forward(self, obs: Tensor) -> Tensor:
            q: Tensor = self.layer(obs)
            return q / 0.0 * 0.0

    envs = Scripted([[(4, "terminated")]])
    ring = Ring(envs.space, 100, 1)
    replay = Uniform(ring, np.random.default_rng(0))
    learner = Learner(Custom(Broken(), 7), Scalar(), Greedy(), replay, Adam())
    actor = Actor(envs, learner.q_values, np.random.default_rng(1))
    run = train(actor, replay, learner, epsilon=Linear(), total_steps=100, warmup_steps=20, batch_size=4)
    ticks: list[Tick] = []
    with pytest.raises(NotFiniteError, match=r"the network's output for batch\.obs"):
        ticks.extend(run)
    with pytest.raises(StopIteration):
        next(run)


def test_gradients_are_clipped_to_the_norm() -> None:
    learner, actor, replay = parts(Scripted([[(4, "terminated")]]))
    for _ in range(40):
        replay.append(actor.rollout(1.0)[0])
    learner.descent.max_grad_norm = 0.5
    learner.update(*replay.sample(8))
    assert learner.descent.gradient.norm > 0.5
    gradient = learner.descent.memory["exp_avg"] / (1 - 0.9)  # Adam's mean, after one step from zero
    assert gradient.norm().item() == pytest.approx(0.5, rel=1e-5)


def test_statistics_are_of_the_last_minibatch() -> None:
    learner, actor, replay = parts(Scripted([[(4, "terminated")]]))
    assert learner.statistics() == {}
    for _ in range(40):
        replay.append(actor.rollout(1.0)[0])
    index, weight = replay.sample(8)
    learner.update(index, weight)
    batch = replay.ring.batch(index)
    q = learner.q_values(batch.obs)
    y = batch.reward + batch.discount * learner.value.mean(learner.target(batch.next_obs)).max(-1).values
    statistics = learner.statistics()
    assert statistics["q_max"] == pytest.approx(q.max().item())
    assert statistics["q_mean"] == pytest.approx(q.max(-1).values.mean().item())
    error = (y - q.gather(1, batch.action[:, None])[:, 0]).abs().mean().item()
    assert statistics["td_error"] == pytest.approx(error, rel=1e-5)
    assert statistics["grad_norm"] == learner.descent.gradient.norm


def test_the_last_layer_is_within_pytorchs_bounds() -> None:
    weight = make_head(3, 400, 7, 1).get_parameter("layers.3.weight")
    assert weight.abs().max() <= 1 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.1)
