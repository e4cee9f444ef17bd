"""What `qlearn doctor` finds in a run, for the top of the page."""

from pathlib import Path
from typing import Any


def verdicts_of(run: Path) -> dict[str, Any]:
    """The verdicts of the run, what was checked, and a note where it was not examined."""
    try:
        from qlearn.doctor import examine_run  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return {"verdicts": [], "checked": [], "note": "this version of qlearn has no doctor to ask"}
    try:
        report = examine_run(run)
    except Exception as error:  # as in study.py
        return {"verdicts": [], "checked": [], "note": f"the doctor cannot examine it: {error}"}
    names = ("rule", "sentence", "number", "threshold", "fix")
    return {
        "verdicts": [{name: getattr(verdict, name) for name in names} for verdict in report.verdicts],
        "checked": [str(rule) for rule in report.checked],
        "note": "",
    }
