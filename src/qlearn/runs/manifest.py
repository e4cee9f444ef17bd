"""The manifest of a checkpoint: what its files are, and of which run; and where checkpoints lie.

It ends with its own digest, so that no byte of a checkpoint can change unseen.
"""

import json
import platform
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from qlearn.errors import RunError
from qlearn.runs.files import digest, read_bytes, reading

FORMAT = 4  # 1: networks without a head of their own; 2: weights channels first; 3: the whole replay in one file
MANIFEST = "MANIFEST.json"
NETWORKS, TRAINING, STATE = "networks.safetensors", "training.safetensors", "state.json"
MOST = 64_000_000  # bytes of a manifest, or a state
PACKAGES = ("qlearn", "torch", "numpy", "gymnasium", "ale-py")  # that decide what a run does


class File(NamedTuple):
    """A file, as it is when it is whole."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, data: bytes) -> "File":
        """Of this content."""
        return cls(name, len(data), digest(data))

    def read(self, folder: Path) -> bytes:
        """Its content, which is what it should be.

        Raises:
            RunError: it is not.
        """
        data = read_bytes(folder / self.name, self.size)
        if len(data) != self.size or digest(data) != self.sha256:
            raise RunError(f"{folder / self.name} is damaged: its digest is not the one in {MANIFEST}")
        return data


class Segment(NamedTuple):
    """A file with rows of the replay memory, counted from the first ever written: from `first` to before `end`."""

    first: int
    end: int
    file: File


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    steps: int
    mean_return: float | None  # of the last episodes, where there were enough
    config: dict[str, Any]  # of the run, when it was written
    versions: dict[str, str]  # of what decides what a run does
    files: tuple[File, ...]
    segments: tuple[Segment, ...] = ()

    def encoded(self) -> bytes:
        """As it is written."""
        body = {"format": FORMAT, **asdict(self)}
        return json.dumps({**body, "sha256": digest(_dumped(body))}, indent=1).encode()

    def file(self, name: str) -> File:
        """The file of that name."""
        return next(file for file in self.files if file.name == name)

    @classmethod
    def read(cls, checkpoint: Path) -> "Manifest":
        """That of a checkpoint.

        Raises:
            RunError: there is none, or it is damaged, or of another format.
        """
        path = checkpoint / MANIFEST
        data = read_bytes(path, MOST)
        with reading(path):
            body = json.loads(data)
            if body["format"] != FORMAT:
                raise RunError(f"{checkpoint} has format {body['format']}; this qlearn reads format {FORMAT}")
            own = body.pop("sha256")
            if own != digest(_dumped(body)) or data != json.dumps({**body, "sha256": own}, indent=1).encode():
                raise ValueError("its digest is not its own")
            files = tuple(File(*file) for file in body["files"])
            segments = tuple(Segment(first, end, File(*file)) for first, end, file in body["segments"])
            for file in files:
                _require(file, file.name in (NETWORKS, TRAINING, STATE))
            for segment in segments:
                _require(
                    segment.file, re.fullmatch(r"rows-\d+-\d+-[0-9a-f]{16}\.safetensors", segment.file.name) is not None
                )
            return cls(int(body["steps"]), body["mean_return"], body["config"], body["versions"], files, segments)


def _require(file: File, known: bool) -> None:
    """Raises KeyError for a name that no file of a checkpoint has, ValueError for one that is no file."""
    if not known:
        raise KeyError(file.name)
    if not (isinstance(file.size, int) and isinstance(file.sha256, str)):
        raise ValueError(f"{file} is no file")


def _dumped(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def versions() -> dict[str, str]:
    """Those of Python and of packages, where they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first."""
    found = ((re.fullmatch(r"steps-(\d{9,18})", p.name), p) for p in directory.glob("steps-*") if not p.is_symlink())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]
