"""Durable writes: a file or a directory is there whole, or not at all. They live here and only here."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from qlearn.errors import RunError


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """Turn a failure of the file system into one line that names the file and what is safe."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"cannot write {what}: {reason}; what was written before is intact") from error


@contextmanager
def reading(what: Path | str) -> Iterator[None]:
    """Turn whatever a damaged or hostile file does to its reader into one line that names it."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{what} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, MemoryError, SafetensorError) as error:
        raise RunError(f"{what} is damaged, or not what it should be: {type(error).__name__}: {error}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Wait until a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """The SHA-256 of a file, however large."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that its name always stands for the old content or the new, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            write_bytes(temporary, data)
            os.replace(temporary, path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path` when the block ends, and vanishes where it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            sync_directory(temporary)
            os.rename(temporary, path)
            sync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
