"""`qlearn resume RUN`: continue a run from its last checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qlearn import runs
from qlearn.cli.parse import parse
from qlearn.envs import import_environments
from qlearn.runs.directory import read_config
from qlearn.runs.display import Terminal


@dataclass(frozen=True)
class Arguments:
    """Continue a run from its last checkpoint; the episodes that were running start anew."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    steps: int | None = None
    """Environment steps to stop at, in all; by default those that the run was to have."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Resume; returns the exit code."""
    arguments = parse(Arguments, argv, "resume")
    import_environments(arguments.module)
    run = runs.resume(arguments.run, steps=arguments.steps, display=Terminal())
    print(runs.verdict(run.summary, read_config(run.path)))
    print(f"Results  {run.path}\nNext     {runs.command('play', run.path)}")
    return 0
