"""`qlearn diff PRESET PRESET`: the settings in which two presets differ."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from qlearn import presets
from qlearn.cli.parse import parse


@dataclass(frozen=True)
class Arguments:
    """Show in which settings two presets differ."""

    one: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The first preset."""
    other: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """The second preset."""
    env: str | None = None
    """Compare them as they are tuned for this environment."""


def main(argv: list[str]) -> int:
    """Compare; returns the exit code."""
    arguments = parse(Arguments, argv, "diff")
    one, other = (presets.get(name, arguments.env) for name in (arguments.one, arguments.other))
    changed = presets.diff(one, other)
    if not changed:
        print(f"{arguments.one} and {arguments.other} are the same")
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("", arguments.one, arguments.other):
        table.add_column(column)
    for name, values in changed.items():
        table.add_row(name, *(_text(value) for value in values))
    Console(highlight=False).print(table)
    return 0


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
