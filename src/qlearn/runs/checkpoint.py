"""Checkpoints: tensors in safetensors, the rest in JSON, and a manifest with the digest of every file.

Nothing here can run code: no pickle, no name is imported. A checkpoint that is damaged is found by its digests, and
the one before it is taken.
"""

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from qlearn.build import Parts
from qlearn.errors import RunError
from qlearn.runs.files import new_directory, reading, write_bytes, writing
from qlearn.types import Array

FORMAT = 1
MANIFEST = "MANIFEST.json"
NAMES = ("networks.safetensors", "optimizer.safetensors", "replay.safetensors", "state.json")


def save(parts: Parts, directory: Path, steps: int, progress: dict[str, Any], keep: int) -> Path:
    """Write the state of a run as `directory/steps-NNNNNNNNN`, then remove all but the newest `keep`."""
    path = directory / f"steps-{steps:09d}"
    learner, ring = parts.learner, parts.replay.ring
    networks = {f"online.{k}": v for k, v in learner.online.state_dict().items()}
    networks |= {f"target.{k}": v for k, v in learner.target.state_dict().items()}
    rows, ring_state = ring.state()
    moments = learner.optimizer.state_dict()["state"].get(0, {})
    state = {
        "progress": progress,
        "ring": ring_state,
        "rng": {"actor": parts.actor.rng.bit_generator.state, "replay": parts.replay.rng.bit_generator.state},
        "env_episodes": parts.envs.episodes,
    }
    with new_directory(path) as temporary:
        files = {
            "networks.safetensors": save_tensors({k: v.detach().clone() for k, v in networks.items()}),
            "optimizer.safetensors": save_tensors({k: torch.as_tensor(v) for k, v in moments.items()}),
            "replay.safetensors": save_arrays({**_bytes_for_bools(rows), "last_obs": parts.actor.obs}),
            "state.json": json.dumps(state).encode(),
        }
        for name, data in files.items():
            write_bytes(temporary / name, data)
        digests = {k: {"bytes": len(v), "sha256": hashlib.sha256(v).hexdigest()} for k, v in files.items()}
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

    def read(self, name: str) -> bytes:
        """A file of the checkpoint, where it is what the manifest says."""
        with reading(self.path / name):
            digest = self._digests[name]
            data = (self.path / name).read_bytes()
            if len(data) != digest["bytes"] or hashlib.sha256(data).hexdigest() != digest["sha256"]:
                raise RunError(f"{self.path / name} is damaged: its digest is not the one in {MANIFEST}")
        return data

    def load_network(self, network: torch.nn.Module) -> None:
        """Fill the online network."""
        _load(network, self._tensors("networks.safetensors"), "online.", self.path)

    def restore(self, parts: Parts) -> dict[str, Any]:
        """Fill all parts of a run, and return its progress. The running episodes are started anew."""
        tensors = self._tensors("networks.safetensors")
        _load(parts.learner.online, tensors, "online.", self.path)
        _load(parts.learner.target, tensors, "target.", self.path)
        with reading(f"{self.path} (for this configuration)"):
            state = json.loads(self.read("state.json"))
            rows = load_arrays(self.read("replay.safetensors"))
            moments = self._tensors("optimizer.safetensors")
            optimizer = parts.learner.optimizer
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": groups})
            last_obs = rows.pop("last_obs")
            parts.replay.ring.restore({k: v.astype(bool) if k in BOOLS else v for k, v in rows.items()}, state["ring"])
            parts.replay.ring.cut(last_obs)
            parts.actor.rng.bit_generator.state = state["rng"]["actor"]
            parts.replay.rng.bit_generator.state = state["rng"]["replay"]
            parts.envs.continue_after(state["env_episodes"])
            progress = dict(state["progress"])
        parts.actor.restart()
        return progress

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        with reading(self.path / name):
            tensors: dict[str, torch.Tensor] = load_tensors(self.read(name))
            return tensors


def newest(directory: Path, names: Sequence[str] = NAMES) -> Checkpoint:
    """The newest checkpoint in which the files `names` are whole; a damaged one is passed over with a warning.

    Raises:
        RunError: there is none.
    """
    found = list_checkpoints(directory)
    for path in reversed(found):
        try:
            checkpoint = Checkpoint(path)
            for name in names:
                checkpoint.read(name)
        except RunError as error:
            if path == found[0]:
                raise
            warnings.warn(f"{error}; taking the checkpoint before it", stacklevel=2)
            continue
        return checkpoint
    raise RunError(f"{directory} holds no checkpoint: the run ended before its first one")


BOOLS = ("terminated", "done", "final")


def _bytes_for_bools(rows: dict[str, Array]) -> dict[str, Array]:
    return {k: v.astype(np.uint8) if k in BOOLS else v for k, v in rows.items()}


def _load(module: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = module.state_dict()
    wrong = [k for k in own if k not in mine or mine[k].shape != own[k].shape] + [k for k in mine if k not in own]
    if wrong:
        raise RunError(f"the network in {path} is another one: {wrong[0]} does not fit")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(mine[name])
