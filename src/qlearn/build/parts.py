"""A run, taken apart: its pieces, and the loop that they are made for."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from qlearn import dqn, pqn, tabular
from qlearn.actor import Actor
from qlearn.build.pieces import (
    MakeNetwork,
    build_envs,
    build_epsilon,
    build_learning_rate,
    build_mode,
    build_network,
    build_optimizer,
    build_replay,
    build_value,
    generator,
    require_device,
)
from qlearn.config import Config
from qlearn.envs import GymEnvs
from qlearn.replay import Replay
from qlearn.types import Array, Tick

Learner = dqn.Learner | pqn.Learner | tabular.Learner


@dataclass
class Parts:
    """A run, taken apart: what its loop is made of, each part with its own random numbers."""

    config: Config
    envs: GymEnvs
    learner: Learner
    actor: Actor
    replay: Replay | None  # dqn has one

    def train(self, after: Tick | None = None) -> Iterator[Tick]:
        """The training loop, from the beginning or after a tick."""
        learning_rate = build_learning_rate(self.config)
        self.learner.set_learning_rate(learning_rate(after.steps if after else 0))
        for tick in self._ticks(after):
            self.learner.set_learning_rate(learning_rate(tick.steps))
            yield tick

    def generators(self) -> dict[str, np.random.Generator]:
        """Those that a checkpoint keeps, by whose they are."""
        found: dict[str, object] = {
            "actor": self.actor.rng,
            "replay": self.replay.rng if self.replay else None,
            "learner": self.learner.rng if isinstance(self.learner, pqn.Learner) else None,
        }
        return {name: rng for name, rng in found.items() if isinstance(rng, np.random.Generator)}

    def leave_episodes(self, obs: Array, mask: Array | None) -> None:
        """End the running episodes as by a time limit, at these observations `[E, *shape]`; the next ones begin."""
        if self.replay is not None:
            self.replay.ring.cut(obs, mask)
        if isinstance(self.learner, pqn.Learner):
            self.learner.begun.clear()
        self.actor.restart()

    def _ticks(self, after: Tick | None) -> Iterator[Tick]:
        config, epsilon = self.config, build_epsilon(self.config)
        match self.learner:
            case dqn.Learner():
                assert self.replay is not None
                return dqn.train(
                    self.actor,
                    self.replay,
                    self.learner,
                    epsilon=epsilon,
                    total_steps=config.steps,
                    warmup_steps=config.replay.warmup_steps,
                    batch_size=config.learner.batch_size,
                    replay_ratio=config.learner.replay_ratio,
                    target_update_steps=config.learner.target_update_steps,
                    after=after,
                )
            case pqn.Learner():
                return pqn.train(
                    self.actor,
                    self.learner,
                    epsilon=epsilon,
                    total_steps=config.steps,
                    rollout_steps=config.pqn.rollout_steps,
                    after=after,
                )
            case tabular.Learner():
                return tabular.train(self.actor, self.learner, epsilon=epsilon, total_steps=config.steps, after=after)


def build(config: Config, network: MakeNetwork | None = None) -> Parts:
    """All parts of a run.

    Args:
        config: a checked configuration.
        network: for `network.torso = custom`, a function of the shape of the network's input (without the batch)
            and the number of actions that returns an `nn.Module` from observations to Q-values `[B, A]`.
    """
    require_device(config.runtime.device)
    envs = build_envs(config)
    try:
        net = build_network(config, envs.space, network)
        replay = build_replay(config, envs.space) if config.algorithm == "dqn" else None
        learner = build_learner(config, net, replay)
        actor = Actor(envs, learner.q_values, generator(config.seed, "actor"), stack=config.env.frame_stack)
    except BaseException:
        envs.close()
        raise
    return Parts(config, envs, learner, actor, replay)


def build_learner(config: Config, net: nn.Module, replay: Replay | None) -> Learner:
    """What learns, and how, by the algorithm's name."""
    rng = torch.Generator(config.runtime.device)
    rng.manual_seed(int(generator(config.seed, "noise").integers(2**63)))
    value, max_grad_norm, mode = build_value(config), config.learner.max_grad_norm, build_mode(config)
    if isinstance(net, tabular.Table):
        return tabular.Learner(net, gamma=config.replay.gamma, learning_rate=config.optimizer.learning_rate)
    if config.algorithm == "pqn":
        return pqn.Learner(
            net,
            value,
            build_optimizer(config),
            gamma=config.replay.gamma,
            trace=config.pqn.trace,
            clip=config.replay.clip_rewards,
            epochs=config.pqn.epochs,
            minibatches=config.pqn.minibatches,
            max_grad_norm=max_grad_norm,
            rng=generator(config.seed, "minibatches"),
            noise=rng,
            mode=mode,
        )
    assert replay is not None
    backup = config.backup
    chosen = (
        dqn.Munchausen(backup.alpha, backup.temperature, backup.clip)
        if backup.munchausen
        else dqn.Greedy(double=backup.double)
    )
    return dqn.Learner(
        net, value, chosen, replay, build_optimizer(config), max_grad_norm=max_grad_norm, rng=rng, mode=mode
    )
