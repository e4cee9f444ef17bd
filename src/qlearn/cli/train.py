"""`qlearn train ENV`: train an agent in an environment."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qlearn import presets, runs
from qlearn.cli.parse import WrongUsage, parse
from qlearn.config import Config, check
from qlearn.errors import UsageError
from qlearn.runs.board import Board
from qlearn.runs.display import Terminal


@dataclass(frozen=True)
class Arguments:
    """Train an agent by deep Q-learning in a Gymnasium environment with Discrete actions."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help_behavior_hint="")]
    """Id of the environment, or module:Id."""
    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: str = "dqn"
    """The settings to start from; qlearn presets lists them."""
    seeds: int = 1
    """Runs to train, with the seeds from --seed upwards."""
    run_dir: Path | None = None
    """Directory of the run; by default the first free runs/ENV/PRESET-seedN-NNN."""


def main(argv: list[str]) -> int:
    """Train; returns the exit code."""
    # The preset and the environment decide the defaults of everything else, so they are read first.
    plain = [word for word in argv if word not in ("-h", "--help")]
    try:
        first = parse(Arguments, plain, "train", Arguments(env=tyro.MISSING, config=presets.get("dqn")))
        config = presets.get(first.preset, first.env)
    except WrongUsage:
        if plain == argv:
            raise
        config = presets.get("dqn")
    arguments = parse(Arguments, argv, "train", Arguments(env=tyro.MISSING, config=config))
    config = check(arguments.config)
    if arguments.seeds < 1:
        raise UsageError(f"--seeds is {arguments.seeds}; it must be at least 1")
    if arguments.seeds > 1 and arguments.run_dir:
        raise UsageError("--run-dir is the directory of one run; leave it out where --seeds is more than 1")
    command = shlex.join(["qlearn", "train", *argv])
    if arguments.seeds > 1:
        return _seeds(config, arguments.seeds, command)
    run = runs.start(config, run_dir=arguments.run_dir, command=command, display=Terminal())
    print(runs.verdict(run.summary, config))
    print(f"Results  {run.path}")
    print(f"Next     {runs.command('play', run.path)}")
    return 0


def _seeds(config: Config, count: int, command: str) -> int:
    """Train several seeds, together where that can be, and say how they went."""
    if runs.can_share(config):
        finished = runs.start_seeds(config, count, command=command, board=Board())
    else:
        configs = [dataclasses.replace(config, seed=config.seed + i) for i in range(count)]
        finished = [runs.start(one, command=command, display=Terminal()) for one in configs]
    for run in finished:
        print(f"Seed {run.summary['seed']}: {runs.verdict(run.summary, config)}")
    print(runs.verdict_of_seeds([run.summary for run in finished], config))
    for run in finished:
        print(f"Results  {run.path}")
    print(f"Next     {shlex.join(['qlearn', 'plot', *(str(run.path) for run in finished)])}")
    return 0
