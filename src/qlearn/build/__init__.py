"""Config to parts: the composition root, the only place that knows both."""

from qlearn.build.parts import Parts, build
from qlearn.build.pieces import (
    MakeNetwork,
    build_envs,
    build_mode,
    build_rules,
    policy_parts,
    threads,
    with_custom_network,
)

__all__ = [
    "MakeNetwork",
    "Parts",
    "build",
    "build_envs",
    "build_mode",
    "build_rules",
    "policy_parts",
    "threads",
    "with_custom_network",
]
