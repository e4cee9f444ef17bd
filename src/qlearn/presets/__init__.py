"""Presets: named configurations, each with its source and what it is expected to score."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qlearn.config import Config, flatten, override
from qlearn.errors import UsageError, nearest
from qlearn.presets import catalogue as c
from qlearn.presets.catalogue import Changes
from qlearn.presets.expected import EXPECTED

__all__ = ["PRESETS", "Preset", "diff", "get", "preset"]


@dataclass(frozen=True)
class Preset:
    """A named configuration: what it changes in `base`, and in which environments it changes more.

    `base` is the preset that it starts from, as that is tuned for the environment, or the defaults. `tuned` maps an
    environment's name without version, or its namespace (`ALE`), to further changes. `published` is what its source
    reports.
    """

    name: str
    summary: str
    source: str
    changes: Changes
    tuned: Mapping[str, Changes] = field(default_factory=dict)
    base: "Preset | None" = None
    published: str = ""

    @property
    def expected(self) -> Mapping[str, str]:
        """Environment ids to the scores that `benchmarks/` measured."""
        return EXPECTED.get(self.name, {})

    def config(self, env_id: str | None = None) -> Config:
        """The configuration for an environment; without one, what the preset is before any tuning."""
        config = self.base.config(env_id) if self.base else Config()
        config = override(override(config, {"preset": self.name}), self.changes)
        if env_id is None:
            return config
        config = override(config, {"env": {"id": env_id}})
        for name in (namespace(env_id), family(env_id)):
            config = override(config, self.tuned.get(name, {}))
        return config


def family(env_id: str) -> str:
    """`CartPole` for `CartPole-v1`, `Pong` for `ALE/Pong-v5`."""
    return re.sub(r"^.*[:/]|(NoFrameskip)?-v\d+$", "", env_id)


def namespace(env_id: str) -> str:
    """`ALE` for `ALE/Pong-v5` and for `PongNoFrameskip-v4`, nothing for `CartPole-v1`."""
    name = env_id.rpartition(":")[2]
    return "ALE" if name.endswith("NoFrameskip-v4") else name.rpartition("/")[0]


DQN = Preset(
    "dqn",
    "deep Q-learning, with entries for the classic environments; the default",
    "ours, after Mnih et al. (2015); docs/benchmarks.md says what each setting is for. Atari: Dopamine (JAX)",
    c.DQN,
    c.DQN_TUNED,
    published="Atari-57 median 79 % of human",
)

PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        DQN,
        Preset(
            "intro",
            "the set-up of the tutorial that this project started from",
            "An Easy Intro to Deep Q-Learning (datahubbs.com, 2019)",
            c.INTRO,
        ),
        Preset(
            "nature",
            "deep Q-learning of Atari from pixels, as it was first done",
            "Mnih et al. (2015), by their code",
            {},
            {"ALE": c.NATURE},
            base=DQN,
            published="Atari-49 median 79 % of human, 94 % of the humans of the paper",
        ),
        Preset(
            "atari-quick",
            "one game of Atari, learned soon on a small machine",
            "ours; docs/atari.md",
            {},
            {"ALE": c.ATARI_QUICK},
            base=DQN,
        ),
        Preset(
            "tabular",
            "Q-learning with a table, where observations are integers: the first lesson",
            "Watkins (1989); settings ours",
            c.TABULAR,
            c.TABULAR_TUNED,
        ),
        Preset(
            "double",
            "the online network chooses the action that the target network values",
            "van Hasselt et al. (2016). Atari: DQN Zoo, tuned",
            c.DOUBLE,
            c.DOUBLE_TUNED,
            base=DQN,
            published="Atari-57 median 118 % of human",
        ),
        Preset(
            "dueling",
            "a stream for the state's value, one for the actions' advantages",
            "Wang et al. (2016). Atari: on DQN Zoo's tuned Double DQN",
            c.DUELING,
            c.DUELING_TUNED,
            base=DQN,
            published="Atari-57 median 151 % of human",
        ),
        Preset(
            "per",
            "transitions with large errors are sampled more often",
            "Schaul et al. (2016). Atari: DQN Zoo, on Double DQN",
            c.PER,
            c.PER_TUNED,
            base=DQN,
            published="Atari-54 median 137 % of human",
        ),
        Preset(
            "nstep",
            "more steps of reward before the bootstrap than dqn has: 5 for its 3, 3 for its 1, 20 for its 10",
            "Watkins (1989), Hessel et al. (2018)",
            c.NSTEP,
            c.NSTEP_TUNED,
            base=DQN,
        ),
        Preset(
            "noisy",
            "noise of learned size in the weights explores, not epsilon",
            "Fortunato et al. (2018)",
            c.NOISY,
            c.NOISY_TUNED,
            base=DQN,
            published="Atari-57 median 123 % of human",
        ),
        Preset(
            "c51",
            "the return's distribution over fixed atoms",
            "Bellemare et al. (2017). Atari: DQN Zoo",
            c.C51,
            c.C51_TUNED,
            base=DQN,
            published="Atari-57 median 178 % of human",
        ),
        Preset(
            "qr",
            "the return's quantiles at fixed levels (QR-DQN)",
            "Dabney, Rowland et al. (2018). Atari: DQN Zoo",
            c.QR,
            c.QR_TUNED,
            base=DQN,
            published="Atari-57 median 211 % of human",
        ),
        Preset(
            "iqn",
            "the return's quantiles at levels drawn anew each time (implicit quantile networks)",
            "Dabney, Ostrovski et al. (2018). Atari: DQN Zoo",
            c.IQN,
            c.IQN_TUNED,
            base=DQN,
            published="Atari-57 median 238 % of human",
        ),
        Preset(
            "rainbow",
            "double, dueling, prioritised, three-step, noisy, C51: all at once",
            "Hessel et al. (2018). Atari: DQN Zoo",
            c.RAINBOW,
            c.RAINBOW_TUNED,
            base=DQN,
            published="Atari-54 median 227 % of human",
        ),
        Preset(
            "m-dqn",
            "a soft policy is backed up, and the reward gains its log-probability",
            "Vieillard et al. (2020)",
            c.MUNCHAUSEN,
            c.M_DQN_TUNED,
            base=DQN,
        ),
        Preset(
            "m-iqn",
            "iqn with the backup of m-dqn",
            "Vieillard et al. (2020)",
            c.M_IQN,
            c.M_IQN_TUNED,
            base=DQN,
        ),
        Preset(
            "pqn",
            "no replay memory and no target network: many environments, lambda-returns, normalised layers",
            "Gallici et al. (2024). Atari and MinAtar: purejaxql; the rest ours",
            c.PQN,
            c.PQN_TUNED,
            published="Atari-57 median of Rainbow's after 400 M frames, read off a figure",
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
