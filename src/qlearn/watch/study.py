"""What takes seconds: the run's newest checkpoint opened, an episode played, the memory and the network looked at."""

import copy
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
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from qlearn import dqn, runs
from qlearn.build import MakeNetwork, Parts, build, build_envs, build_rules
from qlearn.config import Config
from qlearn.engine import load_module_tensors
from qlearn.envs import GymEnvs
from qlearn.errors import QlearnError, RunError
from qlearn.runs import checkpoint, directory
from qlearn.runs.files import reading
from qlearn.runs.manifest import NETWORKS, Manifest, list_checkpoints
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
    target: nn.Module | None  # where the algorithm has one
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
    config, where = to_look(directory.trusted_config(run)), run / directory.CHECKPOINTS
    note = too_large(run)
    if not note:
        try:
            steps, parts = restored(config, where, network)
        except RunError as error:
            note = str(error)
        else:
            learner = parts.learner
            target = learner.target if isinstance(learner, dqn.Learner) else None
            try:
                yield Opened(config, steps, learner.online, learner.value, parts, target, "")
            finally:
                parts.envs.close()
            return
    agent, saved = runs.load(run, network), checkpoint.newest(where, [NETWORKS])
    target = copy.deepcopy(agent.network) if config.algorithm == "dqn" else None
    if target is not None:
        with reading(saved.path):
            load_module_tensors(target, load_tensors(saved.content(NETWORKS)), "target.")
    yield Opened(config, saved.steps, agent.network, agent.value, None, target, note)


def restored(config: Config, where: Path, network: MakeNetwork | None) -> tuple[int, Parts]:
    """The steps of the newest checkpoint, and all parts of the run as they were then.

    Raises:
        RunError: there is none, or it is damaged, or it is of a machine whose generators are not here.
    """
    saved, parts = checkpoint.newest(where), build(config, network)
    try:
        saved.restore(parts)
    except BaseException:
        parts.envs.close()
        raise
    return saved.steps, parts


def to_look(config: Config) -> Config:
    """The configuration for one who only looks: on the CPU, nothing compiled, every digit, all in this process."""
    runtime = dataclasses.replace(config.runtime, device="cpu", precision="fp32", compile="eager")
    return dataclasses.replace(config, runtime=runtime, env=dataclasses.replace(config.env, isolated=False))


def too_large(run: Path) -> str:
    """Why the replay memory of the newest checkpoint is not read, where it takes too much memory."""
    found, free = list_checkpoints(run / directory.CHECKPOINTS), free_memory()
    with suppress(RunError):
        if found:
            manifest = Manifest.read(found[-1])
            bytes_ = sum(file.size for file in (*manifest.files, *(segment.file for segment in manifest.segments)))
            if bytes_ > LARGEST or (free is not None and 3 * bytes_ > free):
                return f"the replay memory is too much to read beside what runs here: {size(bytes_)}"
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
    obs, source = _observations(found, tape)
    target = None if found.target is None else dict(found.target.named_parameters())
    return health(found.network, target, obs, source)


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
