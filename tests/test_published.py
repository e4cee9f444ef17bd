"""Against published code, to the digit and without training.

tests/fixtures/rlax.json holds what RLax (and Optax) say of small inputs, in float64; see make_rlax.py there. What has
no published code to run is worked out by hand here: prioritised sampling, and the optimiser of the original DQN. Then
come properties that hold for all inputs.
"""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from qlearn.dqn import Greedy, Munchausen, Network, td_loss, td_target
from qlearn.engine import CenteredRMSProp, Optimizer
from qlearn.exploration import Linear
from qlearn.networks import Implicit, Plain, cosines
from qlearn.pqn import lambda_returns
from qlearn.prioritized import Prioritized
from qlearn.replay import Ring
from qlearn.types import Batch, Dist, Space, Steps
from qlearn.values import Categorical, Quantiles, Scalar, Value, huber

FILE = json.loads((Path(__file__).parent / "fixtures" / "rlax.json").read_text())


class Fixture:
    """Inputs and outputs of one group, as float64 tensors."""

    def __init__(self, name: str) -> None:
        group = FILE["groups"][name]
        self.inputs, self.outputs = group["inputs"], group["outputs"]

    def __getitem__(self, name: str) -> Tensor:
        return torch.tensor(self.inputs[name], dtype=torch.float64)

    def out(self, name: str) -> Tensor:
        return torch.tensor(self.outputs[name], dtype=torch.float64)

    def batch(self) -> Batch:
        """Its transitions; observation i is the number i, the next one the number B + i."""
        count = len(self.inputs["action"])
        here = torch.arange(count)
        return Batch(here, torch.tensor(self.inputs["action"]), self["reward"], self["discount"], here + count)


def table(now: Tensor, after: Tensor, tau: Tensor | None = None) -> Network:
    """A network whose outputs are given: `[B, A, K]` for observations up to B (at `tau`) and for those from B on."""

    def network(obs: Tensor) -> Dist:
        count = len(now)
        if int(obs.max()) < count:
            return Dist(now[obs], None if tau is None else tau[obs])
        return Dist(after[obs - count])

    return network


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_the_fixtures_are_rlax() -> None:
    assert FILE["versions"]["rlax"] == "0.1.9"
    assert FILE["dtype"] == "float64"


# C51


@pytest.mark.parametrize("name", ["projection_51", "projection_9"])
def test_the_projection(name: str) -> None:
    f = Fixture(name)
    value = Categorical(f.inputs["v_min"], f.inputs["v_max"], f.inputs["atoms"])
    same(value.backup(f["p"], f["reward"], f["discount"]), f.out("y"))


@pytest.mark.parametrize("double", [False, True])
def test_the_categorical_loss(double: bool) -> None:
    f = Fixture("categorical")
    value = Categorical(f.inputs["v_min"], f.inputs["v_max"], f.inputs["atoms"])
    now = f["now"].requires_grad_()
    online = f["online"].requires_grad_()
    loss = td_loss(value, Greedy(double), table(now, online), table(f["now"], f["target"]), f.batch())
    prefix = "double_" if double else ""
    same(loss.detach(), f.out(f"{prefix}loss"))
    torch.autograd.backward(loss.sum())
    assert now.grad is not None
    same(now.grad, f.out(f"{prefix}gradient"))
    assert online.grad is None  # nothing flows into the target
    assert not torch.equal(f.out("loss"), f.out("double_loss"))


# Quantiles


@pytest.mark.parametrize("name", ["quantiles", "quantiles_tau"])
@pytest.mark.parametrize("kappa", [0, 1])
@pytest.mark.parametrize("double", [False, True])
def test_the_quantile_loss(name: str, kappa: int, double: bool) -> None:
    f = Fixture(name)
    now, online = f["now"].requires_grad_(), f["online"].requires_grad_()
    tau = f["tau"] if "tau" in f.inputs else None
    target = table(f["now"], f["target"], tau)
    loss = td_loss(Quantiles(float(kappa)), Greedy(double), table(now, online, tau), target, f.batch())
    prefix = "double_" if double else ""
    same(loss.detach(), f.out(f"{prefix}loss_{kappa}"))
    torch.autograd.backward(loss.sum())
    assert now.grad is not None
    same(now.grad, f.out(f"{prefix}gradient_{kappa}"))
    assert online.grad is None


def test_the_implicit_network_and_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    f = Fixture("implicit")
    names = ("embed_w", "embed_b", "hidden_w", "hidden_b", "out_w", "out_b")
    (hidden, features), actions, levels = f["hidden_w"].shape, len(f["out_b"]), f["tau"].shape[1]
    network = Implicit(features, Plain(features, hidden, (actions, 1), nn.Linear, False), levels).double()
    parameters = dict(zip(network.state_dict(), (f[n] for n in names), strict=True))
    network.load_state_dict(parameters)

    psi, tau = torch.cat([f["psi"], f["psi_next"]]), torch.cat([f["tau"], f["tau_next"]])
    drawn: list[Tensor] = []
    monkeypatch.setattr(torch, "rand", lambda size, **kwargs: drawn[-1])

    def at(obs: Tensor) -> Dist:
        drawn.append(tau[obs])
        dist: Dist = network(psi[obs])
        return dist

    same(cosines(f["tau"][0]), f.out("cosines"))
    now = at(torch.arange(len(f["psi"])))
    assert now.tau is not None
    same(now.tau, f["tau"])
    same(now.z.detach(), f.out("z"))
    loss = td_loss(Quantiles(1.0), Greedy(), at, at, f.batch())
    same(loss.detach(), f.out("loss"))
    torch.autograd.backward(loss.mean())
    for name, parameter in zip(names, network.parameters(), strict=True):
        assert parameter.grad is not None
        same(parameter.grad, f.out(f"gradient_{name}"))


def test_the_cosines_begin_at_one() -> None:
    assert cosines(torch.tensor([0.25]))[0, 0].item() == pytest.approx(math.cos(math.pi / 4))
    assert cosines(torch.tensor([[0.1, 0.9]]), 5).shape == (1, 2, 5)
    assert cosines(torch.tensor([0.25])).shape == (1, 64)


# Plain values


@pytest.mark.parametrize("double", [False, True])
def test_the_td_error(double: bool) -> None:
    f = Fixture("scalar")
    online, target = (
        table(f["now"][..., None], f["online"][..., None]),
        table(f["now"][..., None], f["target"][..., None]),
    )
    batch, prefix = f.batch(), "double_" if double else ""
    error = f.out(f"{prefix}error")
    y = td_target(Scalar(), Greedy(double), online, target, batch)
    same(y.squeeze(-1) - f["now"].gather(1, batch.action[:, None]).squeeze(1), error)
    same(td_loss(Scalar(), Greedy(double), online, target, batch), error.square())
    loss = td_loss(Scalar(huber=True), Greedy(double), online, target, batch)
    same(loss, f.out(f"{prefix}huber"))
    same(Scalar(huber=True).error(loss), error.abs())
    same(Scalar().error(error.square()), error.abs())


def test_the_huber_loss_and_its_slope() -> None:
    f = Fixture("huber")
    x = f["x"].requires_grad_()
    loss = huber(x, 1.0)
    same(loss.detach(), f.out("loss"))
    torch.autograd.backward(loss.sum())
    assert x.grad is not None
    same(x.grad, f.out("slope"))


@pytest.mark.parametrize(("name", "value"), [("munchausen", Scalar()), ("munchausen_quantiles", Quantiles())])
def test_the_munchausen_target(name: str, value: Value) -> None:
    f = Fixture(name)
    backup = Munchausen(f.inputs["alpha"], f.inputs["temperature"], f.inputs["clip"])
    online = table(torch.full_like(f["now"], math.nan), torch.full_like(f["target"], math.nan))  # has no part in it
    same(td_target(value, backup, online, table(f["now"], f["target"]), f.batch()), f.out("y"))


def test_the_munchausen_defaults_are_the_papers() -> None:
    assert Munchausen() == Munchausen(alpha=0.9, temperature=0.03, clip=-1.0)


# Returns over several steps


class Rows:
    """The sequence of a fixture as rows of a rollout: a final observation has a row of its own."""

    def __init__(self, f: Fixture, padding: int) -> None:
        self.starts: list[int] = []  # the rows of steps
        self.value: list[float] = []  # of the observation after each row; of no use after a final one
        columns: list[tuple[float, bool, bool]] = []
        for reward, value, end in zip(f.inputs["reward"], f.inputs["value"], f.inputs["ends"], strict=True):
            self.starts.append(len(columns))
            columns.append((reward, end in ("terminated", "life"), end in ("terminated", "truncated")))
            self.value.append(value)
            if columns[-1][2]:
                columns.append((0.0, False, False))
                self.value.append(math.nan)
        columns += [(0.0, False, False)] * padding
        self.value += [math.nan] * padding
        reward, terminated, done = (np.array(column)[:, None] for column in zip(*columns, strict=True))
        obs = np.arange(len(columns), dtype=np.float32)[:, None]
        self.steps = Steps(obs, np.zeros_like(done, dtype=np.int64), reward, terminated, done)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
def test_the_n_step_return(n: int) -> None:
    """Terminations, a life lost and a truncation inside windows, and tails that are shorter than n."""
    f = Fixture("n_step")
    f.inputs["ends"] = [*f.inputs["ends"][:-1], "truncated"]  # RLax bootstraps its tails from the last value
    rows = Rows(f, padding=n)
    ring = Ring(Space((), np.dtype(np.float32), 2), 64, 1, n_step=n, gamma=f.inputs["gamma"])
    ring.append(rows.steps)
    batch = ring.batch(torch.tensor(rows.starts))
    reward, discount = batch.reward.double().numpy(), batch.discount.double().numpy()
    after = np.array(rows.value)[batch.next_obs.numpy().astype(int) - 1]
    ours = reward + np.where(discount == 0, 0.0, discount * after)
    np.testing.assert_allclose(ours, f.outputs[str(n)], rtol=1e-6, atol=1e-6)  # the ring is float32


@pytest.mark.parametrize("trace", [0.0, 0.65, 1.0])
def test_the_lambda_return(trace: float) -> None:
    f = Fixture("lambda_returns")
    rows = Rows(f, padding=0)
    reward, terminated, done = (torch.tensor(x) for x in (rows.steps.reward, rows.steps.terminated, rows.steps.done))
    value = torch.tensor(rows.value, dtype=torch.float64)[:, None]
    ours = lambda_returns(reward, terminated, done, value, gamma=f.inputs["gamma"], trace=trace)
    same(ours[rows.starts, 0], f.out(str(trace)))


# Prioritised replay (Schaul et al. 2016)

MIX, ALPHA, BETA = 1e-3, 0.6, 0.4


def memory(episode: int = 5, steps: int = 24, envs: int = 1, **kwargs: float) -> Prioritized:
    """A memory of episodes of `episode` steps; every row after such an episode holds its final observation only."""
    done = np.array([[t % (episode + 1) == episode - 1] * envs for t in range(steps)])
    rows = np.zeros((steps, envs))
    ring = Ring(Space((), np.dtype(np.float32), 2), 64 * envs, envs)
    replay = Prioritized(ring, np.random.default_rng(1), **kwargs)  # type: ignore[arg-type]
    replay.append(Steps(rows, rows.astype(np.int64), rows, done, done))
    return replay


def by_hand(error: dict[int, float], exponent: float) -> dict[int, float]:
    """P(i) of rows."""
    total = sum(e**exponent for e in error.values())
    return {row: (1 - MIX) * e**exponent / total + MIX / len(error) for row, e in error.items()}


def surprised(replay: Prioritized) -> dict[int, float]:
    """Give every transition of `memory()` an error of its own; the errors by row."""
    rows = [t for t in range(23) if t % 6 != 5]  # the last row has no successor yet
    error = {row: [0.05, 0.5, 2.0, 7.5][i % 4] + 0.01 * i for i, row in enumerate(rows)}
    replay.sample(1)
    replay.reweigh(torch.tensor(list(error)), torch.tensor(list(error.values()), dtype=torch.float64))
    return error


def test_the_probabilities_of_prioritised_replay() -> None:
    replay = memory(exponent=ALPHA, beta=BETA)
    p = by_hand(surprised(replay), ALPHA)
    np.testing.assert_allclose(replay.probability(np.array(list(p))), list(p.values()), rtol=1e-12)
    assert sum(p.values()) == pytest.approx(1)


def test_the_weights_of_prioritised_replay() -> None:
    replay = memory(exponent=ALPHA, beta=BETA)
    p = by_hand(surprised(replay), ALPHA)
    for beta in (BETA, 1.0, 0.0):
        replay.beta = Linear(beta, beta, 0)
        index, weight = replay.sample(16)
        raw = [(len(p) * p[int(i)]) ** -beta for i in index]
        np.testing.assert_allclose(weight.numpy(), [w / max(raw) for w in raw], rtol=1e-6)
        assert weight.max() == 1


@pytest.mark.parametrize(("exponent", "batch_size"), [(0.6, 1), (0.6, 8), (1.0, 8), (0.0, 8)])
def test_transitions_are_sampled_at_their_probabilities(exponent: float, batch_size: int) -> None:
    replay = memory(exponent=exponent, beta=BETA)
    p = by_hand(surprised(replay), exponent)
    count = 12_000
    drawn = torch.cat([replay.sample(batch_size)[0] for _ in range(count // batch_size)])
    rows, times = np.unique(drawn.numpy(), return_counts=True)
    assert set(rows) <= set(p)
    found = dict(zip(rows.tolist(), times.tolist(), strict=True))
    # One draw from each equal part of the sum scatters less than independent draws do: the test errs on the safe side.
    assert chisquare([found.get(i, 0) for i in p], [count * x for x in p.values()]).pvalue > 1e-3
    if exponent:
        uniform = [count / len(p)] * len(p)
        assert chisquare([found.get(i, 0) for i in p], uniform).pvalue < 1e-9  # it could have failed


def test_the_uniform_part_keeps_a_transition_without_error_in_reach() -> None:
    replay = memory(exponent=1.0)
    error = surprised(replay)
    rows = torch.tensor(list(error))
    replay.reweigh(rows, torch.cat([torch.tensor([1e6]), torch.zeros(len(rows) - 1)]))
    p = replay.probability(rows.numpy())
    assert p[1:] == pytest.approx(MIX / len(rows), rel=1e-6)
    drawn = torch.cat([replay.sample(64)[0] for _ in range(1_000)])
    others = int((drawn != rows[0]).sum())
    expected = 64_000 * MIX * (len(rows) - 1) / len(rows)
    assert abs(others - expected) < 5 * math.sqrt(expected)


def test_a_new_transition_has_the_largest_priority_seen() -> None:
    replay = memory(exponent=ALPHA)
    error = surprised(replay)
    largest = max(error.values())
    row = next(i for i, e in error.items() if e == largest)
    error[row] = 0.01  # it has been learned since, and the largest is remembered
    replay.reweigh(torch.tensor([row]), torch.tensor([0.01], dtype=torch.float64))
    nothing = np.zeros((2, 1))
    replay.append(Steps(nothing, nothing.astype(np.int64), nothing, nothing > 0, nothing > 0))
    replay.sample(1)
    # Row 23 is a final observation's: the new transition is row 24.
    p = by_hand({**error, 24: largest}, ALPHA)
    np.testing.assert_allclose(replay.probability(np.array(list(p))), list(p.values()), rtol=1e-12)


def test_the_probabilities_follow_a_ring_that_overwrites() -> None:
    replay = memory(steps=1, envs=2, exponent=1.0)
    rng, ring = np.random.default_rng(3), replay.ring
    for size in rng.integers(1, 30, 40):  # of 64 rows, so that it comes round many times
        done = rng.random((size, 2)) < 0.3
        done[1:] &= ~done[:-1]
        done[0] &= ~ring.storage.done.view(-1, 2)[(ring.written - 1) % ring.rows].numpy()
        nothing = np.zeros((size, 2))
        replay.append(Steps(nothing, nothing.astype(np.int64), nothing, done, done))
        index, _ = replay.sample(8)
        lanes = np.array([t % ring.rows * 2 + env for t in ring.starts for env in range(2)])
        rows = lanes[~ring.storage.final.numpy()[lanes]]
        assert set(index.tolist()) <= set(rows.tolist())
        assert replay.probability(rows).sum() == pytest.approx(1)
        assert replay.probability(rows).min() > MIX / len(rows)
        replay.reweigh(index, torch.tensor(rng.random(8) + 0.1))


# The optimiser of the original code (pitfall 3 of our notes: where epsilon stands)


def steps(optimizer: Optimizer, start: list[float], gradients: npt.NDArray[np.float64]) -> Tensor:
    theta, path = torch.tensor(start, dtype=torch.float64), []
    memory = tuple(torch.zeros_like(theta) for _ in optimizer.memory)
    for step, gradient in enumerate(gradients, 1):
        numbers = torch.tensor(optimizer.numbers(step, optimizer.learning_rate), dtype=torch.float64)
        theta, memory = optimizer.descend(theta, torch.tensor(gradient), memory, numbers.unbind())
        path.append(theta)
    return torch.stack(path)


def test_three_steps_of_centred_rmsprop_by_hand() -> None:
    theta, g, g2, path = 0.5, 0.0, 0.0, []
    for gradient in (0.3, -0.1, 2.0):
        g, g2 = 0.95 * g + 0.05 * gradient, 0.95 * g2 + 0.05 * gradient**2
        theta -= 0.00025 * gradient / math.sqrt(g2 - g**2 + 0.01)
        path.append([theta])
    ours = steps(CenteredRMSProp(0.00025, 0.95, 0.01), [0.5], np.array([[0.3], [-0.1], [2.0]]))
    same(ours, torch.tensor(path, dtype=torch.float64))


def test_centred_rmsprop_is_optaxs() -> None:
    f = Fixture("rmsprop")
    lr, decay, epsilon = (f.inputs[name] for name in ("lr", "decay", "epsilon"))
    ours = steps(
        CenteredRMSProp(lr, decay, epsilon),
        f.inputs["start"],
        np.array(f.inputs["gradients"]),
    )
    same(ours, f.out("params"))


def test_a_sum_with_epsilon_and_a_mean_with_less_of_it_are_the_same() -> None:
    sums = np.random.default_rng(0).normal(size=(5, 3, 32)).sum(-1)
    ours = steps(CenteredRMSProp(0.01, 0.95, 0.01), [0.1, 0.2, 0.3], sums)
    mean = steps(CenteredRMSProp(0.01, 0.95, 0.01 / 32**2), [0.1, 0.2, 0.3], sums / 32)
    wrong = steps(CenteredRMSProp(0.01, 0.95, 0.01), [0.1, 0.2, 0.3], sums / 32)
    torch.testing.assert_close(ours, mean, rtol=1e-9, atol=0)
    assert not torch.allclose(ours, wrong, rtol=1e-3)


# Properties

finite = st.floats(-30, 30)
shares = st.lists(st.floats(0, 1), min_size=2, max_size=12).filter(lambda x: sum(x) > 0.1)


@settings(deadline=None)
@given(shares, finite, st.sampled_from([0.0, 0.5, 0.99, 0.99**3, 1.0]), st.floats(-20, 5), st.floats(0.5, 25))
def test_the_projection_keeps_mass_and_the_clipped_mean(
    weights: list[float], reward: float, discount: float, v_min: float, width: float
) -> None:
    value = Categorical(v_min, v_min + width, len(weights))
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    y = value.backup(p, torch.tensor(reward, dtype=torch.float64), torch.tensor(discount, dtype=torch.float64))
    assert (y >= 0).all()
    assert y.sum().item() == pytest.approx(1, abs=1e-12)
    atoms = np.linspace(v_min, v_min + width, len(weights))
    moved = np.clip(reward + discount * atoms, v_min, v_min + width)
    assert value.expected(y).item() == pytest.approx(float(p.numpy() @ moved), abs=1e-10)


@settings(deadline=None)
@given(shares, st.floats(-0.5, 0.5), st.sampled_from([0.0, 0.3, 0.5]))
def test_the_projection_keeps_the_mean_where_nothing_is_clipped(
    weights: list[float], reward: float, discount: float
) -> None:
    value = Categorical(-1.0, 1.0, len(weights))
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    y = value.backup(p, torch.tensor(reward, dtype=torch.float64), torch.tensor(discount, dtype=torch.float64))
    mean = value.expected(p).item()
    assert value.expected(y).item() == pytest.approx(reward + discount * mean, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.sampled_from([0.0, 1.0]), finite, finite)
def test_the_sign_and_asymmetry_of_the_quantile_loss(tau: float, kappa: float, z: float, y: float) -> None:
    assume(abs(y - z) > 1e-6)
    at = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    loss = Quantiles(kappa).loss(at, torch.tensor([tau], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))
    torch.autograd.backward(loss)
    assert at.grad is not None
    side = -tau if y > z else 1 - tau  # too low is pulled up with weight tau, too high down with 1 - tau
    assert at.grad.item() == pytest.approx(side * (min(abs(y - z), kappa) if kappa else 1))


@settings(deadline=None, max_examples=50)
@given(st.floats(0.02, 0.98), st.lists(finite, min_size=1, max_size=15, unique=True))
def test_the_quantile_loss_is_least_at_the_quantile(tau: float, samples: list[float]) -> None:
    ordered = sorted(samples)
    rank = tau * len(ordered)
    assume(abs(rank - round(rank)) > 1e-6)  # else everything between two samples is a quantile
    quantile = ordered[math.ceil(rank) - 1]
    candidates = torch.tensor([*ordered, quantile - 0.37, quantile + 0.37], dtype=torch.float64)[:, None]
    level, y = torch.tensor([tau], dtype=torch.float64), torch.tensor(samples, dtype=torch.float64)
    losses = Quantiles(0.0).loss(candidates, level.expand(len(candidates), 1), y.expand(len(candidates), -1))
    assert losses[ordered.index(quantile)].item() <= losses.min().item() + 1e-12


@settings(deadline=None)
@given(st.lists(st.tuples(finite, st.floats(0, 1)), min_size=1, max_size=6), st.lists(finite, min_size=1, max_size=6))
def test_the_quantile_loss_is_summed_over_predictions_and_averaged_over_the_target(
    predicted: list[tuple[float, float]], target: list[float]
) -> None:
    z, tau = torch.tensor(predicted, dtype=torch.float64).T
    y = torch.tensor(target, dtype=torch.float64)
    once = Quantiles(1.0).loss(z, tau, y)
    same(Quantiles(1.0).loss(z, tau, y.repeat(2)), once)
    same(Quantiles(1.0).loss(z.repeat(2), tau.repeat(2), y), 2 * once)


def test_another_threshold_is_divided_out_of_the_quantile_loss() -> None:
    """rho = |tau - 1[u < 0]| L_kappa(u) / kappa: far away the slope is the weight, whatever kappa."""
    z, tau, y = (torch.tensor([x], dtype=torch.float64) for x in (0.0, 0.3, 10.0))
    for kappa in (0.5, 1.0, 4.0):
        expected = 0.3 * kappa * (10 - kappa / 2) / kappa
        assert Quantiles(kappa).loss(z, tau, y).item() == pytest.approx(expected)
