"""A run from its first step to its last file: log, save, stop, and say how it went."""

import dataclasses
import json
import logging
import time
import warnings
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qlearn import tabular
from qlearn.agent import Agent
from qlearn.build import MakeNetwork, Parts, build, build_mode
from qlearn.config import Config, check
from qlearn.errors import EnvError, NotFiniteError, QlearnError, RunError, UsageError
from qlearn.runs import checkpoint, directory
from qlearn.runs.changes import how_it_goes_on, require_same
from qlearn.runs.display import Display, Silent
from qlearn.runs.files import reading, replace_file
from qlearn.runs.metrics import Metrics, checked
from qlearn.runs.picture import plot
from qlearn.runs.progress import Progress, require_goal, threshold
from qlearn.runs.surroundings import Stop, require_room, threads_of
from qlearn.runs.table import draw_table
from qlearn.types import Tick

log = logging.getLogger("qlearn")


class Interrupted(QlearnError):
    """The user stopped the run; it is saved, and the message is the command that continues it."""

    exit_code = 130


@dataclass(frozen=True)
class Run:
    """A finished run: its summary, its agent, its directory."""

    path: Path
    summary: dict[str, Any]
    agent: Agent


def start(
    config: Config,
    *,
    run_dir: str | Path | None = None,
    network: MakeNetwork | None = None,
    command: str = "",
    display: Display | None = None,
) -> Run:
    """Train a new run in a new directory.

    Raises:
        UsageError: the configuration asks for something that is not there, or the directory exists.
        EnvError: the environment broke its contract. NotFiniteError: a number did. RunError: the disk did.
        Interrupted: the user stopped it.
    """
    parts = build(check(config), network)
    try:
        require_goal(config)
        display = display or Silent()
        require_room(parts, Path(run_dir or "runs"), display.say)
        path = directory.create(config, run_dir, command)
        with directory.alone(path):
            return _drive(Session(path, parts, display))
    finally:
        parts.envs.close()


def resume(
    path: str | Path,
    *,
    steps: int | None = None,
    network: MakeNetwork | None = None,
    display: Display | None = None,
) -> Run:
    """Continue a run from its newest checkpoint, to `steps` environment steps in all where given.

    On the CPU it goes on as if it had never stopped, bit for bit, where its environments come to the same by the same
    seeds and actions; where they do not, the running episodes are ended as by a time limit and the next ones begin. It
    says which. A run that was killed before its first checkpoint begins again.
    """
    path = Path(path)
    config, display = directory.trusted_config(path), display or Silent()
    with directory.alone(path):
        saved = None
        if any((path / directory.CHECKPOINTS).glob("*steps-*[0-9]")):
            saved = checkpoint.newest(path / directory.CHECKPOINTS)
        changed = require_same(path / directory.CONFIG, saved.manifest, config) if saved else []
        if steps is not None:
            runtime = dataclasses.replace(config.runtime, compile=build_mode(config))  # by the steps that there were
            config = dataclasses.replace(config, steps=steps, until_solved=False, max_episodes=None, runtime=runtime)
            check(config)
        parts = build(config, network)
        try:
            require_room(parts, path, display.say)
            session = Session(path, parts, display, saved)
            if session.finished() and (path / directory.SUMMARY).exists():
                taken = f"has its {config.steps:,} steps" if session.out_of_steps else "has reached its goal"
                raise UsageError(f"{path} {taken} already; give --steps with a larger number to go on")
            display.say(how_it_goes_on(saved.steps if saved else None, config, changed, exact=session.exact))
            checkpoint.continue_from(path / directory.CHECKPOINTS, session.progress.tick.steps)
            if steps is not None:
                directory.write_config(path, config)
            return _drive(session)
        finally:
            parts.envs.close()


def _drive(session: "Session") -> Run:
    """Train to the end."""
    with threads_of(session.parts), Stop(session.display.say) as stop, closing(session.running(stop)) as running:
        try:
            next(running)
            for tick in session.parts.train(after=session.progress.tick):
                running.send(tick)
        except StopIteration as end:
            run: Run = end.value
            return run
        except (EnvError, NotFiniteError) as error:
            running.throw(error)
    raise AssertionError("a run ends before its ticks do")


class Session:
    """The loop around the loop: consumes ticks, and keeps the run directory true."""

    def __init__(self, path: Path, parts: Parts, display: Display, saved: checkpoint.Checkpoint | None = None) -> None:
        self.path, self.parts, self.config, self.display = path, parts, parts.config, display
        self.progress = Progress(self.config.window, threshold(self.config))
        self._saved, self._warned, self._paused, self.exact = -1, False, False, True
        self._statistics: dict[str, float] = {}
        self._before: dict[str, Any] | None = None  # what there was of the metrics
        if saved:
            state, self.exact = saved.restore(parts)
            with reading(saved.path):
                self.progress.restore(state)
                self._saved, self._before = saved.steps, checked(state["metrics"])

    def running(self, stop: Stop) -> Generator[None, Tick, Run]:
        """The run, told of its ticks by `send` and of what ended it by `throw`; the finished run is what it returns."""
        progress = self.progress
        (self.path / directory.SUMMARY).unlink(missing_ok=True)
        self.metrics = Metrics(self.path, before=self._before, steps=progress.tick.steps)
        self._started = time.monotonic() - progress.wall_seconds
        self._logged = (progress.wall_seconds, progress.tick.steps)
        try:
            self.display.start(self.config.steps)
            while not (self.finished() or stop.asked):
                self._take((yield))
            self._save()
        except EnvError as error:
            self._save()
            raise EnvError(f"{error}. Saved at step {progress.tick.steps:,}; {self._continue()}") from error
        except NotFiniteError as error:
            raise NotFiniteError(f"{error}. {self._last_checkpoint()}") from error
        finally:
            self.display.close()
            self.metrics.close()
        if not self.finished():
            raise Interrupted(f"stopped and saved at step {progress.tick.steps:,}; {self._continue()}")
        return self._finish()

    def finished(self) -> bool:
        """Whether the run has come to its last step, or to a goal of its own before it."""
        most = self.config.max_episodes
        return (
            self.out_of_steps
            or (self.config.until_solved and self.progress.solved)
            or (most is not None and self.progress.episodes >= most)
        )

    @property
    def out_of_steps(self) -> bool:
        """Whether it has all its steps."""
        return self.progress.tick.steps >= self.config.steps

    def _take(self, tick: Tick) -> None:
        progress, runtime = self.progress, self.config.runtime
        before, progress.tick = progress.tick.steps, tick
        for episode in tick.episodes:
            self._episode(episode)
        if tick.steps // runtime.log_steps > before // runtime.log_steps:
            self._statistics = self._log()
        if tick.steps // runtime.checkpoint_steps > before // runtime.checkpoint_steps:
            self._try_to_save()
        self.display.update(progress, self._statistics)

    def _finish(self) -> Run:
        """What is written at the end."""
        summary = self._summary()
        replace_file(self.path / directory.SUMMARY, json.dumps(summary, indent=2).encode() + b"\n")
        plot([self.path], self.path / directory.CURVE)
        learner = self.parts.learner
        if isinstance(learner, tabular.Learner):
            table, env = learner.online, self.parts.envs.envs[0]
            draw_table(table.q.numpy(), table.visits.numpy(), env, self.config.env.id, self.path / directory.TABLE)
        agent = Agent(learner.online, learner.value, self.parts.envs.encoder, stack=self.config.env.frame_stack)
        return Run(self.path, summary, agent)

    def _episode(self, episode: Any) -> None:
        self.progress.add(episode, self.progress.tick.steps)
        self.metrics.write(
            "episode",
            self.progress.tick.steps,
            {
                "episode": self.progress.episodes,
                "return": episode.episode_return,
                "length": episode.length,
                "mean_return": self.progress.mean_return,
                "env": episode.env,
            },
        )

    def _log(self) -> dict[str, float]:
        progress = self.progress
        statistics, replay = self.parts.learner.statistics(), self.parts.replay
        self._warn(statistics)
        progress.wall_seconds = time.monotonic() - self._started
        seconds, steps = progress.wall_seconds - self._logged[0], progress.tick.steps - self._logged[1]
        self._logged = (progress.wall_seconds, progress.tick.steps)
        self.metrics.write(
            "train",
            progress.tick.steps,
            {
                "updates": progress.tick.updates,
                "epsilon": float(np.mean(progress.tick.epsilon)),
                **({} if replay is None else {"replay_fill": replay.ring.fill}),
                **statistics,
                "mean_return": progress.mean_return,
                "episodes": progress.episodes,
                "steps_per_second": steps / seconds if seconds > 0 else None,
                "wall_seconds": progress.wall_seconds,
            },
        )
        return statistics

    def _warn(self, statistics: dict[str, float]) -> None:
        """Tell once what would spoil the run silently."""
        outside = statistics.get("outside_support", 0.0)
        if outside > 0.3 and not self._warned:
            self._warned, value = True, self.config.value
            warnings.warn(
                f"{outside:.0%} of what is to be learned lies outside {value.v_min:g} to {value.v_max:g}, and is cut "
                "off there; widen value.v_min and value.v_max",
                stacklevel=2,
            )

    def _save(self) -> None:
        self.progress.wall_seconds = time.monotonic() - self._started
        if self._saved == self.progress.tick.steps:
            return
        state = {**self.progress.state(), "metrics": self.metrics.sync()}
        checkpoint.save(
            self.parts,
            self.path / directory.CHECKPOINTS,
            self.progress.tick.steps,
            state,
            self.config.runtime.keep_checkpoints,
            self.progress.mean_return if len(self.progress.returns) == self.config.window else None,
        )
        self._saved = self.progress.tick.steps

    def _try_to_save(self) -> None:
        """A checkpoint that the disk does not take is left out: the run goes on, and what was saved is intact."""
        try:
            self._save()
        except RunError as error:
            if not self._paused:
                log.warning("%s; training goes on, and the next checkpoint is tried when it is due", error)
            self._paused = True
        else:
            if self._paused:
                log.warning("checkpoints are written again, at step %s", f"{self._saved:,}")
            self._paused = False

    def _summary(self) -> dict[str, Any]:
        progress, tick = self.progress, self.progress.tick
        return {
            "env_id": self.config.env.id,
            "preset": self.config.preset,
            "seed": self.config.seed,
            "steps": tick.steps,
            "episodes": progress.episodes,
            "updates": tick.updates,
            "solved": progress.solved,
            "solved_at_episode": progress.solved_at_episode,
            "solved_at_step": progress.solved_at_step,
            "reward_threshold": progress.threshold,
            "mean_return": progress.mean_return,
            "best_mean_return": progress.best_mean_return,
            "wall_seconds": progress.wall_seconds,
            "steps_per_second": tick.steps / progress.wall_seconds if progress.wall_seconds else None,
            "device": self.config.runtime.device,
            "env_restarts": self.parts.envs.failures,
        }

    def _continue(self) -> str:
        return f"continue with: {directory.command('resume', self.path)}"

    def _last_checkpoint(self) -> str:
        return (
            f"The last checkpoint is of step {self._saved:,}; {self._continue()}"
            if self._saved >= 0
            else f"There is no checkpoint yet; the metrics are in {self.path}"
        )
