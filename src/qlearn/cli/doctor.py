"""`qlearn doctor ENV|RUN`: why it does not learn."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from qlearn.cli.parse import parse
from qlearn.doctor import Report, examine_env, examine_run
from qlearn.envs import import_environments
from qlearn.errors import UsageError
from qlearn.runs.directory import CONFIG, read_config

FOUND = 3  # exit code where there is a verdict


@dataclass(frozen=True)
class Arguments:
    """Say why it does not learn: of an environment before any training, or of a run. Exits with 3 where it finds
    something, with 0 where it does not.
    """

    subject: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV|RUN")]
    """Id of an environment, or module:Id; or a run directory, finished or not."""
    preset: str | None = None
    """ENV: the settings to try it with, dqn by default."""
    seed: int = 0
    """ENV: of the random play, and of the probes."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Examine; returns the exit code."""
    arguments = parse(Arguments, argv, "doctor")
    import_environments(arguments.module)
    report = examine(arguments)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        show(report, Console(highlight=False))
    return FOUND if report.verdicts else 0


def examine(arguments: Arguments) -> Report:
    """The report on a run, where there is one of that name, or else on an environment."""
    path = Path(arguments.subject)
    if (path / CONFIG).exists():
        if arguments.preset is not None:
            raise UsageError(f"--preset is for environments, and {path} is a run, which has its own settings")
        return examine_run(path)
    if path.parts[:1] == ("runs",):
        read_config(path)  # says what is wrong with it
    try:
        return examine_env(arguments.subject, preset=arguments.preset or "dqn", seed=arguments.seed)
    except UsageError:
        if path.exists():
            read_config(path)
        raise


def show(report: Report, console: Console) -> None:
    """Verdicts, each with its fix, then what was checked."""
    count = len(report.verdicts)
    headline = f"{count} thing{'s' * (count != 1)} found" if count else "nothing found"
    console.print(Text.assemble((report.subject, "bold"), ": ", (headline, "bold red" if count else "bold green")))
    for verdict in report.verdicts:
        console.print()
        console.print(Text.assemble(("✗ ", "red"), (verdict.sentence[:1].upper() + verdict.sentence[1:], "bold")))
        console.print(Padding(Text.assemble(("fix: ", "green"), verdict.fix), (0, 0, 0, 2)))
    console.print()
    for line in sorted(report.checked, key=lambda line: line.startswith("not judged")):
        skipped = line.startswith("not judged")
        console.print(Text.assemble(("· " if skipped else "✓ ", "dim" if skipped else "green"), (line, "dim")))
