"""The configuration of a run: frozen records of plain values. `qlearn.build` alone turns it into parts.

A field's docstring is its help on the command line, and its annotation says what it may be.
"""

import dataclasses
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from qlearn.errors import UsageError, nearest

C = TypeVar("C")


@dataclass(frozen=True)
class Range:
    """The values that a number may take, bounds included unless `open_low`."""

    low: float
    high: float = float("inf")
    open_low: bool = False

    def allows(self, value: float) -> bool:
        """Whether `value` is inside; NaN never is."""
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"{'more than' if self.open_low else 'at least'} {self.low:g}"
        return f"from {self.low:,.10g} to {self.high:,.14g}"


Count = Annotated[int, Range(1, 10**12)]
Whole = Annotated[int, Range(0, 10**12)]
Share = Annotated[float, Range(0, 1)]
Switch = Annotated[bool, tyro.conf.FlagConversionOff]  # on the command line it takes a value, as every field does
Positive = Annotated[float, Range(0, open_low=True)]


@dataclass(frozen=True)
class EnvConfig:
    """The environment."""

    id: Annotated[str, tyro.conf.Suppress] = "CartPole-v1"
    """Its Gymnasium id, or module:Id."""
    num_envs: Count = 1
    """Copies that are played at once."""
    frame_stack: Count = 1
    """Observations that the network sees at once."""
    kwargs: str = "{}"
    """Arguments of the environment's constructor, as a JSON object."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network."""

    torso: Literal["auto", "mlp", "nature", "custom"] = "auto"
    """mlp, or the convolutions of Mnih et al. (2015); auto takes those for images of at least 36 x 36. custom is
    a network of your own, given in Python."""
    hidden: tuple[Annotated[int, Range(1, 100_000)], ...] = (256, 256)
    """Units of the hidden fully connected layers."""
    rescale: Switch = False
    """Bring observations with declared bounds to [-1, 1]."""
    layer_norm: Switch = False
    """Normalise the features of every hidden layer before its ReLU (Ba et al. 2016)."""
    dueling: Switch = False
    """A stream for the state's value and one for the actions' advantages (Wang et al. 2016)."""
    noisy: Switch = False
    """Noise that is learned, in the last two layers, explores in epsilon's place (Fortunato et al. 2018)."""
    noise: Positive = 0.5
    """Size of that noise at the start, times 1/sqrt(inputs of the layer)."""


@dataclass(frozen=True)
class ValueConfig:
    """What the network says of the return."""

    kind: Literal["scalar", "c51", "qr", "iqn"] = "scalar"
    """Its mean; its distribution over atoms (Bellemare et al. 2017); its quantiles (Dabney et al. 2018a); its quantiles
    at levels drawn anew each time (Dabney et al. 2018b)."""
    atoms: Annotated[int, Range(2, 10_000)] = 51
    """Atoms of c51."""
    v_min: float = -10.0
    """The lowest atom of c51: no return can be worth less."""
    v_max: float = 10.0
    """The highest atom of c51: no return can be worth more."""
    quantiles: Annotated[int, Range(1, 10_000)] = 32
    """Quantiles of qr; levels that iqn draws for each observation, in learning and in acting."""


@dataclass(frozen=True)
class BackupConfig:
    """How the next observation is valued."""

    double: Switch = False
    """The online network chooses the action that the target network values (van Hasselt et al. 2016)."""
    munchausen: Switch = False
    """Back up a soft policy, and reward the action taken by its log-probability (Vieillard et al. 2020)."""
    alpha: Share = 0.9
    """Munchausen: the part of the log-probability that is added to the reward."""
    temperature: Positive = 0.03
    """Munchausen: of the soft policy, in units of the return."""
    clip: Annotated[float, Range(float("-inf"), 0)] = -1.0
    """Munchausen: the least that temperature times log-probability may be."""


@dataclass(frozen=True)
class ReplayConfig:
    """The replay memory."""

    capacity: Count = 50_000
    """Rows that it holds; an episode takes one more than it has steps."""
    warmup_steps: Whole = 1_000
    """Environment steps with random actions before the first update."""
    n_step: Count = 1
    """Steps of reward before the bootstrap."""
    gamma: Share = 0.99
    """Discount per step."""
    prioritized: Switch = False
    """Sample a transition in proportion to its last error (Schaul et al. 2016)."""
    priority_exponent: Share = 0.6
    """prioritized: the power of the error; 0 is uniform."""
    beta: Share = 0.4
    """prioritized: how much of the bias is corrected by weights, at the start."""
    beta_steps: Whole = 100_000
    """prioritized: environment steps until all of it is."""


@dataclass(frozen=True)
class PqnConfig:
    """Rollouts, for the algorithm pqn, which has no replay memory."""

    rollout_steps: Count = 32
    """Steps of each environment between updates."""
    epochs: Count = 2
    """Passes over a rollout."""
    minibatches: Count = 32
    """Updates in a pass."""
    trace: Share = 0.65
    """lambda: 0 bootstraps after one step, 1 at the end of the rollout."""


@dataclass(frozen=True)
class LearnerConfig:
    """The updates."""

    batch_size: Count = 64
    """Transitions per update."""
    replay_ratio: Annotated[float, Range(0, 1024)] = 1.0
    """Updates per environment step; 0.25 is one update every 4 steps."""
    target_update_steps: Count = 500
    """Environment steps between copies of the network into the target network."""
    loss: Literal["squared", "huber"] = "huber"
    """Of a scalar value: (y - q)^2, or its Huber form with threshold 1. Distributions have losses of their own."""
    max_grad_norm: Annotated[float, Range(0)] = 10.0
    """The gradient is scaled down to this norm; 0 leaves it as it is."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    name: Literal["adam", "rmsprop", "radam"] = "adam"
    """Adam (Kingma & Ba 2015); RMSProp as in the original code, centred, with epsilon inside the root; RAdam (Liu et
    al. 2020)."""
    learning_rate: Positive = 5e-4
    """Step size at the start."""
    end_learning_rate: Annotated[float, Range(0)] | None = None
    """Step size after decay_steps, and from then on; by default it stays as it starts."""
    decay_steps: Whole = 0
    """Environment steps of its linear decay."""
    epsilon: Annotated[float, Range(0)] = 1e-8
    """The constant in the denominator; of rmsprop, in the root."""


@dataclass(frozen=True)
class ExplorationConfig:
    """epsilon, the probability of a random action."""

    kind: Literal["linear", "constant", "ladder"] = "linear"
    """From start to end; end all along; or a rung for each environment (Horgan et al. 2018), from start downwards."""
    start: Share = 1.0
    """linear: its value at the end of the warm-up. ladder: its value in the first environment."""
    end: Share = 0.05
    """linear: its value after decay_steps, and from then on. constant: its value. ladder: its value in the last one."""
    decay_steps: Whole = 10_000
    """linear: environment steps of the decay."""


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how it runs."""

    device: Annotated[Literal["cpu", "cuda"], tyro.conf.arg(aliases=["--device"])] = "cpu"
    """Where the networks are."""
    threads: Whole = 0
    """Threads of PyTorch; 0 decides by the network: 1 for mlp (more only wait for each other), all for images."""
    log_steps: Count = 1_000
    """Environment steps between lines of training metrics."""
    checkpoint_steps: Count = 10_000
    """Environment steps between checkpoints; there is always one at the end."""
    keep_checkpoints: Count = 2
    """Checkpoints that are kept, the newest."""


@dataclass(frozen=True)
class Config:
    """Everything that a run needs to start again."""

    preset: Annotated[str, tyro.conf.Suppress] = "dqn"
    """The preset that it started from."""
    seed: Whole = 0
    """Seed of everything that is random."""
    steps: Count = 100_000
    """Environment steps to stop at."""
    until_solved: bool = False
    """Stop when the mean return of the last window episodes reaches the threshold."""
    window: Count = 100
    """Episodes of the running mean."""
    reward_threshold: float | None = None
    """The mean return that counts as solved; by default the environment's own."""
    max_episodes: Count | None = None
    """Episodes to stop at."""
    algorithm: Literal["dqn", "pqn", "tabular"] = "dqn"
    """Deep Q-learning with replay (Mnih et al. 2015), without (Gallici et al. 2024), or a table (Watkins 1989)."""
    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    backup: BackupConfig = field(default_factory=BackupConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    pqn: PqnConfig = field(default_factory=PqnConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields with their dotted names: `("replay.capacity", 50_000)`."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value


def override(config: C, changes: Mapping[str, Any], prefix: str = "") -> C:
    """`config` with fields replaced: `{"seed": 1, "replay": {"capacity": 1000}}`, checked.

    Raises:
        UsageError: no such field (the nearest is named), or a value of the wrong type.
    """
    hints = get_type_hints(type(config), include_extras=True)
    new: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in hints:
            raise UsageError(f"unknown field {prefix}{name}{nearest(name, hints)}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{prefix}{name} is a group of fields, not {value!r}")
            new[name] = override(current, value, f"{prefix}{name}.")
        else:
            new[name] = _typed(prefix + name, hints[name], value)
    return dataclasses.replace(config, **new)  # type: ignore[type-var]


def check(config: Config) -> Config:
    """The configuration, where every value is one that it may be.

    Raises:
        UsageError: a field out of range; the message names the field, the value and what is allowed.
    """
    config = override(config, to_dict(config))
    try:
        kwargs = json.loads(config.env.kwargs)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"env.kwargs is {config.env.kwargs!r}, which is not JSON: {error}") from None
    if not isinstance(kwargs, dict):
        raise UsageError(f"env.kwargs is {config.env.kwargs!r}; it must be a JSON object")
    if taken := {"id", "render_mode", "disable_env_checker"} & kwargs.keys():
        raise UsageError(f"env.kwargs has {', '.join(sorted(taken))}, which qlearn gives itself")
    if impossible := next((why for wrong, why in _impossible(config) if wrong), None):
        raise UsageError(impossible)
    if config.optimizer.end_learning_rate is not None and not config.optimizer.decay_steps:
        raise UsageError("optimizer.end_learning_rate needs optimizer.decay_steps: over how many steps it is reached")
    if not config.network.hidden:
        raise UsageError("network.hidden is empty; it must have at least one layer")
    lanes, least = config.env.num_envs, config.replay.n_step + config.env.frame_stack + 3
    if config.replay.capacity < lanes * least:
        raise UsageError(
            f"replay.capacity is {config.replay.capacity}; with env.num_envs {lanes}, replay.n_step "
            f"{config.replay.n_step} and env.frame_stack {config.env.frame_stack} it must be at least {lanes * least}"
        )
    return config


def _impossible(config: Config) -> Iterator[tuple[bool, str]]:
    """The mixes that cannot be, each with its reason: the one place that refuses them."""
    network, value, backup, replay, explore = (
        config.network,
        config.value,
        config.backup,
        config.replay,
        config.exploration,
    )
    scalar, greedy = value.kind == "scalar", not (backup.double or backup.munchausen)
    yield (
        backup.double and backup.munchausen,
        "backup.double and backup.munchausen exclude each other: a soft policy has no best action to choose twice",
    )
    yield (
        value.kind == "c51" and value.v_min >= value.v_max,
        f"value.v_min is {value.v_min:g} and value.v_max {value.v_max:g}; the atoms must lie from low to high",
    )
    yield (
        network.torso == "custom" and (network.dueling or network.noisy or network.layer_norm),
        "network.dueling, noisy and layer_norm are parts of qlearn's own networks; build them into yours",
    )
    yield (
        network.torso == "custom" and value.kind == "iqn",
        "value.kind iqn needs a network that is asked for quantiles, and yours is not; use qr",
    )
    yield (
        explore.kind == "ladder" and not (explore.start and explore.end),
        "exploration.start and end must be more than 0 for a ladder, whose rungs have equal ratios",
    )
    if config.algorithm != "dqn":
        name = config.algorithm
        yield not scalar, f"value.kind is {value.kind}, but {name} learns means; use algorithm dqn"
        yield not greedy, f"backup.double and backup.munchausen need a target network, and {name} has none"
        yield replay.prioritized, f"replay.prioritized needs a replay memory, and {name} has none"
        yield replay.n_step > 1, f"replay.n_step is {replay.n_step}, but {name} has no replay memory to look ahead in"
    if config.algorithm == "tabular":
        yield config.env.frame_stack > 1, f"env.frame_stack is {config.env.frame_stack}, but a table has no frames"
    if config.algorithm == "pqn":
        size = config.pqn.rollout_steps * config.env.num_envs
        few = f"pqn.minibatches is {config.pqn.minibatches}, more than the {size} steps of a rollout"
        yield config.pqn.minibatches > size, f"{few} (pqn.rollout_steps times env.num_envs)"


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dictionaries without the fields that are None, as TOML wants them."""
    items = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    return {k: to_dict(v) if dataclasses.is_dataclass(v) else v for k, v in items if v is not None}


def _typed(name: str, hint: Any, value: Any) -> Any:
    """`value` as its annotation wants it: right type, in range."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        value = _typed(name, base, value)
        for note in notes:
            if isinstance(note, Range) and not note.allows(value):
                raise UsageError(f"{name} is {value}; it must be {note}")
        return value
    if get_origin(hint) in (Union, types.UnionType):
        return None if value is None else _typed(name, get_args(hint)[0], value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise UsageError(f"{name} is {value!r}; it must be a list of numbers")
        return tuple(_typed(name, get_args(hint)[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it must be a finite number")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{name} is {value!r}; it must be {'an' if hint is int else 'a'} {hint.__name__}")
    return value
