"""Durable writes: a file or a directory is there whole, or not at all. They live here and only here."""

import hashlib
import os
import shutil
import stat
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
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """A file's content, if it is a plain file, no link to another one, and of no more than `most` bytes.

    Raises:
        RunError: it is not, or cannot be read.
    """
    with reading(path):
        if path.is_symlink():
            raise RunError(f"{path} is a link; the files of a run are its own")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RunError(f"{path} is not a plain file")
            if most is not None and status.st_size > most:
                raise RunError(f"{path} is damaged, or not what it should be: it has {status.st_size:,} bytes")
            return file.read()


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


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
