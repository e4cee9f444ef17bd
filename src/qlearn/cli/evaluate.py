"""`qlearn evaluate RUN`: play whole episodes and report the returns."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import qlearn
from qlearn.cli.parse import parse
from qlearn.envs import import_environments
from qlearn.errors import UsageError
from qlearn.scores import text


@dataclass(frozen=True)
class Arguments:
    """Play whole episodes with the greedy policy of a run, from reset seeds that training did not use."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    episodes: int = 100
    """How many."""
    seed: int = 0
    """Seed of the episodes' starts."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object, with every return."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Evaluate; returns the exit code."""
    arguments = parse(Arguments, argv, "evaluate")
    import_environments(arguments.module)
    if arguments.episodes < 1:
        raise UsageError(f"--episodes is {arguments.episodes}; it must be at least 1")
    result = qlearn.evaluate(arguments.run, episodes=arguments.episodes, seed=arguments.seed).summary()
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['env_id']}: mean return {text(result['mean'])} over {result['episodes']} episodes "
        f"(95 % interval {text(result['ci_low'])} to {text(result['ci_high'])}), "
        f"standard deviation {text(result['std'])}, median {text(result['median'])}; greedy policy"
    )
    if cut := result["protocol"]["episodes_cut"]:
        print(f"{cut} of them did not end by themselves and were cut")
    return 0
