"""`qlearn play RUN`: watch a trained agent, in a window or as a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qlearn import api, play
from qlearn.build import build_envs, build_rules
from qlearn.cli.parse import parse
from qlearn.envs import import_environments
from qlearn.errors import UsageError
from qlearn.runs.directory import trusted_config


@dataclass(frozen=True)
class Arguments:
    """Watch a trained agent: in a window, or as a video with its Q-values beside the frame."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    video: Path | None = None
    """Write an .mp4 file instead of opening a window."""
    episodes: int = 3
    """How many."""
    seed: int = 0
    """Seed of the episodes' starts."""
    best: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The checkpoint with the largest mean return in training, not the newest."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Play; returns the exit code."""
    arguments = parse(Arguments, argv, "play")
    import_environments(arguments.module)
    if arguments.episodes < 1:
        raise UsageError(f"--episodes is {arguments.episodes}; it must be at least 1")
    config, agent = trusted_config(arguments.run), api.load(arguments.run, best=arguments.best)
    rules = build_rules(config)
    epsilon = rules[1].epsilon if rules else 0.0  # without it a game may wait for FIRE for ever
    play.require_screen(arguments.video)
    mode = "rgb_array" if arguments.video else "human"
    envs = build_envs(config, 1, seed=arguments.seed, stream="evaluate", render_mode=mode)
    try:
        returns = play.show(agent, envs, arguments.episodes, arguments.video, epsilon=epsilon)
    finally:
        envs.close()
    print(f"{config.env.id}: returns {', '.join(f'{value:g}' for value in returns)}")
    if arguments.video:
        print(arguments.video)
    return 0
