"""The agent that a run left behind."""

import dataclasses
from pathlib import Path

from qlearn.agent import Agent
from qlearn.build import MakeNetwork, policy_parts
from qlearn.errors import UsageError
from qlearn.runs import checkpoint, directory
from qlearn.runs.changes import require_same
from qlearn.runs.manifest import NETWORKS


def load(path: str | Path, network: MakeNetwork | None = None, *, best: bool = False) -> Agent:
    """The agent of the newest checkpoint of a run, or of the `best`: that with the largest mean return in training.

    A run may come from a stranger: its files are read as numbers and plain values, no module is imported because
    they say so, and no more than the environment that they name is made, with the arguments that they give, and reset.

    Raises:
        UsageError: there is no such run, its network is your own and was not given, or its environment is that of a
            module that is not imported.
        RunError: it is damaged.
    """
    path = Path(path)
    config, chosen = directory.trusted_config(path), None
    if best:
        chosen = checkpoint.best(path / directory.CHECKPOINTS)
        if chosen is None:
            raise UsageError(f"{path} has no best checkpoint: none was written after {config.window:,} episodes")
    saved = checkpoint.Checkpoint(chosen) if chosen else checkpoint.newest(path / directory.CHECKPOINTS, [NETWORKS])
    require_same(path / directory.CONFIG, saved.manifest, config)
    on_cpu = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, device="cpu", precision="fp32"))
    net, value, encoder = policy_parts(on_cpu, network)
    saved.load_network(net)
    return Agent(net, value, encoder, stack=config.env.frame_stack)
