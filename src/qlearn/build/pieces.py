"""The pieces of a run, each from what the configuration says of it."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from qlearn import tabular
from qlearn.config import Config
from qlearn.config.records import EnvConfig
from qlearn.engine import Adam, CenteredRMSProp, Mode, Optimizer, RAdam, why_not_bfloat16
from qlearn.envs import Encoder, Game, GymEnvs, Rules, find_game, make_envs, rules_of
from qlearn.errors import UsageError
from qlearn.exploration import Ladder, Linear
from qlearn.networks import Custom, Encode, QNetwork, make_head
from qlearn.prioritized import Prioritized
from qlearn.replay import Replay, Ring, Uniform
from qlearn.torsos import FILTERS, image_layout, make_torso
from qlearn.types import Array, Space
from qlearn.values import Categorical, Quantiles, Scalar, Value

WORTHWHILE = 5_000  # updates, which take an eager run about as long as compiling does

MakeNetwork = Callable[[tuple[int, ...], int], nn.Module]


def build_optimizer(config: Config) -> Optimizer:
    """The optimiser by its name."""
    optimizer = config.optimizer
    match optimizer.name:
        case "adam":
            return Adam(optimizer.learning_rate, epsilon=optimizer.epsilon)
        case "radam":
            return RAdam(optimizer.learning_rate, epsilon=optimizer.epsilon)
        case "rmsprop":
            return CenteredRMSProp(optimizer.learning_rate, epsilon=optimizer.epsilon)


def build_learning_rate(config: Config) -> Linear:
    """The learning rate by the steps so far."""
    optimizer = config.optimizer
    end = optimizer.learning_rate if optimizer.end_learning_rate is None else optimizer.end_learning_rate
    return Linear(optimizer.learning_rate, end, optimizer.decay_steps)


def build_mode(config: Config) -> Mode:
    """How updates run. auto decides by the configuration alone, so that a run repeats."""
    if config.runtime.compile != "auto":
        return config.runtime.compile
    if config.algorithm == "pqn":
        updates = config.steps / (config.env.num_envs * config.pqn.rollout_steps)
        updates *= config.pqn.epochs * config.pqn.minibatches
    else:
        updates = (config.steps - config.replay.warmup_steps) * config.learner.replay_ratio
    return "compiled" if config.runtime.device == "cpu" and updates >= WORTHWHILE else "eager"


def build_epsilon(config: Config) -> Callable[[int], float | Array]:
    """The exploration rate by the steps since the warm-up."""
    explore = config.exploration
    match explore.kind:
        case "linear":
            return Linear(explore.start, explore.end, explore.decay_steps)
        case "constant":
            return Linear(explore.end, explore.end, 0)
        case "ladder":
            return Ladder(explore.start, explore.end, config.env.num_envs)


def build_envs(
    config: Config,
    num_envs: int | None = None,
    *,
    seed: int | None = None,
    stream: str = "train",
    **kwargs: Any,
) -> GymEnvs:
    """The environments of the configuration; `kwargs` go to `make_envs`. Only those of training are made anew."""
    env, given = config.env, json.loads(config.env.kwargs)
    atari = {"obs_type": env.obs_type, "protocol": env.protocol}
    if build_rules(config):
        given = given | atari
    elif changed := next((name for name, value in atari.items() if value != getattr(EnvConfig(), name)), None):
        raise UsageError(f"env.{changed} is {atari[changed]}, but {env.id} is no Atari game")
    return make_envs(
        env.id,
        num_envs or env.num_envs,
        seed=config.seed if seed is None else seed,
        stream=stream,
        kwargs=given,
        restarts=env.max_restarts if stream == "train" else 0,
        apart=env.timeout_seconds if env.isolated else 0.0,
        **kwargs,
    )


def build_rules(config: Config) -> tuple[Game, Rules] | None:
    """The game, and how it is played; None where the environment is no Atari game."""
    game = find_game(config.env.id)
    return None if game is None else (game, rules_of(game, config.env.protocol, json.loads(config.env.kwargs)))


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
            clip=replay.clip_rewards,
            compress=config.learner.batch_size if replay.compress else 0,
        )
    except (MemoryError, ValueError, OverflowError) as error:
        fix = "a smaller one" if replay.compress else "--replay.compress True, or a smaller one"
        raise UsageError(
            f"replay.capacity is {replay.capacity:,}: so many rows do not fit in memory; use {fix}"
        ) from error


def build_replay(config: Config, space: Space) -> Replay:
    """The replay memory, and how it is sampled."""
    ring, rng, memory = build_ring(config, space), generator(config.seed, "replay"), config.replay
    if memory.prioritized:
        exponent = build_value(config).exponent if memory.priority_exponent is None else memory.priority_exponent
        beta = Linear(memory.beta, 1.0, memory.beta_steps or config.steps)
        return Prioritized(ring, rng, exponent=exponent, beta=beta, mode=build_mode(config))
    return Uniform(ring, rng)


def build_value(config: Config) -> Value:
    """What the network's numbers mean."""
    value = config.value
    match value.kind:
        case "scalar":
            return Scalar(huber=config.learner.loss == "huber")
        case "c51":
            return Categorical(value.v_min, value.v_max, value.atoms)
        case "qr" | "iqn":
            return Quantiles()


def build_network(config: Config, space: Space, network: MakeNetwork | None = None) -> nn.Module:
    """A network with weights drawn from the run's seed; the global generator of PyTorch is left as it was."""
    if (network is not None) != (config.network.torso == "custom"):
        raise UsageError(
            "network.torso is custom, so give the network: network=make_network"
            if network is None
            else f"network.torso is {config.network.torso}, but a network was given; it must be custom"
        )
    if config.algorithm == "tabular" and not space.categories:
        raise UsageError(
            f"{config.env.id} has observations that are no single integer, and a table has a row for each one; use "
            "--preset dqn"
        )
    shape = input_shape(config, space)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(config.seed, "network").integers(2**63)))
            if config.algorithm == "tabular":
                made: nn.Module = tabular.Table(space.categories, space.num_actions)
            elif network is not None:
                made = Custom(network(shape, space.num_actions), space.num_actions, numbers(config))
            else:
                made = _own_network(config, space, shape)
            _try(made, torch.zeros(2, *shape, dtype=torch.from_numpy(np.zeros(0, space.dtype)).dtype))
    except (MemoryError, OverflowError, RuntimeError) as error:
        if network is not None:
            raise
        raise UsageError(f"network.hidden is {config.network.hidden}: such layers cannot be made ({error})") from error
    return made.to(config.runtime.device)


def _own_network(config: Config, space: Space, shape: tuple[int, ...]) -> QNetwork:
    net = config.network
    inputs = (*shape, space.categories) if space.categories else shape
    torso, features = make_torso(net.torso, inputs, net.hidden[:-1], layer_norm=net.layer_norm)
    implicit = config.value.kind == "iqn"
    if implicit and not any(True for _ in torso.parameters()):
        raise UsageError(
            f"network.hidden is {net.hidden}, but iqn multiplies the features of the layer before the last by its "
            "levels; without convolutions it needs two layers"
        )
    head = make_head(
        features,
        net.hidden[-1],
        space.num_actions,
        numbers(config),
        dueling=net.dueling,
        noise=net.noise if net.noisy else 0.0,
        implicit=implicit,
        layer_norm=net.layer_norm,
    )
    return QNetwork(Encode(space, rescale=net.rescale), torso, head, precision=build_precision(config, shape))


def build_precision(config: Config, shape: tuple[int, ...]) -> torch.dtype:
    """What the network of inputs `[B, *shape]` computes in."""
    runtime, convolutions = config.runtime, takes_images(config, shape)
    if runtime.precision == "fp32" or (runtime.precision == "auto" and (runtime.device != "cpu" or not convolutions)):
        return torch.float32
    problem = why_not_bfloat16() if runtime.device == "cpu" else None
    if problem and runtime.precision == "bf16":
        raise UsageError(f"runtime.precision is bf16, but {problem}; use fp32")
    return torch.float32 if problem else torch.bfloat16


def takes_images(config: Config, shape: tuple[int, ...]) -> bool:
    """Whether the network of inputs `[B, *shape]` begins with convolutions of images."""
    return config.network.torso in ("auto", *FILTERS) and image_layout(shape) is not None


def numbers(config: Config) -> int:
    """K: how many numbers the network has for each action."""
    value = config.value
    return {"scalar": 1, "c51": value.atoms, "qr": value.quantiles, "iqn": value.quantiles}[value.kind]


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
    return config.runtime.threads or (0 if takes_images(config, input_shape(config, space)) else 1)


def generator(seed: int, stream: str) -> np.random.Generator:
    """A generator of one object, derived from the run's seed and the object's name."""
    return np.random.default_rng((seed, int.from_bytes(stream.encode(), "little")))


def policy_parts(config: Config, network: MakeNetwork | None = None) -> tuple[nn.Module, Value, Encoder]:
    """What is needed to act: a network (its weights still to be loaded), what its numbers mean, its encoder."""
    envs = build_envs(config, 1)
    try:
        return build_network(config, envs.space, network), build_value(config), envs.encoder
    finally:
        envs.close()


def require_device(device: str) -> None:
    """Refuse a device that is not here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError("runtime.device is cuda, but PyTorch finds no CUDA device here; use --device cpu")


def with_custom_network(config: Config) -> Config:
    """The configuration of a run whose network is given in Python: what is in it is its maker's affair."""
    own = dataclasses.replace(config.network, torso="custom", dueling=False, noisy=False, layer_norm=False)
    return dataclasses.replace(config, network=own)
