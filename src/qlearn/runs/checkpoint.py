"""Checkpoints: tensors in safetensors, the rest in JSON, and a manifest with the digest of every file.

Nothing here can run code: no pickle, no name is imported. A checkpoint that is damaged is found by its digests, and
the one before it is taken.
"""

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from qlearn.build import Parts
from qlearn.engine import load_module_tensors
from qlearn.errors import MisfitError, RunError
from qlearn.runs.files import digest, new_directory, reading, sync_file, write_bytes, writing
from qlearn.types import Array

FORMAT = 3  # 1: networks without a head of their own; 2: convolutions' weights channels first
MANIFEST = "MANIFEST.json"
NETWORKS, REPLAY, STATE = "networks.safetensors", "replay.safetensors", "state.json"
NAMES = (NETWORKS, "optimizer.safetensors", REPLAY, STATE)  # optimizer and replay where the algorithm has them


def save(parts: Parts, directory: Path, steps: int, progress: dict[str, Any], keep: int) -> Path:
    """Write the state of a run as `directory/steps-NNNNNNNNN`, then remove all but the newest `keep`."""
    path = directory / f"steps-{steps:09d}"
    generators = {name: rng.bit_generator.state for name, rng in parts.generators().items()}
    state = {"progress": progress, "rng": generators, "env_episodes": parts.envs.episodes}
    files = {f"{name}.safetensors": save_tensors(tensors) for name, tensors in parts.learner.tensors().items()}
    rows: dict[str, Array] = {}
    if parts.replay is not None:
        rows, state["ring"] = parts.replay.state()
        rows |= {"last_obs": parts.actor.obs} | ({} if parts.actor.mask is None else {"last_mask": parts.actor.mask})
    files[STATE] = json.dumps(state).encode()
    with new_directory(path) as temporary:
        for name, data in files.items():
            write_bytes(temporary / name, data)
        if rows:  # written from where they lie: there may not be room for them twice
            bytes_of = {k: v.view(np.uint8) if v.dtype == bool else v for k, v in rows.items()}
            save_arrays({k: np.ascontiguousarray(v) for k, v in bytes_of.items()}, temporary / REPLAY)
            sync_file(temporary / REPLAY)
        digests = {p.name: {"bytes": p.stat().st_size, "sha256": digest(p)} for p in sorted(temporary.iterdir())}
        manifest = {"format": FORMAT, "steps": steps, "files": digests}
        write_bytes(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
    for old in list_checkpoints(directory)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first."""
    found = ((re.fullmatch(r"steps-(\d{9,})", p.name), p) for p in directory.glob("steps-*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


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
    """A checkpoint whose files are what its manifest says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path / MANIFEST):
            manifest = json.loads((path / MANIFEST).read_bytes())
            if manifest["format"] != FORMAT:
                raise RunError(f"{path} has format {manifest['format']}; this qlearn reads format {FORMAT}")
            self._digests: dict[str, dict[str, Any]] = dict(manifest["files"])
            self.steps = int(manifest["steps"])

    def checked(self, name: str) -> Path:
        """A file of the checkpoint, which is what the manifest says."""
        path = self.path / name
        with reading(path):
            if name not in NAMES:
                raise KeyError(name)
            told = self._digests[name]
            if path.stat().st_size != told["bytes"] or digest(path) != told["sha256"]:
                raise RunError(f"{path} is damaged: its digest is not the one in {MANIFEST}")
        return path

    def load_network(self, network: torch.nn.Module) -> None:
        """Fill the online network."""
        with self._reading():
            load_module_tensors(network, self._tensors(NETWORKS), "online.")

    def restore(self, parts: Parts) -> dict[str, Any]:
        """Fill all parts of a run, and return its progress. The running episodes are started anew."""
        with self._reading():
            state = json.loads(self.checked(STATE).read_bytes())
            parts.learner.restore(
                {name: self._tensors(f"{name}.safetensors") for name in ("networks", "optimizer") if self.has(name)}
            )
            if parts.replay is not None:
                rows = load_arrays(self.checked(REPLAY))
                rows = {k: v.astype(bool) if k in BOOLS else v for k, v in rows.items()}
                last = rows.pop("last_obs"), rows.pop("last_mask", None)
                parts.replay.restore(rows, state["ring"])
                parts.replay.ring.cut(*last)
            for name, rng in parts.generators().items():
                rng.bit_generator.state = state["rng"][name]
            parts.envs.continue_after(state["env_episodes"])
            progress = dict(state["progress"])
        parts.actor.restart()
        return progress

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with reading(f"{self.path} (for this configuration)"):
            try:
                yield
            except MisfitError as error:
                raise RunError(f"the network in {self.path} is another one: {error}") from error

    def has(self, name: str) -> bool:
        """Whether there are tensors of that name."""
        return f"{name}.safetensors" in self.names

    @property
    def names(self) -> list[str]:
        """The files that it says it has."""
        return [name for name in NAMES if name in self._digests]

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        with reading(self.path / name):
            tensors: dict[str, torch.Tensor] = load_tensors(self.checked(name).read_bytes())
            return tensors


def newest(directory: Path, names: Sequence[str] = ()) -> Checkpoint:
    """The newest checkpoint in which the files `names`, or all, are whole; a damaged one is passed over with a warning.

    Raises:
        RunError: there is none.
    """
    found = list_checkpoints(directory)
    for path in reversed(found):
        try:
            checkpoint = Checkpoint(path)
            for name in names or checkpoint.names:
                checkpoint.checked(name)
        except RunError as error:
            if path == found[0]:
                raise
            warnings.warn(f"{error}; taking the checkpoint before it", stacklevel=2)
            continue
        return checkpoint
    raise RunError(f"{directory} holds no checkpoint: the run ended before its first one")


BOOLS = ("terminated", "done", "final", "mask", "last_mask")
