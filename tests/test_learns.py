"""It learns: CartPole with a margin, several seeds, from the default preset shortened."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import qlearn


def cartpole(seed: int, folder: Path) -> float:
    torch.set_num_threads(1)
    run = qlearn.train(
        "CartPole-v1",
        seed=seed,
        steps=12_000,
        run_dir=folder / str(seed),
        progress=False,
        network={"hidden": (64, 64)},
        optimizer={"decay_steps": 12_000},
        exploration={"decay_steps": 3_000},
    )
    return float(np.mean(qlearn.evaluate(run.path, episodes=20).returns))


def test_cartpole_is_learned_by_every_seed(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        returns = list(pool.map(cartpole, range(4), [tmp_path] * 4))
    assert min(returns) > 100  # a random policy scores 22, a constant one 9
    assert np.mean(returns) > 150
