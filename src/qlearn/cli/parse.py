"""Arguments to dataclasses by tyro, and its errors as one line each."""

import contextlib
import io
import re
import sys
from typing import Any, TypeVar

import tyro

from qlearn.errors import UsageError

T = TypeVar("T")


class WrongUsage(UsageError):
    """A command line that cannot be understood."""


def parse(arguments: type[T], argv: list[str], verb: str, default: T | None = None) -> T:
    """`argv` as an object of the dataclass `arguments`.

    Raises:
        WrongUsage: in one line, with the nearest right thing where there is one.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: T = tyro.cli(arguments, args=argv, prog=f"qlearn {verb}", **options)
        return parsed
    except SystemExit as stop:
        if not stop.code:
            raise
        raise WrongUsage(f"{_one_line(errors.getvalue())} (qlearn {verb} --help explains)") from None
    finally:
        if sys.exc_info()[0] is None:
            sys.stderr.write(errors.getvalue())


def _one_line(box: str) -> str:
    """The first paragraph of tyro's box, and the option that it thinks was meant."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip("│ \t") for row in text.splitlines() if not row.startswith(("╭", "╰"))]
    paragraphs: list[list[str]] = [[]]
    for row in rows:
        if row and not row.strip("─"):
            paragraphs.append([])
        elif row:
            paragraphs[-1].append(row)
    first = " ".join(paragraphs[0]).replace("(required)", "").strip()
    meant = re.search(r"Perhaps you meant:\s+(--[\w.-]+)", " ".join(" ".join(p) for p in paragraphs))
    return f"{first.rstrip('.')}{f'; did you mean {meant.group(1)}?' if meant else ''}"
