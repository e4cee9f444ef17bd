"""What a run shows while it trains: a bar with its numbers on a terminal, plain lines anywhere else."""

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from qlearn.runs.progress import Progress as RunProgress


class Display(Protocol):
    """Something that is told how a run goes."""

    def update(self, progress: RunProgress, statistics: dict[str, float]) -> None:
        """Called often; shows what it likes."""

    def say(self, message: str) -> None:
        """Show a line."""

    def close(self) -> None:
        """The run is over."""


class Silent:
    """Shows nothing."""

    def update(self, progress: RunProgress, statistics: dict[str, float]) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Terminal:
    """A live bar on a terminal, a line every `seconds` elsewhere."""

    def __init__(self, total_steps: int, *, console: Console | None = None, seconds: float = 10.0) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.total = total_steps
        self._live = self.console.is_terminal
        self._interval = 0.1 if self._live else seconds
        self._next = 0.0
        self._last: tuple[float, int] | None = None
        self._speed: float | None = None
        if self._live:
            self._bar = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                _Numbers(),
                console=self.console,
                transient=False,
            )
            self._task = self._bar.add_task("train", total=total_steps, numbers="")
            self._bar.start()

    def update(self, progress: RunProgress, statistics: dict[str, float]) -> None:
        """Show the numbers, if it is time to."""
        now = time.monotonic()
        if now < self._next and progress.tick.steps < self.total:
            return
        self._next = now + self._interval
        steps = progress.tick.steps
        if self._last and now > self._last[0]:
            speed = (steps - self._last[1]) / (now - self._last[0])
            self._speed = speed if self._speed is None or not self._live else 0.9 * self._speed + 0.1 * speed
        self._last = (now, steps)
        if self._live:
            self._bar.update(self._task, completed=steps, numbers=self._numbers(progress, statistics))
        else:
            self.console.print(f"step {steps:,}/{self.total:,}  {self._numbers(progress, statistics)}")

    def say(self, message: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(message, markup=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._live:
            self._bar.stop()

    def _numbers(self, progress: RunProgress, statistics: dict[str, float]) -> str:
        mean = progress.mean_return
        parts = [
            f"episode {progress.episodes:,}",
            f"mean return {mean:.1f}" if mean is not None else "mean return -",
            f"epsilon {progress.tick.epsilon:.2f}",
            f"loss {statistics['loss']:.3g}" if "loss" in statistics else "warm-up",
        ]
        if self._speed is not None:
            parts.append(f"{self._speed:,.0f} steps/s")
        return "  ".join(parts)


class _Numbers(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields["numbers"]))
