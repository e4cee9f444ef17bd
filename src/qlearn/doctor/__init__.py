"""Why it does not learn: an environment before any training, and a run after some of it.

A rule is a pure function of what was seen to a `Verdict`, or to None; `rules.RULES` has those of a run,
`soundness.RULES` those of an environment.
"""

from pathlib import Path

from qlearn.doctor.evidence import read_run
from qlearn.doctor.learning import environment_share
from qlearn.doctor.probes import examine_learning
from qlearn.doctor.report import Report, Verdict, judge
from qlearn.doctor.rules import RULES
from qlearn.doctor.soundness import examine_soundness

__all__ = ["Report", "Verdict", "examine_env", "examine_run"]


def examine_run(path: str | Path) -> Report:
    """The verdicts on the run in a directory, finished or not, from its files and a few greedy episodes.

    Raises:
        UsageError: there is no such run, or its environment is that of a module that is not imported.
        RunError: it is damaged.
    """
    evidence = read_run(Path(path))
    verdicts, checked = judge(evidence, RULES)
    facts = [f"{evidence.steps:,} steps, {len(evidence.episodes):,} episodes, {evidence.updates():,} updates"]
    share = environment_share(evidence)
    if share is not None:
        bound = "environment-bound" if share > 0.5 else "learner-bound"
        facts.append(f"the environment takes {share:.0%} of the time: {bound}")
    return Report(str(path), verdicts, (*facts, *checked))


def examine_env(env_id: str, *, preset: str = "dqn", seed: int = 0) -> Report:
    """The verdicts on an environment, and on whether a preset's algorithm learns the probes on this machine.

    Raises:
        UsageError: there is no such environment, or qlearn cannot learn in it.
        QlearnError: a package that it needs is not installed.
    """
    found = [examine_soundness(env_id, preset, seed), examine_learning(preset, seed)]
    verdicts, checked = zip(*found, strict=True)
    return Report(env_id, tuple(v for part in verdicts for v in part), tuple(c for part in checked for c in part))
