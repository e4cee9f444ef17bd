"""What surrounds a run: the user's Ctrl-C, and PyTorch's threads."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from qlearn.build import Parts, threads


class Stop:
    """Ctrl-C asks once; a second one is not asked but obeyed. Outside the main thread there is no asking."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked, self._say = False, say
        self._old: Any = None

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _ask(self, *_: int | FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say("stopping; saving first (Ctrl-C again stops at once)")


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
