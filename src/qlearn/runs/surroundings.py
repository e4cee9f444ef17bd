"""What surrounds a run: the user's Ctrl-C, the machine's memory and disk, and PyTorch's threads."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from qlearn.build import Parts, threads
from qlearn.errors import UsageError

MUCH = 1e9  # bytes worth a line


class Stop:
    """Ctrl-C, or SIGTERM, asks once; a second one is not asked but obeyed. Outside the main thread is no asking."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked, self._say = False, say
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._old = {which: signal.signal(which, self._ask) for which in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for which, old in self._old.items():
            signal.signal(which, old)

    def _ask(self, *_: int | FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say("stopping; saving first (once more stops at once)")


def require_room(parts: Parts, folder: Path, say: Callable[[str], None], runs: int = 1) -> None:
    """Tell what a run, or several together, will need of memory and disk, where it is much.

    Raises:
        UsageError: it is more than there is; the message names the field to change.
    """
    if parts.replay is None:
        return
    replay, runtime = parts.config.replay, parts.config.runtime
    most = runs * parts.replay.ring.most_bytes(parts.config.steps * 5 // 4)  # and the episodes' ends
    disk = most * (runtime.keep_checkpoints + 1)
    wanted, memory, free = f"replay.capacity is {replay.capacity:,}", free_memory(), free_disk(folder)
    if memory is not None and most > memory:
        fix = "a smaller one" if replay.compress else "--replay.compress True, or a smaller one"
        raise UsageError(f"{wanted}, which takes {size(most)} of memory; there are {size(memory)}; use {fix}")
    if free is not None and disk > free:
        fix = "smaller ones" if replay.compress else "--replay.compress True, or smaller ones"
        raise UsageError(
            f"{wanted} and runtime.keep_checkpoints {runtime.keep_checkpoints}, so checkpoints take {size(disk)} of "
            f"disk; there are {size(free)} in {folder}; use {fix}"
        )
    if most > MUCH or disk > MUCH:
        say(f"needs up to {size(most)} of memory for the replay, and {size(disk)} of disk for its checkpoints")


def free_disk(folder: Path) -> int | None:
    """Bytes that are free where a folder is, or will be."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path.cwd())
    with suppress(OSError):
        return shutil.disk_usage(there).free
    return None


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def free_memory() -> int | None:
    """Bytes of memory that a process may still take, as far as the system says."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError, StopIteration):  # of a container
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        stale = next(x for x in (group / "memory.stat").read_text().splitlines() if x.startswith("inactive_file "))
        found.append(int(most) - int(used) + int(stale.split()[1]))
    return min(found, default=None)


@contextmanager
def threads_of(parts: Parts) -> Iterator[None]:
    """PyTorch with the threads of a run."""
    before, count = torch.get_num_threads(), threads(parts.config, parts.envs.space)
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
