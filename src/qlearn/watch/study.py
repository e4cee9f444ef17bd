"""What takes seconds: the run's newest checkpoint opened, an episode played, the memory and the network looked at."""

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qlearn import dqn, runs
from qlearn.build import MakeNetwork, Parts, build, build_envs, build_rules
from qlearn.config import Config
from qlearn.envs import GymEnvs
from qlearn.errors import QlearnError
from qlearn.runs import checkpoint, directory
from qlearn.runs.surroundings import free_memory, size
from qlearn.tabular import Table
from qlearn.types import Array
from qlearn.values import Value
from qlearn.watch.episode import Tape, episodes
from qlearn.watch.health import health
from qlearn.watch.memory import batches, memory, transitions
from qlearn.watch.names import actions_of
from qlearn.watch.verdicts import verdicts_of

LARGEST = 2e9  # bytes of a replay memory that is read for the page, at most
OBSERVATIONS = 512  # on which units are watched


@dataclass
class Opened:
    """A checkpoint that can be looked at: its network, and all parts of its run where these could be had."""

    config: Config
    steps: int
    network: nn.Module
    value: Value
    parts: Parts | None
    note: str  # why there are no parts


def study(run: Path, last: dict[str, float | None] | None = None, network: MakeNetwork | None = None) -> dict[str, Any]:
    """Everything on the page that needs the run's network.

    Each panel that cannot be made has a `note` in its place that says why.

    Args:
        run: the run directory.
        last: its newest metrics.
        network: the network of a run that has one of your own.
    """
    started = time.perf_counter()
    record: dict[str, Any] = {"steps": -1, "verdicts": verdicts_of(run)}
    try:
        with opened(run, network) as found, played_in(found.config) as (envs, frames):
            record |= {"steps": found.steps, **_panels(found, envs, frames, (last or {}).get("epsilon"))}
    except Exception as error:  # of a stranger's files and environment anything may come; a page can say so
        ours = "" if isinstance(error, QlearnError) else f"{type(error).__name__}: "
        note = {"note": ours + " ".join(str(error).split())}
        record |= {"player": note, "replay": note, "network": note}
    return {**record, "seconds": time.perf_counter() - started}


def _panels(found: Opened, envs: GymEnvs, frames: bool, behaved: float | None) -> dict[str, Any]:
    rules = build_rules(found.config)
    epsilons = {"greedy": rules[1].epsilon if rules else 0.0}
    if behaved is not None and behaved > epsilons["greedy"]:
        epsilons["as in training"] = behaved
    told, tapes = zip(*episodes(found.network, found.value, envs, found.config, epsilons, frames=frames), strict=True)
    replay = _replay(found, actions_of(envs, found.config.env.id))
    return {
        "player": {"episodes": told},
        "replay": replay,
        "network": _network(found, tapes[0]),
        "bound": bound(found.config, tapes, replay),
    }


@contextmanager
def opened(run: Path, network: MakeNetwork | None = None) -> Iterator[Opened]:
    """The newest checkpoint, on the CPU.

    Raises:
        UsageError: it needs a network or a module that is not given. RunError: it is damaged, or there is none.
    """
    config = on_cpu(directory.trusted_config(run))
    note = too_large(run)
    if note:
        agent = runs.load(run, network)
        saved = checkpoint.newest(run / directory.CHECKPOINTS, [checkpoint.NETWORKS])
        yield Opened(config, saved.steps, agent.network, agent.value, None, note)
        return
    saved = checkpoint.newest(run / directory.CHECKPOINTS)
    parts = build(config, network)
    try:
        saved.restore(parts)
        yield Opened(config, saved.steps, parts.learner.online, parts.learner.value, parts, "")
    finally:
        parts.envs.close()


def on_cpu(config: Config) -> Config:
    """The configuration for one who only looks: on the CPU, nothing compiled, every digit."""
    runtime = dataclasses.replace(config.runtime, device="cpu", precision="fp32", compile="eager")
    return dataclasses.replace(config, runtime=runtime)


def too_large(run: Path) -> str:
    """Why the replay memory of the newest checkpoint is not read, where it takes too much memory."""
    free = free_memory()
    found = checkpoint.list_checkpoints(run / directory.CHECKPOINTS)
    with suppress(OSError):
        if found and (found[-1] / checkpoint.REPLAY).exists():
            bytes_ = (found[-1] / checkpoint.REPLAY).stat().st_size
            if bytes_ > LARGEST or (free is not None and 3 * bytes_ > free):
                return f"the replay memory takes {size(bytes_)}, too much to read it beside what else runs here"
    return ""


@contextmanager
def played_in(config: Config) -> Iterator[tuple[GymEnvs, bool]]:
    """An environment of the run, and whether it draws frames."""
    if os.name == "posix" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames need no screen
    try:
        envs, frames = build_envs(config, 1, seed=0, stream="evaluate", render_mode="rgb_array"), True
    except (QlearnError, AssertionError):
        envs, frames = build_envs(config, 1, seed=0, stream="evaluate"), False
    try:
        yield envs, frames
    finally:
        envs.close()


def _replay(found: Opened, actions: list[str]) -> dict[str, Any]:
    if found.parts is None:
        return {"note": found.note}
    learner, replay = found.parts.learner, found.parts.replay
    if replay is None or not isinstance(learner, dqn.Learner):
        return {"note": f"{found.config.algorithm} has no replay memory"}
    return memory(learner, replay, found.parts.envs.space, found.config.learner.batch_size, actions)


def _network(found: Opened, tape: Tape) -> dict[str, Any]:
    if isinstance(found.network, Table):
        visited = int((found.network.visits.sum(-1) > 0).sum())
        states, actions = found.network.q.shape
        return {"note": f"a table of {states:,} states and {actions} actions; {visited:,} states were visited"}
    learner = found.parts.learner if found.parts else None
    target = learner.target if isinstance(learner, dqn.Learner) else None
    obs, source = _observations(found, tape)
    return health(found.network, dict(target.named_parameters()) if target else None, obs, source)


def _observations(found: Opened, tape: Tape) -> tuple[Tensor, str]:
    """Those that the network's units are watched on, and where they come from."""
    parts = found.parts
    if parts is not None and parts.replay is not None and isinstance(parts.learner, dqn.Learner):
        rows = transitions(parts.replay)
        if len(rows):
            rows = np.random.default_rng(0).choice(rows, min(len(rows), OBSERVATIONS), replace=False)
            size_ = found.config.learner.batch_size
            return torch.cat([batch.obs.clone() for batch in batches(parts.learner, rows, size_)]), "replay memory"
    places = np.linspace(0, len(tape.inputs) - 1, min(len(tape.inputs), OBSERVATIONS)).astype(int)
    seen: Array = np.stack([tape.inputs[place] for place in places])
    return torch.from_numpy(seen), "episode above"


def bound(config: Config, tapes: tuple[Tape, ...], replay: dict[str, Any]) -> float | None:
    """r_max / (1 - gamma): no return is larger where no reward is; None where gamma is 1."""
    if config.replay.gamma >= 1:
        return None
    largest = max([0.0, *(reward for tape in tapes for reward in tape.reward), replay.get("largest_reward", 0.0)])
    largest = min(largest, 1.0) if config.replay.clip_rewards else largest
    return float(largest / (1 - config.replay.gamma))
