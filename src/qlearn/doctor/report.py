"""What is found, in plain words: verdicts, each with its number, its threshold and the fix, and what was checked."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

E = TypeVar("E")


@dataclass(frozen=True)
class Verdict:
    """Something that keeps an agent from learning.

    `sentence` says it to a person and holds the number and the threshold; both are None where there is none to give.
    """

    rule: str
    sentence: str
    number: float | None
    threshold: float | None
    fix: str


@dataclass(frozen=True)
class Report:
    """The verdicts on an environment or a run, and what was checked, or why it could not be."""

    subject: str
    verdicts: tuple[Verdict, ...]
    checked: tuple[str, ...]


class NotJudgedError(Exception):
    """A rule has nothing to judge by; the message says why, and is empty where the rule is not meant for such a run."""


Rules = Iterable[tuple[str, Callable[[E], Verdict | None]]]


def judge(evidence: E, rules: Rules[E]) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """The verdicts of the rules on the evidence, and a line for each rule that found nothing or could not judge.

    A rule is what it makes sure of, and a pure function of the evidence to a verdict, or to None.
    """
    verdicts, checked = list[Verdict](), list[str]()
    for promise, rule in rules:
        try:
            verdict = rule(evidence)
        except NotJudgedError as why:
            if str(why):
                checked.append(f"not judged, whether {promise}: {why}")
            continue
        if verdict is None:
            checked.append(promise)
        else:
            verdicts.append(verdict)
    return tuple(verdicts), tuple(checked)


def number(value: float) -> str:
    """A number as people read it: three digits, thousands by comma."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.3g}"
