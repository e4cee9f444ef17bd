"""Seconds from the start of a process to a solved agent: `python benchmarks/cpu/solve.py ENV [--seeds 10]`.

Solved is a mean return of at least the goal over 100 episodes of the greedy policy. A training is a process of its own,
and its clock starts just before it does. It puts its weights aside every so many environment steps, with the time; when
it has ended they are evaluated in order, off the clock, and the first that reach the goal give the seconds. Both
libraries are evaluated by the same code, on the same starts. Where no weights reach the goal there are no seconds
(null), and the median counts them as infinite.

qlearn is the command, on settings of TASKS; qlearn-cold is the same with nothing compiled yet. sb3 is
Stable-Baselines3's DQN with the RL Zoo's settings (zoo.py). Libraries take turns; benchmarks/results/cpu-solve-ENV.json
is written after each training.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import write
from torch import Tensor, nn

from qlearn import presets
from qlearn.agent import Agent
from qlearn.build import build_envs, policy_parts
from qlearn.evaluate import evaluate
from qlearn.runs.checkpoint import Checkpoint
from qlearn.runs.directory import CHECKPOINTS, trusted_config
from qlearn.runs.manifest import list_checkpoints

HERE = Path(__file__).parent
PACKAGES = {"qlearn": "qlearn", "qlearn-cold": "qlearn", "sb3": "stable-baselines3"}
EPISODES = 100
FIRST = 100  # seed; the settings of TASKS were chosen on smaller ones

QValues = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """What is to be solved, and qlearn's settings for it; sb3's are in zoo.py."""

    goal: float
    every: int  # environment steps between weights
    steps: int
    preset: str = "dqn"
    overrides: tuple[str, ...] = ()


TASKS = {
    "CartPole-v1": Task(
        475.0,
        2_500,
        30_000,
        overrides=(
            *("--network.hidden", "128", "128", "--learner.batch-size", "64", "--learner.target-update-steps", "150"),
            *("--optimizer.learning-rate", "4e-3", "--exploration.decay-steps", "3000"),
        ),
    ),
    "LunarLander-v3": Task(  # as in benchmarks/lunarlander.toml
        200.0,
        10_000,
        100_000,
        overrides=(
            *("--env.num-envs", "4", "--replay.n-step", "3", "--learner.replay-ratio", "0.25"),
            *("--learner.target-update-steps", "500", "--optimizer.learning-rate", "2e-3"),
        ),
    ),
}


@dataclass(frozen=True)
class Weights:
    """A policy on the way: after how many environment steps, and seconds since its process was started."""

    steps: int
    seconds: float
    q_values: QValues


def command(env: str, seed: int) -> list[str]:
    """qlearn's command, as a user types it."""
    task = TASKS[env]
    return [
        *("qlearn", "train", env, "--preset", task.preset, "--seed", str(seed), "--steps", str(task.steps)),
        *("--no-until-solved", "--runtime.checkpoint-steps", str(task.every), "--runtime.keep-checkpoints", "1000"),
        *task.overrides,
    ]


def qlearn(env: str, seed: int, folder: Path, **variables: str) -> Iterator[Weights]:
    """Train with qlearn, then give the checkpoints; their times are those of their manifests, written last."""
    run = folder / "run"
    program, *arguments = command(env, seed)
    began = start([str(Path(sys.executable).parent / program), *arguments, "--run-dir", str(run)], **variables)
    config = trusted_config(run)
    for path in list_checkpoints(run / CHECKPOINTS):
        saved = Checkpoint(path)
        network, value, encoder = policy_parts(config)
        saved.load_network(network)
        seconds = (path / "MANIFEST.json").stat().st_mtime - began
        yield Weights(saved.steps, seconds, Agent(network, value, encoder).encoded_q_values)


def stable_baselines(env: str, seed: int, folder: Path) -> Iterator[Weights]:
    """Train with Stable-Baselines3, then give what it has put aside."""
    out, every = folder / "weights.pt", str(TASKS[env].every)
    began = start([sys.executable, str(HERE / "zoo.py"), env, "--seed", str(seed), "--every", every, "--out", str(out)])
    for steps, when, tensors in torch.load(out, weights_only=True):
        yield Weights(steps, when - began, perceptron(tensors))


def start(command: Sequence[str], **variables: str) -> float:
    """Run a process to its end; the time just before its start."""
    began = time.time()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", **variables})
    return began


def perceptron(tensors: dict[str, Tensor]) -> QValues:
    """Stable-Baselines3's Q-network, of its weights and biases in order."""
    layers: list[nn.Module] = []
    for weight, bias in zip(*[iter(tensors.values())] * 2, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    network = nn.Sequential(*layers[:-1])

    @torch.no_grad()
    def q_values(obs: Tensor) -> Tensor:
        q: Tensor = network(obs)
        return q

    return q_values


def train(library: str, env: str, seed: int) -> dict[str, Any]:
    """A training, and when it was solved: the scores in order, up to the first that reaches the goal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        match library:
            case "qlearn":
                weights = qlearn(env, seed, folder)
            case "qlearn-cold":
                cold = str(folder / "cache")
                weights = qlearn(env, seed, folder, XDG_CACHE_HOME=cold, TORCHINDUCTOR_CACHE_DIR=f"{cold}/inductor")
            case _:
                weights = stable_baselines(env, seed, folder)
        scores, solved = [], None
        for policy in weights:
            scores.append((policy.steps, round(policy.seconds, 3), round(greedy(policy.q_values, env), 2)))
            if scores[-1][2] >= TASKS[env].goal:
                solved = policy
                break
    return {
        "seed": seed,
        "seconds": solved and round(solved.seconds, 3),
        "steps": solved and solved.steps,
        "scores": scores,
    }


def greedy(q_values: QValues, env: str) -> float:
    """Mean return of the greedy policy, from the starts that `qlearn evaluate` has."""
    envs = build_envs(presets.get("dqn", env), 20, seed=0, stream="evaluate")
    try:
        return float(np.mean(evaluate(q_values, envs, EPISODES, env_id=env).returns))
    finally:
        envs.close()


def median(seconds: Sequence[float | None]) -> float | None:
    """The median, where no seconds are infinitely many; null where it is infinite."""
    middle = float(np.median([math.inf if s is None else s for s in seconds]))
    return round(middle, 3) if math.isfinite(middle) else None


def solve(env: str, libraries: Sequence[str], seeds: int) -> None:
    """All libraries in turn, and the file."""
    task = TASKS[env]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in libraries}
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        if "qlearn" in libraries:
            list(qlearn(env, 0, Path(folder)))  # compiles
    for seed in range(FIRST, FIRST + seeds):
        for name in libraries:
            loads.append(os.getloadavg()[0])
            runs[name].append(train(name, env, seed))
            last = runs[name][-1]
            print(env, name, seed, json.dumps({k: last[k] for k in ("seconds", "steps")}), flush=True)
            medians = {k: median([run["seconds"] for run in of]) for k, of in runs.items() if of}
            ours, theirs = medians.get("qlearn"), medians.get("sb3")
            write(
                f"cpu-solve-{env}",
                f"{env} --seeds {seeds} --libraries {' '.join(libraries)}",
                loads,
                {k: PACKAGES[k] for k in libraries},
                protocol=f"mean of {EPISODES} greedy episodes >= {task.goal:g}, tried every {task.every:,} steps",
                task=asdict(task),
                qlearn=" ".join(command(env, FIRST)),
                runs=runs,
                solved={k: f"{sum(run['seconds'] is not None for run in of)} of {len(of)}" for k, of in runs.items()},
                median_seconds=medians,
                ratio_of_medians=theirs / ours if ours and theirs else None,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--libraries", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    solve(given.env, given.libraries, given.seeds)


if __name__ == "__main__":
    main()
