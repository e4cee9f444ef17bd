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
    epsilon: float | None = None
    """Probability of a random action; by default that of the protocol of an Atari game, else 0."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object, with every return."""
    best: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The checkpoint with the largest mean return in training, not the newest."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Evaluate; returns the exit code."""
    arguments = parse(Arguments, argv, "evaluate")
    import_environments(arguments.module)
    if arguments.episodes < 1:
        raise UsageError(f"--episodes is {arguments.episodes}; it must be at least 1")
    result = qlearn.evaluate(
        arguments.run,
        episodes=arguments.episodes,
        seed=arguments.seed,
        epsilon=arguments.epsilon,
        best=arguments.best,
    ).summary()
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['env_id']}: mean return {text(result['mean'])} over {result['episodes']} episodes "
        f"(95 % interval {text(result['ci_low'])} to {text(result['ci_high'])}), "
        f"standard deviation {text(result['std'])}, median {text(result['median'])}; "
        f"{'greedy policy' if not (epsilon := result['protocol']['epsilon']) else f'epsilon {epsilon:g}'}"
    )
    if "human_normalized" in result:
        print(
            f"{result['human_normalized']:.0%} of human: a random player scores {text(result['random_score'])}, "
            f"a human {text(result['human_score'])}"
        )
    if cut := result["protocol"]["episodes_cut"]:
        print(f"{cut} of them did not end by themselves and were cut")
    return 0
