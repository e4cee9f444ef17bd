"""Every representation x backup x mask on one-hot tables, against plain Python loops over states, actions and numbers.

A network here is a table that one-hot observations pick rows of, so that td_target and td_loss can be worked out by
hand. The loops below are the definitions of the papers, and share no code with what they check.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from qlearn.dqn import Backup, Greedy, Munchausen, Network, td_loss, td_target
from qlearn.types import Batch, Dist
from qlearn.values import Categorical, Quantiles, Scalar, Value

Kind = Literal["scalar", "huber", "c51", "qr", "qr0", "iqn"]
Numbers = list[float]
Row = list[Numbers]  # of a state: the numbers of every action

STATES, ACTIONS = 3, 3
V_MIN, V_MAX, ATOMS = -1.5, 1.5, 5
VALUES: dict[Kind, Value] = {
    "scalar": Scalar(),
    "huber": Scalar(huber=True),
    "c51": Categorical(V_MIN, V_MAX, ATOMS),
    "qr": Quantiles(1.0),
    "qr0": Quantiles(0.0),
    "iqn": Quantiles(1.0),
}
NUMBERS: dict[Kind, int] = {"scalar": 1, "huber": 1, "c51": ATOMS, "qr": 4, "qr0": 3, "iqn": 4}
BACKUPS: dict[str, Backup] = {
    "greedy": Greedy(),
    "double": Greedy(double=True),
    "munchausen": Munchausen(alpha=0.9, temperature=0.4, clip=-1.0),
}
# Action 1 is forbidden in state 0, all but action 2 in state 1, nothing in state 2.
MASK = [[True, False, True], [False, False, True], [True, True, True]]


class Table:
    """Numbers `[S, A, K]` (and levels `[S, K]`) as a network over one-hot observations `[B, S]`."""

    def __init__(self, z: Tensor, tau: Tensor | None = None) -> None:
        self.z, self.tau = z, tau

    def __call__(self, obs: Tensor) -> Dist:
        z = (obs @ self.z.flatten(1)).view(-1, *self.z.shape[1:])
        return Dist(z, None if self.tau is None else obs @ self.tau)

    @property
    def rows(self) -> list[Row]:
        rows: list[Row] = self.z.tolist()
        return rows


def table(kind: Kind, seed: int, numbers: int | None = None) -> Table:
    generator = torch.Generator().manual_seed(seed)
    shape = (STATES, ACTIONS, numbers or NUMBERS[kind])
    z = torch.randn(shape, generator=generator, dtype=torch.float64)
    tau = torch.rand(STATES, shape[2], generator=generator, dtype=torch.float64) if kind == "iqn" else None
    return Table(z, tau)


def transitions(mask: list[list[bool]] | None) -> list[tuple[int, int, int, float, float]]:
    """Every state, allowed action and next state: s, a, s', reward and discount, of which some are of terminals."""
    made = []
    for i, (s, a, following) in enumerate(product(range(STATES), range(ACTIONS), range(STATES))):
        if mask is None or mask[s][a]:
            made.append((s, a, following, -1.0 + 0.17 * (i % 13), [0.9, 0.0, 0.9**3, 1.0][i % 4]))
    return made


def batch(steps: Sequence[tuple[int, int, int, float, float]], mask: list[list[bool]] | None) -> Batch:
    s, a, following, reward, discount = zip(*steps, strict=True)
    now, after = (F.one_hot(torch.tensor(x), STATES).double() for x in (s, following))
    allowed = None if mask is None else torch.tensor(mask)
    return Batch(
        now,
        torch.tensor(a),
        torch.tensor(reward, dtype=torch.float64),
        torch.tensor(discount, dtype=torch.float64),
        after,
        None if allowed is None else allowed[list(s)],
        None if allowed is None else allowed[list(following)],
    )


# The definitions, number by number


def atom(i: int) -> float:
    return V_MIN + i * (V_MAX - V_MIN) / (ATOMS - 1)


def softmax(x: Numbers) -> Numbers:
    most = max(x)
    powers = [math.exp(y - most) for y in x]
    return [p / sum(powers) for p in powers]


def mean(kind: Kind, z: Numbers) -> float:
    if kind == "c51":
        return sum(p * atom(i) for i, p in enumerate(softmax(z)))
    return sum(z) / len(z)


def log_policy(kind: Kind, row: Row, allowed: list[int], temperature: float) -> dict[int, float]:
    """log pi(a) of the allowed actions, pi = softmax(Q / temperature)."""
    q = {a: mean(kind, row[a]) / temperature for a in allowed}
    most = max(q.values())
    total = most + math.log(sum(math.exp(x - most) for x in q.values()))
    return {a: x - total for a, x in q.items()}


def project(moved: list[tuple[float, float]]) -> Numbers:
    """Bellemare et al. 2017: (position, probability) onto the atoms, each atom by the triangle around it."""
    width = (V_MAX - V_MIN) / (ATOMS - 1)
    y = [0.0] * ATOMS
    for place, p in moved:
        clipped = min(max(place, V_MIN), V_MAX)
        for i in range(ATOMS):
            y[i] += p * min(max(1 - abs(clipped - atom(i)) / width, 0.0), 1.0)
    return y


def by_hand_target(
    kind: Kind,
    backup: Backup,
    online: list[Row],
    target: list[Row],
    step: tuple[int, int, int, float, float],
    mask: list[list[bool]] | None,
) -> Numbers:
    s, action, following, reward, discount = step
    here = [a for a in range(ACTIONS) if mask is None or mask[s][a]]
    there = [a for a in range(ACTIONS) if mask is None or mask[following][a]]
    if isinstance(backup, Greedy):
        chooser = online if backup.double else target
        best = max(there, key=lambda a: mean(kind, chooser[following][a]))
        pi, entropy = {best: 1.0}, 0.0
    else:
        heat = backup.temperature
        praise = heat * log_policy(kind, target[s], here, heat)[action]
        reward += backup.alpha * min(max(praise, backup.clip), 0.0)
        log_pi = log_policy(kind, target[following], there, heat)
        pi = {a: math.exp(x) for a, x in log_pi.items()}
        entropy = sum(-heat * x * math.exp(x) for x in log_pi.values())
    row = target[following]
    if kind == "c51":
        p = {a: softmax(row[a]) for a in pi}
        return project(
            [(reward + discount * (entropy + atom(i)), pi[a] * p[a][i]) for a in pi for i in range(len(row[a]))]
        )
    return [reward + discount * (entropy + sum(pi[a] * row[a][k] for a in pi)) for k in range(len(row[0]))]


def by_hand_loss(kind: Kind, z: Numbers, tau: Numbers | None, y: Numbers) -> float:
    if kind == "c51":
        p = softmax(z)
        return -sum(y[i] * math.log(p[i]) for i in range(ATOMS))
    if kind in ("scalar", "huber"):
        u = abs(y[0] - z[0])
        return u * u if kind == "scalar" else 0.5 * u * u if u <= 1 else u - 0.5
    total = 0.0
    for i, predicted in enumerate(z):
        level = (2 * i + 1) / (2 * len(z)) if tau is None else tau[i]
        for wanted in y:
            u = wanted - predicted
            size = abs(u) if kind == "qr0" else 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
            total += abs(level - (1.0 if u < 0 else 0.0)) * size / len(y)
    return total


def target_of(kind: Kind, backup: Backup, online: Network, target: Network, b: Batch) -> list[Numbers]:
    y: list[Numbers] = td_target(VALUES[kind], backup, online, target, b).tolist()
    return y


close = pytest.approx


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("backup", list(BACKUPS))
@pytest.mark.parametrize("mask", [None, MASK], ids=["free", "masked"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_targets_and_losses_are_those_worked_out_by_hand(
    kind: Kind, backup: str, mask: list[list[bool]] | None, seed: int
) -> None:
    # Networks that draw their own levels may give as many at the next observation as they like.
    online, target = table(kind, seed), table(kind, 100 + seed, 5 if kind == "iqn" else None)
    online.z.requires_grad_()
    steps = transitions(mask)
    b = batch(steps, mask)
    y = td_target(VALUES[kind], BACKUPS[backup], online, target, b)
    loss = td_loss(VALUES[kind], BACKUPS[backup], online, target, b)
    assert not y.requires_grad
    assert loss.requires_grad
    assert loss.shape == (len(steps),)
    for i, step in enumerate(steps):
        expected = by_hand_target(kind, BACKUPS[backup], online.rows, target.rows, step, mask)
        assert y[i].tolist() == close(expected, rel=1e-12, abs=1e-13)
        tau = None if online.tau is None else online.tau[step[0]].tolist()
        expected_loss = by_hand_loss(kind, online.rows[step[0]][step[1]], tau, expected)
        assert loss[i].item() == close(expected_loss, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("backup", list(BACKUPS))
def test_the_loss_moves_the_action_taken_alone(kind: Kind, backup: str) -> None:
    online, target = table(kind, 3), table(kind, 4)
    online.z.requires_grad_()
    target.z.requires_grad_()
    (loss,) = td_loss(VALUES[kind], BACKUPS[backup], online, target, batch([(1, 2, 0, 0.3, 0.9)], None))
    torch.autograd.backward(loss)
    assert online.z.grad is not None
    assert target.z.grad is None
    moved = online.z.grad.abs().sum(-1)
    assert moved[1, 2] > 0
    moved[1, 2] = 0
    assert not moved.any()


@pytest.mark.parametrize("kind", list(VALUES))
def test_a_mask_that_leaves_one_action_leaves_no_choice(kind: Kind) -> None:
    online, target = table(kind, 5), table(kind, 6)
    b = batch([(1, 2, 1, 0.3, 0.9)], MASK)
    greedy, double, soft = (target_of(kind, backup, online, target, b)[0] for backup in BACKUPS.values())
    value = VALUES[kind]
    only = Dist(target.z[1, 2][None, None])
    y = value.backup(value.mix(only, torch.ones(1, 1, dtype=torch.float64)), b.reward, b.discount)[0].tolist()
    assert greedy == close(y)
    assert double == close(y)
    assert soft == close(y)  # log pi = 0 on both sides: no bonus, no entropy


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("backup", list(BACKUPS))
def test_forbidden_actions_have_no_part_in_the_target(kind: Kind, backup: str) -> None:
    online, target = table(kind, 7), table(kind, 8)
    b = batch(transitions(MASK), MASK)
    before = target_of(kind, BACKUPS[backup], online, target, b)
    for tables in (online, target):  # a huge value (of a forbidden action) if it were looked at
        tables.z[~torch.tensor(MASK)] = torch.linspace(0, 900, NUMBERS[kind], dtype=torch.float64) + 100
    assert target_of(kind, BACKUPS[backup], online, target, b) == before


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_munchausen_with_equal_values_counts_the_actions(kind: Kind, allowed: int) -> None:
    """log pi = -log |A|, of the allowed ones."""
    same = torch.linspace(-0.3, 0.4, NUMBERS[kind], dtype=torch.float64).expand(STATES, ACTIONS, -1)
    target = Table(same)
    mask = [[a < allowed for a in range(ACTIONS)]] * STATES
    b = batch([(0, 0, 1, 0.2, 0.5)], mask)
    backup = Munchausen(alpha=0.9, temperature=0.03, clip=-1.0)
    y = td_target(VALUES[kind], backup, table(kind, 9), target, b)
    entropy = 0.03 * math.log(allowed)
    expected = 0.2 - 0.9 * entropy + 0.5 * (mean(kind, same[0, 0].tolist()) + entropy)
    assert VALUES[kind].expected(y).item() == close(expected, rel=1e-12)


@pytest.mark.parametrize("kind", list(VALUES))
def test_munchausen_with_a_dominant_action_is_greedy_and_clips_the_others(kind: Kind) -> None:
    z = torch.zeros(STATES, ACTIONS, NUMBERS[kind], dtype=torch.float64)
    z[:, 1] = torch.tensor([-30.0, -30, -30, -30, 30]) if kind == "c51" else 1.4  # the atom 1.5, or nearly
    online, target = table(kind, 10), Table(z)
    value = VALUES[kind]
    backup = Munchausen(alpha=0.9, temperature=0.01, clip=-0.5)
    steps = [(0, 1, 2, -1.0, 0.5), (0, 0, 2, -0.6, 0.5)]
    taken, other = value.expected(td_target(value, backup, online, target, batch(steps, None))).tolist()
    plain = value.expected(td_target(value, Greedy(), online, target, batch(steps, None))).tolist()
    assert taken == close(plain[0], abs=1e-9)  # the dominant action was taken: no bonus
    assert other == close(plain[1] + 0.9 * -0.5, abs=1e-9)  # clipped before alpha, not after
    unclipped = Munchausen(alpha=0.9, temperature=0.01, clip=-100.0)
    assert value.expected(td_target(value, unclipped, online, target, batch(steps, None)))[1] < other - 0.3


@pytest.mark.parametrize("temperature", [1e-4, 1e-2])
def test_munchausen_is_stable_in_float32(temperature: float) -> None:
    target = Table(torch.tensor([[[0.0], [900.0], [-900.0]]] * STATES))
    b = batch([(0, 2, 1, 0.0, 0.99), (1, 1, 1, 0.0, 0.99)], None)
    b32 = Batch(b.obs.float(), b.action, b.reward.float(), b.discount.float(), b.next_obs.float())
    y = td_target(Scalar(), Munchausen(0.9, temperature, -1.0), target, target, b32).squeeze(-1)
    assert y.tolist() == close([-0.9 + 0.99 * 900, 0.99 * 900], rel=1e-6)


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("backup", list(BACKUPS))
def test_a_terminal_is_worth_its_reward(kind: Kind, backup: str) -> None:
    online, target = table(kind, 11), table(kind, 12)
    target.z[2] += torch.arange(float(NUMBERS[kind]), dtype=torch.float64)  # whatever stands there
    y = td_target(VALUES[kind], BACKUPS[backup], online, target, batch([(0, 1, 2, 0.25, 0.0)], None))
    expected = 0.25
    if backup == "munchausen":  # the bonus is of the action taken, which a terminal has too
        expected += 0.9 * max(-1.0, 0.4 * log_policy(kind, target.rows[0], [0, 1, 2], 0.4)[1])
    assert VALUES[kind].expected(y).item() == close(expected, rel=1e-12)
    if kind in ("qr", "qr0", "iqn"):
        assert y[0].tolist() == close([expected] * NUMBERS[kind])


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("backup", list(BACKUPS))
def test_online_and_target_have_different_parts(kind: Kind, backup: str) -> None:
    """Only a double target looks at the online network; a Munchausen target takes both policies from the target's."""
    one, other = table(kind, 13), table(kind, 14)
    third = Table(-one.z, one.tau)  # prefers other actions
    b = batch(transitions(None), None)
    here = target_of(kind, BACKUPS[backup], one, other, b)
    assert here != target_of(kind, BACKUPS[backup], other, one, b)
    assert (here == target_of(kind, BACKUPS[backup], third, other, b)) == (backup != "double")


@pytest.mark.parametrize("kind", list(VALUES))
def test_the_log_policy_of_the_action_taken_is_the_target_networks(kind: Kind) -> None:
    online, target = table(kind, 16), table(kind, 17)
    b = batch([(0, 1, 2, 0.0, 0.0)], None)  # a terminal: only the bonus is left
    heat = 0.4
    y = VALUES[kind].expected(td_target(VALUES[kind], Munchausen(0.9, heat, -1.0), online, target, b)).item()
    praise = [max(-1.0, heat * log_policy(kind, x.rows[0], [0, 1, 2], heat)[1]) for x in (online, target)]
    assert abs(praise[0] - praise[1]) > 1e-3
    assert y == close(0.9 * praise[1], rel=1e-12)
