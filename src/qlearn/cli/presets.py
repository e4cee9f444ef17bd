"""`qlearn presets`: list the presets."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from qlearn.cli.parse import parse
from qlearn.presets import PRESETS


@dataclass(frozen=True)
class Arguments:
    """List the presets: what each is, where its settings are from, and what it is expected to score."""


def main(argv: list[str]) -> int:
    """List; returns the exit code."""
    parse(Arguments, argv, "presets")
    table = Table(box=None, pad_edge=False)
    for column in ("preset", "what it is", "source", "expected scores"):
        table.add_column(column, overflow="fold")
    for preset in PRESETS.values():
        scores = [f"{env}: {score}" for env, score in preset.expected.items()]
        published = [f"published: {preset.published}"] if preset.published else []
        table.add_row(preset.name, preset.summary, preset.source, "\n".join(scores + published) or "-")
    Console(highlight=False).print(table)
    return 0
