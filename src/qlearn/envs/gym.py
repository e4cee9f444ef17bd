"""Gymnasium environments by their names, made."""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium import error as gym_error

from qlearn.envs import atari, minatar
from qlearn.errors import EnvError, QlearnError, UsageError, nearest, one_line

GymEnv = gym.Env[Any, Any]

EXTRAS = {
    "minatar": "minatar",
    "box2d": "box2d",
    "swig": "box2d",
    "pygame": "classic",
    "ale_py": "atari",
    "ale-py": "atari",
}


def make_gym(env_id: str, *, render_mode: str | None = None, **kwargs: Any) -> GymEnv:
    """One Gymnasium environment by its id, or by `module:Id` where the module registers it.

    Raises:
        UsageError: no such environment (the nearest id is named), or arguments that it does not take.
        QlearnError: a package that it needs is not installed (the command that installs it is named).
    """
    if game := atari.find_game(env_id):
        try:
            return atari.make_atari(game, render_mode=render_mode, **kwargs)
        except RuntimeError as error:
            raise UsageError(f"{env_id} cannot be made: {one_line(error)}") from error
    module, _, name = env_id.rpartition(":")
    import_environments(module)
    if name.startswith("MinAtar/"):
        minatar.register()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "out of date" for an id that was asked for by its version
            return gym.make(name, render_mode=render_mode, disable_env_checker=True, **kwargs)
    except (ImportError, gym_error.DependencyNotInstalled) as error:
        raise _missing(env_id, error) from error
    except (gym_error.UnregisteredEnv, gym_error.DeprecatedEnv) as error:
        raise _unknown(env_id, name, error) from error
    except (gym_error.Error, TypeError) as error:
        raise UsageError(f"{env_id} cannot be made: {one_line(error)}") from error
    except Exception as error:
        raise EnvError(f"{env_id} raised {type(error).__name__} while it was made: {one_line(error)}") from error


def import_environments(module: str | None) -> None:
    """Import the module that registers environments; nothing for the empty name.

    Raises:
        UsageError: there is none of that name. QlearnError: it cannot be imported.
    """
    if not module:
        return
    try:
        with _this_folder():
            importlib.import_module(module)
    except Exception as error:
        name = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and (module == name or module.startswith(f"{name}.")):
            raise UsageError(f"there is no module {name} to import; is it installed, or in this folder?") from error
        raise QlearnError(f"{module} cannot be imported: {type(error).__name__}: {one_line(error)}") from error


@contextmanager
def _this_folder() -> Iterator[None]:
    """Let modules of the current folder be found, as `python -m` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _missing(env_id: str, error: BaseException) -> QlearnError:
    """The error of an environment whose package is not installed."""
    name = getattr(error, "name", None) or ""
    found = re.search(r"pip install [\"']?(?:gymnasium|swig)?\[?([\w-]+)", str(error))
    key = next((extra for word, extra in EXTRAS.items() if word in f"{name} {error}".lower()), None)
    extra = key or {"toy-text": "toy", "classic-control": "classic"}.get(found.group(1) if found else "")
    fix = f"pip install 'qlearn[{extra}]'" if extra else f"pip install {name}" if name else one_line(error)
    return QlearnError(f"{env_id} needs a package that is not installed ({one_line(error)}); the fix: {fix}")


def _unknown(env_id: str, name: str, error: BaseException) -> UsageError:
    if isinstance(error, gym_error.DeprecatedEnv) or type(error).__name__ == "VersionNotFound":
        return UsageError(f"unknown environment {env_id}: {one_line(error).rstrip('. ')}{nearest(name, gym.registry)}")
    known = nearest(name, gym.registry)
    other = (
        ""
        if ":" in env_id
        else "; one that another package brings is written module:Id, as in minigrid:MiniGrid-Empty-5x5-v0"
    )
    return UsageError(f"unknown environment {env_id}{known or other}")


def close_quietly(env: GymEnv) -> None:
    """Close an environment; one that fails to close has nothing left to lose."""
    try:
        env.close()
    except Exception as error:
        warnings.warn(f"an environment failed to close: {one_line(error)}", stacklevel=2)
