"""`qlearn suite FILE.toml`: train and evaluate many runs, as one file says."""

import shlex
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from qlearn import runs
from qlearn.cli.parse import parse
from qlearn.envs import import_environments
from qlearn.errors import UsageError
from qlearn.runs import results, suite
from qlearn.runs.board import Board
from qlearn.runs.workers import SomeFailed
from qlearn.scores import text


@dataclass(frozen=True)
class Arguments:
    """Train and evaluate many runs, as one file says (docs/suite.md); the same command goes on after any stop."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """The file."""
    jobs: int | None = None
    """Runs at a time; by default as many as there are cores."""
    out: Path | None = None
    """Directory of the runs and the results; by default what the file says, or suites/NAME."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Run the suite; returns the exit code."""
    arguments = parse(Arguments, argv, "suite")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}; it must be at least 1")
    import_environments(arguments.module)
    plan = suite.read(arguments.file, arguments.out)
    try:
        runs.work(plan, jobs=arguments.jobs, command=shlex.join(["qlearn", "suite", *argv]), board=Board())
    except SomeFailed:
        _report(plan.out)  # of the others
        raise
    _report(plan.out)
    return 0


def _report(out: Path) -> None:
    """The tables, and the picture of them."""
    rows = results.read(out)
    if not rows:
        return
    console = Console(highlight=False)
    for env, lines in groupby(results.aggregate(rows), key=lambda line: line["env"]):
        table = _table(env, "seeds", "IQM", "95 % interval", "mean", "worst seed", "median seconds")
        for line in lines:
            numbers = (text(line[name]) for name in ("mean", "worst_seed"))
            interval = f"{text(line['ci95_low'])} to {text(line['ci95_high'])}"
            seconds = f"{line['median_wall_seconds']:.0f}"
            table.add_row(line["label"], str(line["seeds"]), text(line["iqm"]), interval, *numbers, seconds)
        console.print(table, "")
    if humans := results.beside_humans(rows):
        table = Table(
            title="Human-normalised scores", title_justify="left", title_style="bold", box=None, pad_edge=False
        )
        table.add_column("preset")
        for column in ("games", "runs", "IQM", "95 % interval", "median", "mean"):
            table.add_column(column, justify="right")
        for line in humans:
            iqm, low, high, median, mean = (
                f"{line[k]:.2f}" for k in ("iqm", "ci95_low", "ci95_high", "median", "mean")
            )
            table.add_row(line["label"], str(line["games"]), str(line["runs"]), iqm, f"{low} to {high}", median, mean)
        console.print(table, "")
    print(f"Results  {out / results.RESULTS}")
    runs.plot([out], out / results.FIGURE)
    print(f"Figure   {out / results.FIGURE}")


def _table(title: str, *columns: str) -> Table:
    """An empty table of presets, with these columns of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("preset")
    for column in columns:
        table.add_column(column, justify="right")
    return table
