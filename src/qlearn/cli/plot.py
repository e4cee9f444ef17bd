"""`qlearn plot RUN...`: draw the returns of runs, or the results of a suite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qlearn import runs
from qlearn.cli.parse import parse


@dataclass(frozen=True)
class Arguments:
    """Draw the returns of a run; of several, or of a suite, the learning curves and final scores of each preset."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run directories, or the directory of a suite."""
    out: Path = Path("learning_curve.png")
    """The picture: .png, .svg or .pdf."""


def main(argv: list[str]) -> int:
    """Plot; returns the exit code."""
    arguments = parse(Arguments, argv, "plot")
    runs.plot(arguments.runs, arguments.out)
    print(arguments.out)
    return 0
