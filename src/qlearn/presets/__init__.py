"""Presets: named configurations, each with its source and what it is expected to score."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qlearn.config import Config, flatten, override
from qlearn.errors import UsageError, nearest
from qlearn.presets.catalogue import DQN, DQN_EXPECTED, DQN_TUNED, INTRO, INTRO_EXPECTED, Changes

__all__ = ["PRESETS", "Preset", "diff", "get", "preset"]


@dataclass(frozen=True)
class Preset:
    """A named configuration: what it changes in `base`, and in which environments it changes more.

    `tuned` maps the name of an environment without namespace and version to further changes. `expected` maps
    environment ids to the scores that `benchmarks/` measured.
    """

    name: str
    summary: str
    source: str
    changes: Changes
    tuned: Mapping[str, Changes] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)

    def config(self, env_id: str | None = None) -> Config:
        """The configuration for an environment; without one, what the preset is before any tuning."""
        config = override(override(Config(), {"preset": self.name}), self.changes)
        if env_id is None:
            return config
        config = override(config, {"env": {"id": env_id}})
        return override(config, self.tuned.get(family(env_id), {}))


def family(env_id: str) -> str:
    """`CartPole` for `CartPole-v1`, `Pong` for `ALE/Pong-v5`."""
    return re.sub(r"^.*[:/]|-v\d+$", "", env_id)


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset(
            "dqn",
            "deep Q-learning, with entries for the classic environments; the default",
            "ours; docs/benchmarks.md says what each setting is for",
            DQN,
            DQN_TUNED,
            DQN_EXPECTED,
        ),
        Preset(
            "intro",
            "the set-up of the tutorial that this project started from",
            "An Easy Intro to Deep Q-Learning (datahubbs.com, 2019)",
            INTRO,
            expected=INTRO_EXPECTED,
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UsageError: there is none; the nearest is named.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name}{nearest(name, PRESETS)} (qlearn presets lists them)")
    return PRESETS[name]


def get(name: str, env_id: str | None = None) -> Config:
    """The configuration of a preset for an environment."""
    return preset(name).config(env_id)


def diff(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configurations differ, by dotted name."""
    theirs = dict(flatten(other))
    return {k: (v, theirs[k]) for k, v in flatten(one) if v != theirs[k] and k not in ("preset", "env.id")}
