"""What a run shows while it trains: a bar with its numbers on a terminal, plain lines anywhere else."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.text import Text

from qlearn.runs.progress import Progress as RunProgress
from qlearn.scores import text


class Display(Protocol):
    """Something that is told how a run goes. It must never stop one."""

    def start(self, total_steps: int) -> None:
        """The run begins, or goes on."""

    def update(self, progress: RunProgress, statistics: dict[str, float]) -> None:
        """Called often; shows what it likes."""

    def say(self, message: str) -> None:
        """Show a line."""

    def close(self) -> None:
        """The run is over."""


class Silent:
    """Shows nothing."""

    def start(self, total_steps: int) -> None:
        """Nothing."""

    def update(self, progress: RunProgress, statistics: dict[str, float]) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Terminal:
    """A live bar on a terminal, a line every `seconds` elsewhere. Where its output fails it falls silent."""

    def __init__(self, *, console: Console | None = None, seconds: float = 10.0) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._interval = 0.1 if self.console.is_terminal else seconds
        self._bar: Progress | None = None
        self._total, self._task, self._next = 0, TaskID(0), 0.0
        self._last: tuple[float, int] | None = None
        self._speed: float | None = None
        self._broken = False
        self._heard = Heard(self.say)

    def start(self, total_steps: int) -> None:
        """Show the bar, where there is a terminal, and what the library says meanwhile."""
        self._heard.listen()
        self._total = total_steps
        if self.console.is_terminal:
            self._bar = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                _Numbers(),
                console=self.console,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("train", total=total_steps, numbers="")
            with self._harmless():
                self._bar.start()

    def update(self, progress: RunProgress, statistics: dict[str, float]) -> None:
        """Show the numbers, if it is time to."""
        now, steps = time.monotonic(), progress.tick.steps
        if self._broken or (now < self._next and steps < self._total):
            return
        self._next = now + self._interval
        if self._last and now > self._last[0]:
            speed = (steps - self._last[1]) / (now - self._last[0])
            self._speed = speed if self._speed is None or not self._bar else 0.9 * self._speed + 0.1 * speed
        self._last = (now, steps)
        numbers = self._numbers(progress, statistics)
        with self._harmless():
            if self._bar:
                self._bar.update(self._task, completed=steps, numbers=numbers)
            else:
                self.console.print(f"step {steps:,}/{self._total:,}  {numbers}", markup=False)

    def say(self, message: str) -> None:
        """Print a line, above the bar where there is one."""
        with self._harmless():
            self.console.print(message, markup=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._heard.leave()
        if self._bar:
            with self._harmless():
                self._bar.stop()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SystemExit):  # rich leaves the program where its reader has gone; a run must not
            self._broken = True

    def _numbers(self, progress: RunProgress, statistics: dict[str, float]) -> str:
        mean = progress.mean_return
        parts = [
            f"episode {progress.episodes:,}",
            f"mean return {text(mean)}" if mean is not None else "mean return -",
            f"epsilon {np.mean(progress.tick.epsilon):.2f}",
            *(f"{name} {statistics[name]:.3g}" for name in ("loss", "td_error") if name in statistics),
        ]
        if self._speed is not None:
            parts.append(f"{self._speed:,.0f} steps/s")
            if not self._bar and self._speed > 0 and progress.tick.steps < self._total:  # a bar tells it by itself
                parts.append(f"{duration((self._total - progress.tick.steps) / self._speed)} left")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """A time as people say it, `40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


class Heard:
    """Passes on what qlearn logs while a run goes on, a line each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._log, self._level = logging.getLogger("qlearn"), logging.NOTSET
        self._handler = logging.Handler(logging.INFO)
        self._handler.emit = lambda record: say(record.getMessage())  # type: ignore[method-assign]

    def listen(self) -> None:
        """From now on."""
        self._level = self._log.level
        self._log.addHandler(self._handler)
        if not self._log.isEnabledFor(logging.INFO):
            self._log.setLevel(logging.INFO)

    def leave(self) -> None:
        """No more."""
        self._log.removeHandler(self._handler)
        self._log.setLevel(self._level)


class _Numbers(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields["numbers"]))
