"""Checkpoints: tensors in safetensors, the rest in JSON, and a manifest with the digest of every file.

Nothing here can run code: no pickle, no name is imported. A checkpoint that is damaged is found by its digests, and
the one before it is taken.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from qlearn.build import Parts
from qlearn.config import to_dict
from qlearn.engine import load_module_tensors
from qlearn.errors import MisfitError, RunError
from qlearn.runs import archive
from qlearn.runs.files import new_directory, reading, write_bytes, writing
from qlearn.runs.manifest import (
    MANIFEST,
    NETWORKS,
    STATE,
    TRAINING,
    File,
    Manifest,
    Segment,
    list_checkpoints,
    versions,
)
from qlearn.types import Array

GROUPS = ("optimizer", "last", "begun", "actor", "envs", "replay", "rows")  # of tensors in TRAINING


def save(
    parts: Parts, directory: Path, steps: int, progress: dict[str, Any], keep: int, mean_return: float | None = None
) -> Path:
    """Write the state of a run as `directory/steps-NNNNNNNNN`, then remove all but the newest `keep` and the best.

    The best has the largest `mean_return` of those that have one. It keeps its networks; only of the newest all rows
    of the replay memory stay.
    """
    path, there = directory / f"steps-{steps:09d}", list_checkpoints(directory)
    state: dict[str, Any] = {"progress": progress}
    state["rng"] = {name: rng.bit_generator.state for name, rng in parts.generators().items()}
    groups: dict[str, Mapping[str, Tensor | Array]] = dict(parts.learner.tensors())
    groups["envs"], state["envs"] = parts.envs.state()
    groups["actor"] = parts.actor.state()
    segments: tuple[Segment, ...] = ()
    with writing(path):
        if parts.replay is not None:
            groups["replay"], state["replay"] = parts.replay.state()
            before = Manifest.read(there[-1]) if there else None
            segments, rest = archive.store(parts.replay.ring, directory, before)
            groups["rows"], state["rest"] = parts.replay.ring.rows_of(rest), rest.start
    contents = {
        NETWORKS: save_tensors(dict(groups.pop("networks"))),  # type: ignore[arg-type]
        TRAINING: save_tensors({f"{g}.{name}": plain(t) for g, named in groups.items() for name, t in named.items()}),
        STATE: json.dumps(state).encode(),
    }
    files = tuple(File.of(name, data) for name, data in contents.items())
    manifest = Manifest(steps, mean_return, to_dict(parts.config), versions(), files, segments)
    with new_directory(path) as temporary:
        for name, data in [*contents.items(), (MANIFEST, manifest.encoded())]:
            write_bytes(temporary / name, data)
    prune(directory, keep)
    return path


def plain(tensor: Tensor | Array) -> Tensor:
    """As safetensors wants it."""
    return (tensor if isinstance(tensor, Tensor) else torch.from_numpy(tensor)).contiguous()


def prune(directory: Path, keep: int) -> None:
    """Remove what is no longer needed: all checkpoints but the newest and the best, and rows that only those had."""
    found = list_checkpoints(directory)
    newest_ones, old = found[-keep:], found[:-keep]
    if old:
        chosen = best(directory)
        for path in old:
            if path != chosen:
                shutil.rmtree(path, ignore_errors=True)
        archive.sweep(directory, newest_ones)


def best(directory: Path) -> Path | None:
    """The checkpoint with the largest mean return; None where none has one."""
    found = []
    for path in list_checkpoints(directory):
        try:
            mean = Manifest.read(path).mean_return
        except RunError:
            continue
        if mean is not None:
            found.append((mean, path))
    return max(found)[1] if found else None


def continue_from(directory: Path, steps: int) -> None:
    """Make way for the checkpoints after `steps`: set aside newer, damaged ones; sweep half-written ones."""
    with writing(directory):
        for path in list_checkpoints(directory):
            if int(path.name.removeprefix("steps-")) > steps:
                shutil.rmtree(directory / f"damaged-{path.name}", ignore_errors=True)
                path.rename(directory / f"damaged-{path.name}")
        for path in directory.glob(".steps-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


class Checkpoint:
    """A checkpoint with a manifest that is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.manifest = path, Manifest.read(path)
        self.steps, self.config = self.manifest.steps, self.manifest.config

    def check(self, names: Sequence[str] = ()) -> None:
        """Read the files of these names, or all and the segments.

        Raises:
            RunError: one is damaged.
        """
        for name in names or (NETWORKS, TRAINING, STATE):
            self.content(name)
        if not names:
            for segment in self.manifest.segments:
                segment.file.read(self.path.parent / archive.FOLDER)

    def content(self, name: str) -> bytes:
        """That of a file, which is what the manifest says."""
        with reading(self.path / name):
            return self.manifest.file(name).read(self.path)

    def load_network(self, network: torch.nn.Module) -> None:
        """Fill the online network."""
        with self._reading():
            load_module_tensors(network, load_tensors(self.content(NETWORKS)), "online.")

    def restore(self, parts: Parts) -> tuple[dict[str, Any], bool]:
        """Fill all parts of a run; its progress, and whether its running episodes go on where they were.

        They are played again from their seeds and actions. Where an environment does not come to the same, they are
        ended as by a time limit, and the next ones begin.
        """
        with self._reading():
            state = json.loads(self.content(STATE))
            groups: dict[str, dict[str, Tensor]] = {name: {} for name in GROUPS}
            for name, tensor in load_tensors(self.content(TRAINING)).items():
                group, _, own = name.partition(".")
                groups[group][own] = tensor
            arrays = {group: {name: t.numpy() for name, t in groups[group].items()} for group in GROUPS[3:]}
            if parts.replay is not None:
                ring, written = parts.replay.ring, int(state["replay"]["written"])
                rest = range(int(state["rest"]), written)
                archive.fetch(ring, self.path.parent, self.manifest.segments, rest, arrays["rows"])
                parts.replay.restore(arrays["replay"], state["replay"])
            parts.learner.restore({**groups, "networks": load_tensors(self.content(NETWORKS))})
            for name, rng in parts.generators().items():
                rng.bit_generator.state = state["rng"][name]
            return dict(state["progress"]), self._rebuild(parts, arrays, state["envs"])

    def _rebuild(self, parts: Parts, arrays: dict[str, dict[str, Array]], state: dict[str, Any]) -> bool:
        """Whether the running episodes go on."""
        there = arrays["actor"]
        parts.actor.restore(there)
        parts.envs.continue_after(state)
        if parts.envs.rebuild(arrays["envs"], state, there["obs"], there["returns"], there.get("mask")):
            return True
        parts.envs.continue_after(state)
        parts.leave_episodes(there["obs"], there.get("mask"))
        return False

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with reading(f"{self.path} (for this configuration)"):
            try:
                yield
            except MisfitError as error:
                raise RunError(f"the network in {self.path} is another one: {error}") from error


def newest(directory: Path, names: Sequence[str] = ()) -> Checkpoint:
    """The newest checkpoint in which the files `names`, or all, are whole; a damaged one is passed over with a warning.

    Raises:
        RunError: there is none.
    """
    found = list_checkpoints(directory)
    for path in reversed(found):
        try:
            checkpoint = Checkpoint(path)
            checkpoint.check(names)
        except RunError as error:
            if path == found[0]:
                raise
            warnings.warn(f"{error}; taking the checkpoint before it", stacklevel=2)
            continue
        return checkpoint
    raise RunError(f"{directory} holds no checkpoint: the run ended before its first one")
