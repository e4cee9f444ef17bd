"""What a run left behind, read once: all that the rules look at."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlearn import dqn
from qlearn.actor import Actor
from qlearn.build import Parts, build, build_envs, build_rules
from qlearn.config import Config
from qlearn.doctor.report import NotJudgedError
from qlearn.doctor.sample import SAMPLE, Sample, batches, sampled
from qlearn.doctor.trace import Trace, clock, play
from qlearn.envs import GymEnvs
from qlearn.networks import evaluating
from qlearn.prioritized import Prioritized
from qlearn.replay import Ring
from qlearn.runs import checkpoint, directory, metrics
from qlearn.runs.files import reading
from qlearn.types import Array

EPISODES, TURNS = 10, 1_000  # of greedy play: environments, an episode in each, and the steps that it may take
BATCHES = 100  # that are drawn by their priorities
TIMED = 200  # random steps that are timed


Line = Mapping[str, Any]  # of metrics: numbers by name, None where there is none
NEEDED = {"train": ("steps", "updates"), "episode": ("steps", "return", "length")}


@dataclass(frozen=True)
class Memory:
    """The replay memory.

    `clock` is how well the step of an episode can be told from its observation: the part of its variance that a linear
    function explains; None where that was not asked. `effective` is, of prioritised replay, the part of a minibatch
    that its weights leave: (sum w)^2 / (n sum w^2).
    """

    trace: Trace
    clock: float | None = None
    effective: float | None = None


@dataclass(frozen=True)
class Evidence:
    """A run as the rules see it.

    `train` and `episodes` are lines of its metrics. What was made of the newest checkpoint is None where there is none;
    `missing` says why. `played` is what the greedy policy did when it was let play, `env_seconds` what a step of the
    environment takes.
    """

    config: Config
    steps: int
    finished: bool
    solved: bool
    train: tuple[Line, ...]
    episodes: tuple[Line, ...]
    memory: Memory | None = None
    sample: Sample | None = None
    played: Trace | None = None
    env_seconds: float | None = None
    missing: str = ""

    def series(self, name: str, least: int = 1) -> Array:
        """A number of the training lines, `[n]`, those lines that have it."""
        found = np.array([line[name] for line in self.train if line.get(name) is not None], np.float64)
        if len(found) < least:
            raise NotJudgedError(f"{len(found)} lines of metrics tell {name}; it takes {least}")
        return found

    def returns(self, least: int) -> Array:
        """The returns of the run's episodes, `[n]`."""
        if len(self.episodes) < least:
            raise NotJudgedError(f"{len(self.episodes)} episodes have ended; it takes {least}")
        return np.array([line["return"] for line in self.episodes], np.float64)

    def updates(self, least: int = 0) -> int:
        """Gradient updates so far."""
        config, made = self.config, int(self.train[-1]["updates"]) if self.train else 0
        if config.algorithm == "dqn":  # also those since the last line
            made = max(made, int(max(0, self.steps - config.replay.warmup_steps) * config.learner.replay_ratio))
        if made < least:
            raise NotJudgedError(f"{made:,} updates were made; it takes {least:,}")
        return made

    def remembered(self, least: int = 100) -> Memory:
        """The replay memory."""
        if self.config.algorithm != "dqn":
            raise NotJudgedError(f"{self.config.algorithm} has no replay memory")
        if self.memory is None:
            raise NotJudgedError(self.missing)
        if len(self.memory.trace.rewards) < least:
            raise NotJudgedError(f"the replay memory holds {len(self.memory.trace.rewards)} steps; it takes {least}")
        return self.memory

    def sampled(self) -> Sample:
        """What the network makes of observations."""
        if self.sample is None:
            raise NotJudgedError(self.missing)
        return self.sample

    def shown(self) -> Trace:
        """What the greedy policy did."""
        if self.played is None:
            raise NotJudgedError(self.missing)
        return self.played


def read_run(path: Path) -> Evidence:
    """All that there is of the run in `path`.

    Raises:
        UsageError: there is no such run, or its environment is that of a module that is not imported.
        RunError: it is damaged.
    """
    config = directory.trusted_config(path)
    file, summary = path / directory.METRICS, _summary(path / directory.SUMMARY)
    of = {kind: tuple(_lines(path, kind)) if file.exists() else () for kind in NEEDED}
    told = Evidence(
        config,
        steps=max([int(line["steps"]) for lines in of.values() for line in lines[-1:]] + [summary.get("steps", 0)]),
        finished=bool(summary),
        solved=bool(summary.get("solved")),
        train=of["train"],
        episodes=of["episode"],
    )
    if config.network.torso == "custom":
        return dataclasses.replace(told, missing="its network is your own, and not in its files")
    if config.runtime.device == "cuda" and not torch.cuda.is_available():  # nor could its generators be restored
        return dataclasses.replace(told, missing="it was trained on a GPU, and there is none here")
    parts = restored(path, config)
    if parts is None:
        return dataclasses.replace(told, missing="there is no checkpoint yet")
    try:
        return _with_parts(told, parts)
    finally:
        parts.envs.close()


def restored(path: Path, config: Config) -> Parts | None:
    """The parts of a run as its newest checkpoint has them, eager, networks on the CPU; None where there is none."""
    where = path / directory.CHECKPOINTS
    if not any(where.glob("steps-*")):
        return None
    runtime = dataclasses.replace(config.runtime, precision="fp32", compile="eager")
    saved = checkpoint.newest(where)
    parts = build(dataclasses.replace(config, runtime=runtime))
    try:
        saved.restore(parts)
    except BaseException:
        parts.envs.close()
        raise
    parts.learner.online.cpu()
    if isinstance(parts.learner, dqn.Learner):
        parts.learner.target.cpu()
    return parts


def _lines(path: Path, kind: str) -> Iterator[Line]:
    """The lines of metrics of a kind, as numbers."""
    with reading(path / directory.METRICS):
        for line in metrics.read(path, kind):
            numbers = {name: None if value is None else float(value) for name, value in line.items() if name != "kind"}
            for name in NEEDED[kind]:
                value = numbers.get(name)
                if value is None or not math.isfinite(value):
                    raise ValueError(f"{name} is {value} in a line of kind {kind}")
            yield numbers


def _summary(file: Path) -> dict[str, Any]:
    """What was written at the end of the run, if it has come to that."""
    if not file.exists():
        return {}
    with reading(file):
        summary = json.loads(file.read_bytes())
        return {"steps": int(summary["steps"]), "solved": bool(summary["solved"])}


def _with_parts(told: Evidence, parts: Parts) -> Evidence:
    """The evidence with what a checkpoint shows."""
    config, learner = parts.config, parts.learner
    rules = build_rules(config)
    envs = build_envs(config, EPISODES, stream="doctor")
    try:
        with evaluating(learner.online):

            def q_values(obs: Tensor) -> Tensor:
                with torch.no_grad():
                    return learner.value.mean(learner.online(obs))

            actor = Actor(envs, q_values, np.random.default_rng(0), stack=config.env.frame_stack)
            played, seen = play(actor, rules[1].epsilon if rules else 0.0, TURNS, 1)
            ring = None if parts.replay is None else parts.replay.ring
            drawn = [] if ring is None else batches(ring, config.learner.batch_size)
            sample = sampled(parts, seen[:SAMPLE], drawn)
        seconds = seconds_per_step(envs)
    finally:
        envs.close()
    memory = None if ring is None else _memory(parts, ring)
    return dataclasses.replace(told, memory=memory, sample=sample, played=played, env_seconds=seconds)


def _memory(parts: Parts, ring: Ring) -> Memory:
    """The ring in order of time."""
    used = min(ring.written, ring.rows)
    order = np.arange(ring.written - used, ring.written) % ring.rows
    column = {name: values[order] for name, values in ring.columns.items() if name != "obs"}
    reward = column["reward"].clip(-1, 1) if ring.clip else column["reward"]
    trace = Trace(
        reward.astype(np.float64),
        column["terminated"],
        column["done"],
        column["final"],
        np.full(reward.shape, np.nan),
        fresh=ring.written <= ring.rows,
    )
    return Memory(
        trace,
        _clock(ring, trace, order, parts.envs.space.categories),
        _effective(parts.replay, parts.config.learner.batch_size),
    )


def _clock(ring: Ring, trace: Trace, order: Array, categories: int) -> float | None:
    """How well the step of an episode can be told from its observation; see `Memory`."""
    if "obs" not in ring.columns:
        return None
    obs = ring.columns["obs"]
    return clock(trace, lambda rows, env: obs[order[rows], env], categories)


def _effective(replay: object, size: int) -> float | None:
    """The part of minibatches of `size` that prioritised replay's weights leave, on average."""
    if not isinstance(replay, Prioritized) or not replay.count:
        return None
    p = replay.probability(np.flatnonzero(replay.tree.leaves))
    p = p / p.sum()
    beta = replay.beta(replay.steps) if callable(replay.beta) else replay.beta
    drawn = np.random.default_rng(0).choice(p, (BATCHES, size), p=p)
    weight = (len(p) * drawn) ** -beta
    return float((weight.sum(1) ** 2 / (size * (weight**2).sum(1))).mean())


def seconds_per_step(envs: GymEnvs, stack: int = 1) -> float:
    """What a random step of one of the environments takes."""
    actor = Actor(envs, lambda obs: torch.zeros(len(obs), 1), np.random.default_rng(0), stack=stack)
    count = -(-TIMED // envs.num_envs)
    start = time.perf_counter()
    for _ in range(count):
        actor.rollout(1.0)
    return (time.perf_counter() - start) / (count * envs.num_envs)
