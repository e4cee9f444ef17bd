"""What qlearn says when it cannot go on: one line that names what, where, and the fix."""

import difflib
from collections.abc import Iterable


class QlearnError(Exception):
    """A failure with its cause. The command line prints the message alone and exits with `exit_code`."""

    exit_code = 1


class UsageError(QlearnError):
    """The request itself is wrong: an unknown name, a value out of range, an unsupported space."""

    exit_code = 2


class EnvError(QlearnError):
    """The environment broke its contract: it raised, or returned NaN or a wrong shape."""


class NotFiniteError(QlearnError):
    """A tensor of the learner holds NaN or infinity; the message names the first one."""


class MisfitError(ValueError):
    """Tensors are not those of the module that is to take them; the message names the first one."""


class RunError(QlearnError):
    """A run directory cannot be read or written."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type's name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean X?"` for the nearest known name, or the empty string."""
    known = list(known)
    lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[found[0]]}?" if found else ""
