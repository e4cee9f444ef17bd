"""`qlearn plot RUN...`: draw the returns of one or more runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qlearn import runs
from qlearn.cli.parse import parse


@dataclass(frozen=True)
class Arguments:
    """Draw returns and their running mean; several seeds of one preset become a mean and a band."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """The run directories."""
    out: Path = Path("learning_curve.png")
    """The picture: .png, .svg or .pdf."""


def main(argv: list[str]) -> int:
    """Plot; returns the exit code."""
    arguments = parse(Arguments, argv, "plot")
    runs.plot(arguments.runs, arguments.out)
    print(arguments.out)
    return 0
