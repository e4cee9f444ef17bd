"""The library's few calls, as they are made from Python."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlearn import presets, runs
from qlearn.agent import Agent
from qlearn.build import MakeNetwork, build_envs, build_rules, with_custom_network
from qlearn.config import check, override
from qlearn.errors import UsageError
from qlearn.evaluate import Evaluation
from qlearn.evaluate import evaluate as run_evaluation
from qlearn.runs.directory import trusted_config
from qlearn.runs.display import Silent, Terminal


def train(
    env: str,
    /,
    *,
    preset: str = "dqn",
    network: MakeNetwork | Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> runs.Run:
    """Train an agent, in a run directory of its own.

    Args:
        env: the id of a Gymnasium environment with Discrete actions, or `module:Id`.
        preset: the configuration to start from.
        network: a network of your own: a function of the observation's shape and the number of actions that
            returns an `nn.Module` from observations `[B, *shape]` to Q-values `[B, A]`. Or fields of the
            configuration: `{"hidden": (64, 64)}`.
        run_dir: the directory; by default the first free `runs/ENV/PRESET-seedN-NNN`.
        progress: show how it goes.
        changes: fields of the configuration: `steps=50_000, seed=1, learner={"batch_size": 32}`.

    Returns:
        A `Run`: `.summary`, `.agent`, `.path`.

    Raises:
        QlearnError: one line that says what is wrong, where, and the fix.
    """
    given = {"preset": preset, **changes, **({} if network is None else {"network": network})}
    call = [repr(env), *(f"{name}={value!r}" for name, value in given.items())]
    if isinstance(network, Mapping):
        network, changes = None, {**changes, "network": network}
    config = override(presets.get(preset, env), changes)
    if network is not None:
        config = with_custom_network(config)
    config = check(config)
    return runs.start(
        config,
        run_dir=run_dir,
        network=network,
        command=f"qlearn.train({', '.join(call)})",
        display=Terminal() if progress else Silent(),
    )


def resume(
    run: str | Path, *, steps: int | None = None, network: MakeNetwork | None = None, progress: bool = True
) -> runs.Run:
    """Continue a run from its newest checkpoint, to `steps` environment steps in all where given."""
    return runs.resume(run, steps=steps, network=network, display=Terminal() if progress else Silent())


def load(run: str | Path, *, network: MakeNetwork | None = None, best: bool = False) -> Agent:
    """The agent of a run's newest checkpoint, or of its best; see `qlearn.runs.load`."""
    return runs.load(run, network, best=best)


def evaluate(
    run: str | Path,
    *,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 10,
    epsilon: float | None = None,
    network: MakeNetwork | None = None,
    best: bool = False,
) -> Evaluation:
    """Play whole episodes with the greedy policy of a run, from reset seeds that training did not use.

    Atari games are played to their end, lives and all, under the run's protocol.

    Args:
        run: the run directory.
        episodes: how many.
        seed: of their starts.
        num_envs: environments that share the work; the returns of a greedy policy do not depend on it.
        epsilon: probability of a random action; by default the protocol's of an Atari game, else 0.
        network: the network of a run that has one of your own.
        best: of the checkpoint with the largest mean return in training, not the newest.
    """
    for name, value in {"episodes": episodes, "num_envs": num_envs}.items():
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    if epsilon is not None and not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon is {epsilon}; it must be from 0 to 1")
    config, agent = trusted_config(Path(run)), load(run, network=network, best=best)
    played = build_rules(config)
    if epsilon is None:
        epsilon = played[1].epsilon if played else 0.0
    envs = build_envs(config, min(num_envs, episodes), seed=seed, stream="evaluate")
    try:
        return run_evaluation(
            agent.encoded_q_values,
            envs,
            episodes,
            env_id=config.env.id,
            epsilon=epsilon,
            stack=config.env.frame_stack,
            limit=played[1].steps if played else None,
            game=played[0].rom if played else "",
            protocol={
                "policy": "epsilon-greedy" if epsilon else "greedy",
                **({"atari": {"obs_type": config.env.obs_type, **dataclasses.asdict(played[1])}} if played else {}),
                "network": "in evaluation mode: no noise, evenly spaced quantile levels",
                "seed": seed,
                "starts": "reset seeds that training did not use",
            },
        )
    finally:
        envs.close()
