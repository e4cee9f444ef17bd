"""An environment in a process of its own: one that ends its process, or hangs, takes nobody with it."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym

from qlearn import errors
from qlearn.envs.gym import GymEnv
from qlearn.errors import EnvError, QlearnError, one_line

FILES = 65_536  # descriptors that a process may have open, at most
OWN = {kind.__name__: kind for kind in (EnvError, errors.UsageError, QlearnError)}


class Apart(gym.Env[Any, Any]):
    """A Gymnasium environment elsewhere. What goes wrong there is an `EnvError` here, after which it is of no use.

    Args:
        make: makes it, there.
        env_id: for messages.
        timeout: seconds that it has for an answer.
    """

    def __init__(self, make: Callable[[], GymEnv], env_id: str, timeout: float) -> None:
        context = multiprocessing.get_context("fork")  # what a script registered is there as well
        self._env_id, self._timeout, self._sent = env_id, timeout, False
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, other), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads and forks: the child never uses ours
            self._process.start()
        other.close()
        self.observation_space, self.action_space, self.metadata, self.render_mode = self._answer("its constructor")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new episode."""
        self._ask("reset", {"seed": seed, "options": options})
        obs, info = self._answer("reset()")
        return obs, info

    def send(self, action: Any) -> None:
        """Begin a step, that `step` ends."""
        self._ask("step", {"action": action})
        self._sent = True

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, if `send` has not begun it."""
        if not self._sent:
            self.send(action)
        self._sent = False
        obs, reward, terminated, truncated, info = self._answer("step()")
        return obs, reward, terminated, truncated, info

    def render(self) -> Any:
        """The environment's picture."""
        self._ask("render", {})
        return self._answer("render()")

    def close(self) -> None:
        """End the process, which is told first."""
        self._ask("close", {})
        self._process.join(1)
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _ask(self, what: str, given: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # a process that is gone has no answer, and that is told
            self._pipe.send((what, given))

    def _answer(self, where: str) -> Any:
        try:
            if not self._pipe.poll(self._timeout):
                self._process.kill()
                raise EnvError(f"{self._env_id} gave no answer from {where} within {self._timeout:g} seconds")
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(1)
            raise EnvError(
                f"{self._env_id} ended its process in {where} (exit code {self._process.exitcode})"
            ) from None
        if kind == "answer":
            return value
        raise OWN.get(kind, EnvError)(value if kind in OWN else f"{self._env_id} raised {kind} in {where}: {value}")


def _serve(make: Callable[[], GymEnv], pipe: Connection) -> None:
    """Answer until there is nobody to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.closerange(3, pipe.fileno())  # locks and pipes of whoever made it
    os.closerange(pipe.fileno() + 1, FILES)
    try:
        env = make()
        pipe.send(("answer", (env.observation_space, env.action_space, dict(env.metadata), env.render_mode)))
        while True:
            what, given = pipe.recv()
            if what == "close":
                env.close()
                return
            pipe.send(("answer", getattr(env, what)(**given)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        with suppress(OSError):
            pipe.send((type(error).__name__, one_line(error)))
