"""What a configuration may be: overriding its fields, and refusing what cannot be, each with its reason."""

import dataclasses
import json
import math
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from qlearn.config.records import Config, Range
from qlearn.errors import UsageError, nearest

C = TypeVar("C")


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields with their dotted names: `("replay.capacity", 50_000)`."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value


def override(config: C, changes: Mapping[str, Any], prefix: str = "") -> C:
    """`config` with fields replaced: `{"seed": 1, "replay": {"capacity": 1000}}`, checked.

    Raises:
        UsageError: no such field (the nearest is named), or a value of the wrong type.
    """
    hints = get_type_hints(type(config), include_extras=True)
    new: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in hints:
            raise UsageError(f"unknown field {prefix}{name}{nearest(name, hints)}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{prefix}{name} is a group of fields, not {value!r}")
            new[name] = override(current, value, f"{prefix}{name}.")
        else:
            new[name] = _typed(prefix + name, hints[name], value)
    return dataclasses.replace(config, **new)  # type: ignore[type-var]


def check(config: Config) -> Config:
    """The configuration, where every value is one that it may be.

    Raises:
        UsageError: a field out of range; the message names the field, the value and what is allowed.
    """
    config = override(config, to_dict(config))
    try:
        kwargs = json.loads(config.env.kwargs)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"env.kwargs is {config.env.kwargs!r}, which is not JSON: {error}") from None
    if not isinstance(kwargs, dict):
        raise UsageError(f"env.kwargs is {config.env.kwargs!r}; it must be a JSON object")
    if taken := {"id", "render_mode", "disable_env_checker"} & kwargs.keys():
        raise UsageError(f"env.kwargs has {', '.join(sorted(taken))}, which qlearn gives itself")
    if impossible := next((why for wrong, why in _impossible(config) if wrong), None):
        raise UsageError(impossible)
    if config.optimizer.end_learning_rate is not None and not config.optimizer.decay_steps:
        raise UsageError("optimizer.end_learning_rate needs optimizer.decay_steps: over how many steps it is reached")
    if not config.network.hidden:
        raise UsageError("network.hidden is empty; it must have at least one layer")
    lanes, least = config.env.num_envs, config.replay.n_step + config.env.frame_stack + 3
    if config.algorithm == "dqn" and config.replay.capacity < lanes * least:
        raise UsageError(
            f"replay.capacity is {config.replay.capacity}; with env.num_envs {lanes}, replay.n_step "
            f"{config.replay.n_step} and env.frame_stack {config.env.frame_stack} it must be at least {lanes * least}"
        )
    return config


def _impossible(config: Config) -> Iterator[tuple[bool, str]]:
    """The mixes that cannot be, each with its reason: the one place that refuses them."""
    network, value, backup, explore = config.network, config.value, config.backup, config.exploration
    yield (
        backup.double and backup.munchausen,
        "backup.double and backup.munchausen exclude each other: a soft policy has no best action to choose twice",
    )
    yield (
        value.kind == "c51" and value.v_min >= value.v_max,
        f"value.v_min is {value.v_min:g} and value.v_max {value.v_max:g}; the atoms must lie from low to high",
    )
    yield (
        network.torso == "custom" and (network.dueling or network.noisy or network.layer_norm),
        "network.dueling, noisy and layer_norm are parts of qlearn's own networks; build them into yours",
    )
    yield (
        network.torso == "custom" and value.kind == "iqn",
        "value.kind iqn needs a network that is asked for quantiles, and yours is not; use qr",
    )
    yield (
        explore.kind == "ladder" and not (explore.start and explore.end),
        "exploration.start and end must be more than 0 for a ladder, whose rungs have equal ratios",
    )
    yield (
        explore.kind == "ladder" and config.env.num_envs < 2,
        "a ladder has a rung for each environment: set env.num_envs",
    )
    yield from _impossible_without_replay(config)


def _impossible_without_replay(config: Config) -> Iterator[tuple[bool, str]]:
    """What pqn and tabular cannot have."""
    network, value, backup, replay = config.network, config.value, config.backup, config.replay
    if config.algorithm != "dqn":
        name, greedy = config.algorithm, not (backup.double or backup.munchausen)
        yield value.kind != "scalar", f"value.kind is {value.kind}, but {name} learns means; use algorithm dqn"
        yield not greedy, f"backup.double and backup.munchausen need a target network, and {name} has none"
        yield replay.prioritized, f"replay.prioritized needs a replay memory, and {name} has none"
        why = f"but {name} has no replay memory to look ahead in (--preset {name} has settings for it)"
        yield replay.n_step > 1, f"replay.n_step is {replay.n_step}, {why}"
    if config.algorithm == "tabular":
        yield config.env.frame_stack > 1, f"env.frame_stack is {config.env.frame_stack}, but a table has no frames"
        switches = network.dueling or network.noisy or network.layer_norm or network.torso != "auto"
        yield switches, "network.torso, dueling, noisy and layer_norm are of networks, and a table is none"
        yield config.runtime.device != "cpu", f"runtime.device is {config.runtime.device}, but a table is on the CPU"
        for which, rate in (("", config.optimizer.learning_rate), ("end_", config.optimizer.end_learning_rate)):
            wrong = rate is not None and not 0 < rate <= 1
            yield wrong, f"optimizer.{which}learning_rate is {rate}; for a table it must be more than 0, and at most 1"
    if config.algorithm == "pqn":
        size = config.pqn.rollout_steps * config.env.num_envs
        few = f"pqn.minibatches is {config.pqn.minibatches}, more than the {size} steps of a rollout"
        yield config.pqn.minibatches > size, f"{few} (pqn.rollout_steps times env.num_envs)"


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dictionaries without the fields that are None, as TOML wants them."""
    items = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    return {k: to_dict(v) if dataclasses.is_dataclass(v) else v for k, v in items if v is not None}


def _typed(name: str, hint: Any, value: Any) -> Any:
    """`value` as its annotation wants it: right type, in range."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        value = _typed(name, base, value)
        for note in notes:
            if isinstance(note, Range) and not note.allows(value):
                raise UsageError(f"{name} is {value}; it must be {note}")
        return value
    if get_origin(hint) in (Union, types.UnionType):
        return None if value is None else _typed(name, get_args(hint)[0], value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise UsageError(f"{name} is {value!r}; it must be a list of numbers")
        return tuple(_typed(name, get_args(hint)[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it must be a finite number")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{name} is {value!r}; it must be {'an' if hint is int else 'a'} {hint.__name__}")
    return value
