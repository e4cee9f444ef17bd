"""The run directory: where a run keeps its configuration, and how it is made and found."""

import fcntl
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from qlearn.config import Config, check, override, to_dict
from qlearn.errors import RunError, UsageError, nearest
from qlearn.runs.files import reading, replace_file, writing

CONFIG, COMMAND, METRICS, SUMMARY = "config.toml", "command.txt", "metrics.jsonl", "summary.json"
CURVE, TENSORBOARD, CHECKPOINTS, TABLE = "learning_curve.png", "tensorboard", "checkpoints", "table.png"


def create(config: Config, where: str | Path | None = None, command: str = "") -> Path:
    """Make the directory of a new run and write its configuration.

    Args:
        config: the run's configuration.
        where: the directory; by default the first free `runs/ENV/PRESET-seedN-NNN`.
        command: the command as typed.

    Raises:
        UsageError: `where` exists and is not empty.
    """
    if where is not None:
        path = Path(where)
        with writing(path):
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(f"{path} exists; a run never overwrites another. Choose a new --run-dir")
            path.mkdir(parents=True, exist_ok=True)
    else:
        path = _next_free(Path("runs") / re.sub(r"[^\w.-]+", "-", config.env.id), config)
    write_config(path, config)
    replace_file(path / COMMAND, (command + "\n").encode())
    return path


def _next_free(parent: Path, config: Config) -> Path:
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / f"{config.preset}-seed{config.seed}-{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path


def read_config(path: Path) -> Config:
    """The configuration of the run in `path`, checked.

    Raises:
        UsageError: there is no such directory.
        RunError: it is not a run's, or its configuration is damaged.
    """
    if not path.is_dir():
        known = [str(p.parent) for p in Path("runs").glob(f"*/*/{CONFIG}")]
        raise UsageError(f"there is no run {path}{nearest(str(path), known)}")
    if not (path / CONFIG).exists():
        raise RunError(f"{path} is not a run: it has no {CONFIG}")
    with reading(path / CONFIG):
        data = tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
    try:
        return check(override(Config(), data))
    except UsageError as error:
        raise RunError(f"{path / CONFIG} is not a configuration of qlearn's: {error}") from error


def trusted_config(path: Path) -> Config:
    """`read_config`, for those who are going to make the run's environment.

    A run may come from a stranger, so its files cannot have a module imported: that of an environment `module:Id`
    must be there already.

    Raises:
        UsageError: it is not.
    """
    config = read_config(path)
    module = config.env.id.rpartition(":")[0]
    if module and module not in sys.modules:
        raise UsageError(
            f"{path} was trained in {config.env.id}, and the files of a run may not import {module}; "
            f"if you trust it, add --module {module} (in Python: import it first)"
        )
    return config


def write_config(path: Path, config: Config) -> None:
    """Replace the configuration of the run in `path`."""
    replace_file(path / CONFIG, tomli_w.dumps(to_dict(config)).encode())


def command(verb: str, path: Path, *words: str) -> str:
    """The command that does something with a run, as it can be typed."""
    config = read_config(path)
    if config.network.torso == "custom":  # the command line cannot know a network of your own
        return f"qlearn.{'load' if verb == 'play' else verb}({str(path)!r}, network=...) in Python"
    module = config.env.id.rpartition(":")[0]
    return shlex.join(["qlearn", verb, str(path), *words, *(["--module", module] if module else [])])


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the run in `path` for this process, and see that it writes nowhere else.

    Raises:
        RunError: another process writes to it, or a part of it is a link to another place.
    """
    for name in (METRICS, TENSORBOARD, CHECKPOINTS):
        if (path / name).is_symlink():
            raise RunError(f"{path / name} is a link; a run writes into its own directory only")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{path} is being written by another process") from None
        yield
    finally:
        os.close(descriptor)
