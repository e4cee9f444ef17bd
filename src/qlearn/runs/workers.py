"""The runs of a suite at work: each in a process of its own, as many at once as there are cores, none lost.

A process is told to stop by SIGINT, as by Ctrl-C, and saves itself. It is told so too when the suite vanishes: the end
of its standard input says that.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import IO, Any

from qlearn.config import Config, override, to_dict
from qlearn.errors import QlearnError
from qlearn.runs import directory, results
from qlearn.runs.board import Board
from qlearn.runs.files import reading, replace_file, writing
from qlearn.runs.session import Interrupted
from qlearn.runs.suite import Item, Suite, require_same

WORKER = (sys.executable, "-P", "-m", "qlearn.cli.worker")  # -P: no file of this folder stands in for a library's


def work(suite: Suite, *, jobs: int | None = None, command: str = "", board: Board | None = None) -> list[results.Row]:
    """Run what is still to be run; the rows of all. What is done already is not touched.

    Args:
        suite: a checked file.
        jobs: runs at a time; by default as many as there are cores for this process.
        command: the command as typed; the same one goes on after a stop.
        board: shows how it goes.

    Raises:
        SomeFailed: some runs did; all the others are done.
        Interrupted: the user stopped it, and the runs are saved.
        RunError: the disk failed, or another process works at the same suite. UsageError: a run that is there is not
            what the file says.
    """
    board = board or Board(silent=True)
    with writing(suite.out):
        suite.out.mkdir(parents=True, exist_ok=True)
    with directory.alone(suite.out):
        require_same(suite)
        crew = _Crew(suite, command, board)
        todo = [item for item in suite.items if not crew.has(item)]
        board.start(suite.items, todo)
        try:
            with _ctrl_c(crew):
                crew.write()
                crew.run(todo, jobs or cores())
        finally:
            board.close()
    done = f"{len(crew.rows)} of {len(suite.items)} runs are done"
    if crew.asked and len(crew.rows) < len(suite.items):
        raise Interrupted(f"stopped and saved; {done}; continue with: {command}")
    if crew.failed:
        raise SomeFailed(f"{done}; failed: {', '.join(crew.failed)}. The same command tries again: {command}")
    return list(crew.rows.values())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SomeFailed(QlearnError):
    """Some runs of a suite failed; the others are done."""


class _Crew:
    """The processes that are running, the rows that are there, and what failed."""

    def __init__(self, suite: Suite, command: str, board: Board) -> None:
        self.suite, self.command, self.board = suite, command, board
        self.asked, self.failed = False, list[str]()
        self._lock = threading.Lock()  # of the board, the rows and their file
        self._running: list[subprocess.Popen[str]] = []
        self._untold: list[subprocess.Popen[str]] = []  # of a stop that was asked for
        known = {str(item.path.relative_to(suite.out)) for item in suite.items}
        there = results.read(suite.out) if (suite.out / results.RESULTS).exists() else []
        self.rows = {row["run"]: row for row in there if row["run"] in known}

    def has(self, item: Item) -> bool:
        """Whether a run is done: trained to its end as the file says, and evaluated; it may be gone since."""
        row = self.rows.get(self._name(item))
        if row and row["evaluation"]["episodes"] == self.suite.episodes:
            there = item.path.exists()
            if (item.path / directory.SUMMARY).exists() if there else self._same(item, row.get("config", {})):
                return True
        self.rows.pop(self._name(item), None)
        return False

    def _same(self, item: Item, config: dict[str, Any]) -> bool:
        with reading(f"the row of {self._name(item)} in {self.suite.out / results.RESULTS}"):
            return override(Config(), config) == item.config

    def write(self) -> None:
        """Replace the file of results; its rows are in the order of the suite."""
        names = [self._name(item) for item in self.suite.items]
        header = {
            "name": self.suite.name,
            "command": self.command,
            "protocol": results.PROTOCOL.format(episodes=self.suite.episodes),
            "suite": self.suite.text,
        }
        results.write(self.suite.out, header, [self.rows[name] for name in names if name in self.rows])

    def run(self, todo: Sequence[Item], jobs: int) -> None:
        """Run these, `jobs` at a time."""
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for future in as_completed([pool.submit(self._one, item) for item in todo]):
                    future.result()
            except BaseException:
                self.ask()  # whatever went wrong here, no process goes on without us
                raise

    def ask(self) -> None:
        """Tell the processes to stop: the first time each saves itself, the second time it does not."""
        if self.asked:
            self._untold.extend(self._running)
        self.asked = True
        self._tell()

    def _tell(self) -> None:
        with suppress(IndexError):  # taken one by one: a process that starts at this moment is told exactly once
            while True:
                self._untold.pop().send_signal(signal.SIGINT)

    def _one(self, item: Item) -> None:
        if self.asked:
            return
        name = self._name(item)
        with self._lock:
            self.board.begin(name)
        outcome, error = self._process(item, name)
        with self._lock:
            if outcome:
                row = results.row(item.config, item.label, item.path, name, outcome)
                self.rows[name] = row
                self.write()
                self.board.end(name, f"evaluation {row['score']:.1f}, {outcome['summary']['wall_seconds']:.0f} s")
            elif self.asked:
                self.board.end(name, "stopped", done=False)
            else:
                self.failed.append(name)
                self.board.end(name, f"failed: {error}", done=False)

    def _process(self, item: Item, name: str) -> tuple[dict[str, Any] | None, str]:
        """Train and evaluate in a process of its own; what came of it, or why nothing did."""
        task = {
            "config": to_dict(item.config),
            "path": str(item.path),
            "episodes": self.suite.episodes,
            "command": self.command,
            "module": item.config.env.id.rpartition(":")[0],
        }
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        outcome, error = None, ""
        with tempfile.TemporaryFile() as log:
            # A process group of its own: the terminal's Ctrl-C reaches us alone, and we pass it on, once.
            with subprocess.Popen(WORKER, **pipes, stderr=log, env=alone, process_group=0) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                self._running.append(process)
                self._untold.append(process)
                if self.asked:
                    self._tell()
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(task) + "\n")
                    process.stdin.flush()
                for line in process.stdout:
                    said = json.loads(line)
                    outcome, error = said.get("outcome"), said.get("error", "")
                    if "steps" in said:
                        with self._lock:
                            self.board.update(name, said["steps"], said["mean_return"])
                code = process.wait()
                self._running.remove(process)
                with suppress(ValueError):
                    self._untold.remove(process)
            if outcome or self.asked:
                return outcome, ""
            return None, error or self._crash(item, code, log)

    def _crash(self, item: Item, code: int, log: IO[bytes]) -> str:
        """Why a process ended that could not say so itself. All that it wrote is kept beside the run."""
        log.seek(0)
        data = log.read()
        lines = data.decode(errors="replace").strip().splitlines()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if not lines:
            return f"ended with code {code}"
        path = item.path.with_name(f"{item.path.name}.log")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
        return f"{lines[-1]} ({path})"

    def _name(self, item: Item) -> str:
        return str(item.path.relative_to(self.suite.out))


@contextmanager
def _ctrl_c(crew: _Crew) -> Iterator[None]:
    """Ctrl-C stops the processes, not us: we wait for them to save themselves. In another thread it is not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(*_: object) -> None:
        crew.board.say(
            "stopping at once" if crew.asked else "stopping; the runs save themselves (Ctrl-C again stops at once)"
        )
        crew.ask()

    old = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
