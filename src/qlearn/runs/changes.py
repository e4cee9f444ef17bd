"""What may change between a checkpoint and a run that goes on from it, and what is said of it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from qlearn.build import build_mode
from qlearn.config import Config, flatten, override
from qlearn.errors import RunError, UsageError
from qlearn.runs.manifest import NETWORKS, Manifest, versions

# What is learned, and from what: with another one it would be another run.
FIXED = ("seed", "algorithm", "network", "value", "optimizer.name")
FIXED_ENV = ("env.id", "env.num_envs", "env.frame_stack", "env.obs_type", "env.protocol", "env.kwargs")
FIXED_REPLAY = ("replay.capacity", "replay.prioritized", "replay.compress")
# When it ends, and what is written meanwhile.
FREE = ("preset", "steps", "until_solved", "window", "reward_threshold", "max_episodes", "env")
FREE_RUNTIME = ("runtime.log_steps", "runtime.checkpoint_steps", "runtime.keep_checkpoints")


def require_same(path: Path, manifest: Manifest, config: Config) -> list[str]:
    """What has changed since a checkpoint, each as a phrase.

    Args:
        path: of the configuration.
        manifest: the checkpoint's.
        config: the configuration now.

    Raises:
        UsageError: something that cannot change has.
        RunError: the manifest's configuration is none, or one of a network far larger than that of the checkpoint.
    """
    try:
        before = told(override(Config(), manifest.config))
    except UsageError as error:
        raise RunError(f"the configuration in a checkpoint of {path.parent} is damaged: {error}") from error
    least, there = 4 * sum(a * b for a, b in pairwise(config.network.hidden)), manifest.file(NETWORKS).size
    if least > there and config.network.torso != "custom":
        raise RunError(
            f"{path} is not what it should be: its layers would take {least:,} bytes, and there are {there:,}"
        )
    said = []
    for name, value in told(config).items():
        if value != before[name]:
            if of(name, (*FIXED, *FIXED_ENV, *FIXED_REPLAY)):
                raise UsageError(
                    f"{path} says {name} {value}, and the run was made with {before[name]}; "
                    "change it back, or train another run"
                )
            if not of(name, (*FREE, *FREE_RUNTIME)):
                said.append(f"{name} was {before[name]} and is {value}")
    return said + version_changes(manifest.versions)


def told(config: Config) -> dict[str, Any]:
    """The fields by name; of how updates run, what was decided."""
    return {**dict(flatten(config)), "runtime.compile": build_mode(config)}


def version_changes(before: Mapping[str, Any]) -> list[str]:
    """The packages that are others now."""
    now = versions()
    return [
        f"{name} was {version} and is {now.get(name, 'not there')}"
        for name, version in before.items()
        if now.get(name) != version
    ]


def of(name: str, groups: tuple[str, ...]) -> bool:
    """Whether a field is one of these, or in one of them."""
    return name in groups or name.startswith(tuple(f"{group}." for group in groups))


def how_it_goes_on(step: int | None, config: Config, changed: Sequence[str], *, exact: bool) -> str:
    """The level at which a run goes on, for the user.

    Args:
        step: of its checkpoint; None where it has none.
        config: its configuration.
        changed: what has changed since.
        exact: whether its running episodes go on where they were.
    """
    if step is None:
        return "there is no checkpoint yet: it begins again"
    why = "".join(f"; {what}" for what in changed)
    if not exact:
        return f"goes on faithfully from step {step:,}: its environment did not repeat itself, episodes begin anew{why}"
    if changed or config.runtime.device != "cpu":
        return f"goes on faithfully from step {step:,}, running episodes included{why}"
    return f"goes on exactly from step {step:,}, bit for bit, running episodes included"
