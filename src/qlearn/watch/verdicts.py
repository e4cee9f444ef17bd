"""What `qlearn doctor` finds in a run, for the top of the page."""

from pathlib import Path
from typing import Any

from qlearn.doctor import examine_run


def verdicts_of(run: Path) -> dict[str, Any]:
    """The verdicts of the run, what was checked, and a note where it was not examined."""
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
