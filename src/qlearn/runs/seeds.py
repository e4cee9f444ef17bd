"""Several seeds of one configuration, trained in one process: each has a run directory of its own, as if run alone."""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from qlearn import cohort
from qlearn.build import Parts, build
from qlearn.config import Config, check
from qlearn.errors import EnvError, NotFiniteError, QlearnError, UsageError
from qlearn.runs import directory
from qlearn.runs.board import Board
from qlearn.runs.display import Heard
from qlearn.runs.progress import Progress, require_goal
from qlearn.runs.session import Interrupted, Run, Session
from qlearn.runs.suite import Item
from qlearn.runs.surroundings import Stop, require_room, threads_of


def start_seeds(config: Config, count: int, *, command: str = "", board: Board | None = None) -> list[Run]:
    """Train the seeds from `config.seed` upwards, `count` of them, and return the runs in their order.

    Raises:
        UsageError: the configuration asks for something that is not there, or its algorithm is not dqn.
        SomeEnded: the environment or the numbers of some failed; the others have come to their end.
        Interrupted: the user stopped them; they are saved.
    """
    if not can_share(config):
        raise UsageError("only runs of the algorithm dqn on the CPU are trained together, and none that compress")
    require_goal(config)
    configs = [check(dataclasses.replace(config, seed=config.seed + i)) for i in range(count)]
    with ExitStack() as stack:
        members = []
        for one in configs:
            members.append(build(one))
            stack.callback(members[-1].envs.close)
        board = board or Board(silent=True)
        require_room(members[0], Path("runs"), board.say, count)
        paths = [directory.create(one, None, command) for one in configs]
        for path in paths:
            stack.enter_context(directory.alone(path))
        items = [Item(one.preset, one, path) for one, path in zip(configs, paths, strict=True)]
        board.start(items, items)
        heard = Heard(board.say)
        heard.listen()
        stack.callback(heard.leave)
        stack.callback(board.close)
        sessions = [
            Session(path, parts, _Line(board, name_of(path))) for path, parts in zip(paths, members, strict=True)
        ]
        stop = stack.enter_context(Stop(board.say))
        stack.enter_context(threads_of(members[0]))
        return _drive(sessions, members, stop, board)


def can_share(config: Config) -> bool:
    """Whether several seeds of a configuration can be trained together."""
    return config.algorithm == "dqn" and config.runtime.device == "cpu" and not config.replay.compress


def name_of(path: Path) -> str:
    """What a board calls the run of this directory."""
    return f"{path.parent.name}/{path.name}"


class SomeEnded(QlearnError):
    """Some seeds failed; the others are done."""


def _drive(sessions: Sequence[Session], members: Sequence[Parts], stop: Stop, board: Board) -> list[Run]:
    """Train all to their ends."""
    names = [name_of(session.path) for session in sessions]
    done, failed, live = dict[int, Run](), dict[int, QlearnError](), [True] * len(sessions)
    with ExitStack() as stack:
        running = [stack.enter_context(closing(session.running(stop))) for session in sessions]
        for one in running:
            next(one)
        for outcomes in cohort.train(members, live):
            for i, outcome in enumerate(outcomes):
                if outcome is None:
                    continue
                try:
                    running[i].throw(outcome) if isinstance(outcome, QlearnError) else running[i].send(outcome)
                except StopIteration as end:
                    done[i], live[i] = end.value, False
                    summary = done[i].summary
                    mean = summary["mean_return"]
                    how = f"step {summary['steps']:,}" + ("" if mean is None else f", mean return {mean:.1f}")
                    board.end(names[i], how)
                except (EnvError, NotFiniteError, Interrupted) as error:
                    failed[i], live[i] = error, False
                    board.end(names[i], f"seed {sessions[i].config.seed}: {error}", done=False)
    if any(not isinstance(error, Interrupted) for error in failed.values()):
        seeds = ", ".join(str(sessions[i].config.seed) for i in failed)
        raise SomeEnded(f"{len(done)} of {len(sessions)} seeds are done; ended before: {seeds}, as said above")
    if failed:
        raise Interrupted(f"stopped and saved; {len(done)} of {len(sessions)} seeds are done, the others go on as said")
    return [done[i] for i in range(len(sessions))]


class _Line:
    """Shows a run as a line of a board."""

    def __init__(self, board: Board, name: str) -> None:
        self._board, self._name, self._next = board, name, 0.0

    def start(self, total_steps: int) -> None:  # noqa: ARG002 (the board knows)
        """The run begins."""
        self._board.begin(self._name)

    def update(self, progress: Progress, statistics: dict[str, float]) -> None:  # noqa: ARG002 (there is no room)
        """Ten times a second."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + 0.1
            self._board.update(self._name, progress.tick.steps, progress.mean_return)

    def say(self, message: str) -> None:
        """Above the board."""
        self._board.say(message)

    def close(self) -> None:
        """Nothing: who drives the run knows how it ended."""
