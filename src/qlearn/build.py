"""Config to parts: the composition root, the only place that knows both."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from qlearn import dqn
from qlearn.actor import Actor
from qlearn.config import Config
from qlearn.envs import Encoder, GymEnvs, make_envs
from qlearn.errors import UsageError
from qlearn.exploration import Linear
from qlearn.networks import Custom, Encode, QNetwork, image_layout, make_torso
from qlearn.replay import Ring, Uniform
from qlearn.types import Space, Tick
from qlearn.values import Scalar

MakeNetwork = Callable[[tuple[int, ...], int], nn.Module]


@dataclass
class Parts:
    """A run, taken apart: what `dqn.train` is made of, each part with its own random numbers."""

    config: Config
    envs: GymEnvs
    replay: Uniform
    learner: dqn.Learner
    actor: Actor

    def train(self, after: Tick | None = None) -> Iterator[Tick]:
        """The training loop, from the beginning or after a tick."""
        learner, exploration, optimizer = self.config.learner, self.config.exploration, self.config.optimizer
        end = optimizer.learning_rate if optimizer.end_learning_rate is None else optimizer.end_learning_rate
        learning_rate = Linear(optimizer.learning_rate, end, optimizer.decay_steps)
        ticks = dqn.train(
            self.actor,
            self.replay,
            self.learner,
            epsilon=Linear(exploration.start, exploration.end, exploration.decay_steps),
            total_steps=self.config.steps,
            warmup_steps=self.config.replay.warmup_steps,
            batch_size=learner.batch_size,
            replay_ratio=learner.replay_ratio,
            target_update_steps=learner.target_update_steps,
            after=after,
        )
        self.learner.set_learning_rate(learning_rate(after.steps if after else 0))
        for tick in ticks:
            self.learner.set_learning_rate(learning_rate(tick.steps))
            yield tick


def build(config: Config, network: MakeNetwork | None = None) -> Parts:
    """All parts of a run.

    Args:
        config: a checked configuration.
        network: for `network.torso = custom`, a function of the shape of the network's input (without the batch)
            and the number of actions that returns an `nn.Module` from observations to Q-values `[B, A]`.
    """
    _require_device(config.runtime.device)
    envs = build_envs(config)
    try:
        net = build_network(config, envs.space, network)
        ring = build_ring(config, envs.space)
        replay = Uniform(ring, generator(config.seed, "replay"))
        learner = dqn.Learner(
            net,
            build_value(config),
            dqn.Greedy(double=config.backup.double),
            replay,
            lambda parameters: torch.optim.Adam(
                parameters, config.optimizer.learning_rate, eps=config.optimizer.epsilon, fused=True
            ),
            max_grad_norm=config.learner.max_grad_norm,
        )
        actor = Actor(envs, learner.q_values, generator(config.seed, "actor"), stack=config.env.frame_stack)
    except BaseException:
        envs.close()
        raise
    return Parts(config, envs, replay, learner, actor)


def build_envs(
    config: Config,
    num_envs: int | None = None,
    *,
    seed: int | None = None,
    stream: str = "train",
    **kwargs: Any,
) -> GymEnvs:
    """The environments of the configuration; `kwargs` go to `make_envs`."""
    return make_envs(
        config.env.id,
        num_envs or config.env.num_envs,
        seed=config.seed if seed is None else seed,
        stream=stream,
        kwargs=json.loads(config.env.kwargs),
        **kwargs,
    )


def build_ring(config: Config, space: Space) -> Ring:
    """The replay memory's ring."""
    replay = config.replay
    try:
        return Ring(
            space,
            replay.capacity,
            config.env.num_envs,
            n_step=replay.n_step,
            gamma=replay.gamma,
            stack=config.env.frame_stack,
        )
    except (MemoryError, ValueError, OverflowError) as error:
        raise UsageError(f"replay.capacity is {replay.capacity:,}: so many rows do not fit in memory") from error


def build_value(config: Config) -> Scalar:
    """What the network's numbers mean."""
    return Scalar(huber=config.learner.loss == "huber")


def build_network(config: Config, space: Space, network: MakeNetwork | None = None) -> nn.Module:
    """A network with weights drawn from the run's seed; the global generator of PyTorch is left as it was."""
    if (network is not None) != (config.network.torso == "custom"):
        raise UsageError(
            "network.torso is custom, so give the network: network=make_network"
            if network is None
            else f"network.torso is {config.network.torso}, but a network was given; it must be custom"
        )
    shape = input_shape(config, space)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(config.seed, "network").integers(2**63)))
            if network is not None:
                made: nn.Module = Custom(network(shape, space.num_actions), space.num_actions)
            else:
                inputs = (*shape, space.categories) if space.categories else shape
                torso, features = make_torso(config.network.torso, inputs, config.network.hidden)
                encode = Encode(space, rescale=config.network.rescale)
                made = QNetwork(encode, torso, features, space.num_actions)
            _try(made, torch.zeros(2, *shape, dtype=torch.from_numpy(np.zeros(0, space.dtype)).dtype))
    except (MemoryError, OverflowError, RuntimeError) as error:
        if network is not None:
            raise
        raise UsageError(f"network.hidden is {config.network.hidden}: such layers cannot be made ({error})") from error
    return made.to(config.runtime.device)


@torch.no_grad()
def _try(network: nn.Module, obs: torch.Tensor) -> None:
    """See now, not in the run, whether the network takes observations and can be trained."""
    parameters = list(network.parameters())
    if not parameters or any(p.dtype != torch.float32 for p in parameters):
        kinds = ", ".join(sorted({str(p.dtype) for p in parameters})) or "none"
        raise UsageError(f"the network's parameters must be torch.float32; it has {kinds}")
    training = network.training
    try:
        network.eval()(obs)
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"the network does not take observations of shape {tuple(obs.shape)}: {reason}") from error
    finally:
        network.train(training)


def input_shape(config: Config, space: Space) -> tuple[int, ...]:
    """The shape of what the network sees, without the batch."""
    return (config.env.frame_stack, *space.shape) if config.env.frame_stack > 1 else space.shape


def threads(config: Config, space: Space) -> int:
    """Threads that PyTorch should use for this run; 0 means as many as it likes."""
    pixels = config.network.torso in ("auto", "nature") and image_layout(input_shape(config, space)) is not None
    return config.runtime.threads or (0 if pixels else 1)


def generator(seed: int, stream: str) -> np.random.Generator:
    """A generator of one object, derived from the run's seed and the object's name."""
    return np.random.default_rng((seed, int.from_bytes(stream.encode(), "little")))


def policy_parts(config: Config, network: MakeNetwork | None = None) -> tuple[nn.Module, Scalar, Encoder]:
    """What is needed to act: a network (its weights still to be loaded), what its numbers mean, its encoder."""
    envs = build_envs(config, 1)
    try:
        return build_network(config, envs.space, network), build_value(config), envs.encoder
    finally:
        envs.close()


def _require_device(device: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError("runtime.device is cuda, but PyTorch finds no CUDA device here; use --device cpu")


def with_custom_network(config: Config) -> Config:
    """The configuration of a run whose network is given in Python."""
    return dataclasses.replace(config, network=dataclasses.replace(config.network, torso="custom"))
