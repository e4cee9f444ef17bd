"""Compiled equals eager, for every product of the axes: `python benchmarks/cpu/products.py`.

Value x backup x dueling x noisy x n-step, 96 in all, each compiled, and 100 updates of the same minibatches beside
eager ones, as in tests/test_engine.py. A row for each goes to benchmarks/results/cpu-products.json as it comes: the
largest differences of errors, losses, parameters and Q-values, relative to their largest number.
"""

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch
from compare import write
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from qlearn import dqn
from tests.test_engine import AXES, beside, product

UPDATES = 100


def apart(mine: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6))


def one(value: str, backup: str, *, dueling: bool, noisy: bool, n: int) -> dict[str, Any]:
    """A row."""
    eager, compiled = beside(product(value, backup, dueling=dueling, noisy=noisy, prioritized=False, n=n))
    a, b = eager.learner, compiled.learner
    assert isinstance(a, dqn.Learner)
    assert isinstance(b, dqn.Learner)
    assert eager.replay is not None
    errors, losses = [0.0], [0.0]
    for k in range(UPDATES):
        index, weight = eager.replay.sample(16)
        errors.append(apart(b.update(index, weight), a.update(index, weight)))
        losses.append(abs(b.descent.gradient.loss / a.descent.gradient.loss - 1) if a.descent.gradient.loss else 0.0)
        if k % 20 == 10:
            a.synchronize()
            b.synchronize()
    obs = torch.from_numpy(eager.actor.seen)
    told = {
        "value": value,
        "backup": backup,
        "dueling": dueling,
        "noisy": noisy,
        "n_step": n,
        "compiled": b.descent.compiled and b.acting._program.compiled,
        "errors": max(errors),
        "losses": max(losses),
        "parameters": apart(b.descent.flat.vector, a.descent.flat.vector),
        "q_values": apart(b.q_values(obs), a.q_values(obs)),
    }
    eager.envs.close()
    compiled.envs.close()
    return told


def main() -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for (value, backup), dueling, noisy, n in itertools.product(AXES, (False, True), (False, True), (1, 3)):
        rows.append(one(value, backup, dueling=dueling, noisy=noisy, n=n))
        print(rows[-1], flush=True)
        worst = {name: max(row[name] for row in rows) for name in ("errors", "losses", "parameters", "q_values")}
        compiled = sum(row["compiled"] for row in rows)
        loads = [os.getloadavg()[0]]
        write(
            "cpu-products", "", loads, {"qlearn": "qlearn"}, updates=UPDATES, compiled=compiled, worst=worst, rows=rows
        )


if __name__ == "__main__":
    main()
