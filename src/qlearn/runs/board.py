"""What a suite shows while it runs: bars on a terminal, a line for each run that ends anywhere else."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from qlearn.runs.suite import Item


class Board:
    """The runs that are done, running and to do, and about how long it takes. Where its output fails it falls silent.

    Args:
        console: where it shows them.
        seconds: between lines on the runs that are running, where there is no terminal.
        silent: shows nothing.
    """

    def __init__(self, *, console: Console | None = None, seconds: float = 60.0, silent: bool = False) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._seconds, self._broken = seconds, silent
        self._bars: Progress | None = None
        self._all, self._tasks = TaskID(0), dict[str, TaskID]()
        self._steps: dict[str, int] = {}  # of each run, at its end
        self._now: dict[str, tuple[int, float | None]] = {}  # of each that is running
        self._first: dict[str, int] = {}  # where each began, or went on from
        self._worked = self._total = self._runs = self._done = 0
        self._started = self._next = time.monotonic()

    def start(self, items: Sequence[Item], todo: Sequence[Item]) -> None:
        """The suite begins, or goes on."""
        self._steps = {f"{item.path.parent.name}/{item.path.name}": item.config.steps for item in items}
        self._runs, self._done = len(items), len(items) - len(todo)
        self._total = sum(item.config.steps for item in todo)
        self._started, self._next = time.monotonic(), time.monotonic() + self._seconds
        if not self.console.is_terminal or self._broken:
            self.say(f"{self._runs} runs: {self._done} done, {len(todo)} to do")
            return
        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[numbers]}")
        self._bars = Progress(*columns, console=self.console, redirect_stdout=False, redirect_stderr=False)
        self._all = self._bars.add_task("all runs", total=max(1, self._total), numbers=self._standing())
        with self._harmless():
            self._bars.start()

    def begin(self, name: str) -> None:
        """A run starts, or goes on."""
        self._now[name] = (0, None)
        if self._bars:
            self._tasks[name] = self._bars.add_task(name, total=self._steps[name], numbers="")

    def update(self, name: str, steps: int, mean_return: float | None) -> None:
        """A run has come so far."""
        self._first.setdefault(name, steps)
        self._now[name] = (steps, mean_return)
        if self._bars:
            with self._harmless():
                self._bars.update(self._tasks[name], completed=steps, numbers=self._numbers(name))
                self._show()
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            running = ", ".join(f"{name} {self._numbers(name)}" for name in self._now)
            self.say(f"{self._standing()}; {running}")

    def end(self, name: str, how: str, *, done: bool = True) -> None:
        """A run is over."""
        steps, _ = self._now.pop(name)
        self._worked += self._steps[name] if done else steps
        self._done += done
        if self._bars:
            with self._harmless():
                self._bars.remove_task(self._tasks.pop(name))
                self._show()
        self.say(f"{name}  {how}  ({self._standing()})")

    def say(self, message: str) -> None:
        """Print a line, above the bars where there are some."""
        if self._broken:
            return
        with self._harmless():
            self.console.print(message, markup=False)

    def close(self) -> None:
        """The suite is over, for now."""
        if self._bars:
            with self._harmless():
                self._bars.stop()

    def _show(self) -> None:
        assert self._bars is not None
        worked = self._worked + sum(steps for steps, _ in self._now.values())
        self._bars.update(self._all, completed=worked, numbers=self._standing())

    def _numbers(self, name: str) -> str:
        steps, mean = self._now[name]
        return f"step {steps:,}/{self._steps[name]:,}" + ("" if mean is None else f"  mean return {mean:.1f}")

    def _standing(self) -> str:
        text = f"{self._done} of {self._runs} runs done"
        worked = self._worked + sum(steps for steps, _ in self._now.values())
        fresh = worked - sum(self._first.values())  # what was trained before this start took no time now
        if fresh <= 0 or worked >= self._total:
            return text
        left = (time.monotonic() - self._started) / fresh * (self._total - worked)
        return f"{text}, about {timedelta(seconds=round(left))} left"

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SystemExit):  # rich leaves the program where its reader has gone; a suite must not
            self._broken = True
