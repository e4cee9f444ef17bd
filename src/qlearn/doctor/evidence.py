"""What a run left behind, read once: all that the rules look at."""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qlearn import dqn
from qlearn.actor import Actor
from qlearn.build import Parts, build, build_envs, build_rules
from qlearn.config import Config
from qlearn.doctor.report import NotJudgedError
from qlearn.doctor.trace import Trace, clock, play
from qlearn.envs import GymEnvs
from qlearn.networks import evaluating
from qlearn.prioritized import Prioritized
from qlearn.replay import Ring, Uniform
from qlearn.runs import checkpoint, directory, metrics
from qlearn.runs.files import reading
from qlearn.types import Array, Batch

SAMPLE = 512  # observations that the network is asked about
EPISODES, TURNS = 10, 1_000  # of greedy play: environments, an episode in each, and the steps that it may take
BATCHES = 100  # that are drawn by their priorities
TIMED = 200  # random steps that are timed


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
class Sample:
    """What the network makes of observations, from the replay memory or else from play.

    q `[B, A]` is minus infinity where an action is not allowed. `size` is the root mean square of the network's inputs
    and `spread` the largest standard deviation of one of them; None of integers. `still` is the part of the stacks
    whose frames are all the same. `outside` is c51's part of the targets' probability beyond its atoms. `dormant` is
    the part of each hidden layer's units that are, `fan_in` the most inputs that a unit of the network has.
    """

    q: Array
    size: float | None = None
    spread: float | None = None
    still: float | None = None
    outside: float | None = None
    dormant: Mapping[str, float] = dataclasses.field(default_factory=dict)
    fan_in: int = 0


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
    train: tuple[Mapping[str, Any], ...]
    episodes: tuple[Mapping[str, Any], ...]
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
        made = int(self.train[-1]["updates"]) if self.train else 0
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
    lines = list(metrics.read(path)) if (path / directory.METRICS).exists() else []
    of = {kind: tuple(line for line in lines if line["kind"] == kind) for kind in ("train", "episode")}
    told = Evidence(
        config,
        steps=int(lines[-1]["steps"]) if lines else 0,
        finished=(path / directory.SUMMARY).exists(),
        solved=_solved(path / directory.SUMMARY),
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
    """The parts of a run as its newest checkpoint has them, eager, networks on the CPU; None where there is none yet."""
    where = path / directory.CHECKPOINTS
    if not checkpoint.list_checkpoints(where):
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


def _solved(summary: Path) -> bool:
    if not summary.exists():
        return False
    with reading(summary):
        return bool(json.loads(summary.read_bytes())["solved"])


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
            batches = [] if ring is None else _batches(ring, config.learner.batch_size)
            sample = _sampled(parts, seen[:SAMPLE], batches)
        seconds = seconds_per_step(envs)
    finally:
        envs.close()
    memory = None if ring is None else _memory(parts, ring)
    return dataclasses.replace(told, memory=memory, sample=sample, played=played, env_seconds=seconds)


def _batches(ring: Ring, size: int) -> list[Batch]:
    """Minibatches of the replay memory, drawn evenly, `SAMPLE` transitions in all; none where it has none yet."""
    if not ring.ready:
        return []
    uniform, batches = Uniform(ring, np.random.default_rng(0)), []
    for _ in range(-(-SAMPLE // size)):
        index = torch.from_numpy(uniform.draw(size))
        ring.prepare(index)
        batches.append(ring.batch(index))
    return batches


@torch.no_grad()
def _sampled(parts: Parts, seen: Tensor, batches: list[Batch]) -> Sample:
    """What the network makes of the observations of `batches`, or where there are none of those `seen`."""
    learner, config = parts.learner, parts.config
    obs = torch.cat([batch.obs for batch in batches]) if batches else seen
    space, stack = parts.envs.space, config.env.frame_stack
    q = learner.value.mean(learner.online(obs)).numpy()
    if batches and batches[0].mask is not None:
        masks = [batch.mask for batch in batches if batch.mask is not None]
        q = np.where(torch.cat(masks).numpy(), q, -np.inf)
    outside = None
    if isinstance(learner, dqn.Learner) and batches:
        with evaluating(learner.target):
            told = [
                learner.value.diagnose(
                    *dqn.backed_up(learner.value, learner.backup, learner.online, learner.target, batch)
                )
                for batch in batches
            ]
        outside = float(np.mean([t["outside_support"] for t in told])) if "outside_support" in told[0] else None
    size, spread = (None, None) if space.categories else measures(encoded(learner.online, obs))
    return Sample(
        q,
        size,
        spread,
        still=float((obs == obs[:, :1]).flatten(1).all(1).float().mean()) if stack > 1 else None,
        outside=outside,
        dormant=dormant(learner.online, obs),
        fan_in=max((p[0].numel() for p in learner.online.parameters() if p.ndim > 1), default=0),
    )


def encoded(network: nn.Module, obs: Tensor) -> Tensor:
    """What the network's first layer gets of observations."""
    encode = getattr(network, "encode", None)
    inputs: Tensor = obs.float() if encode is None else encode(obs)
    return inputs


def measures(inputs: Tensor) -> tuple[float, float]:
    """The root mean square of inputs `[B, ...]`, and the largest standard deviation of one of them."""
    flat = inputs.flatten(1).double()
    return float(flat.square().mean().sqrt()), float(flat.std(0, unbiased=False).max())


def dormant(network: nn.Module, obs: Tensor, tau: float = 0.025) -> dict[str, float]:
    """The part of the units of each layer of ReLUs that are dormant (Sokar et al. 2023, with their tau of 0.025).

    A unit is where its mean activation is no more than `tau` of its layer's mean. A filter is one unit.
    """
    shares: dict[str, float] = {}

    def look(name: str, out: Tensor) -> None:
        units = out.movedim(1, -1) if out.ndim == 4 else out
        mean = units.float().flatten(0, -2).abs().mean(0)
        shares[name] = float((mean <= tau * mean.mean()).float().mean())

    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.ReLU)]
    hooks = [part.register_forward_hook(lambda _m, _i, out, name=name: look(name, out)) for name, part in layers]
    try:
        network(obs)
    finally:
        for hook in hooks:
            hook.remove()
    return shares


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
