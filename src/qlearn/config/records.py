"""The records, with their defaults. A field's docstring is its help, and its annotation says what it may be."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro


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
    num_envs: Annotated[int, Range(1, 65_536)] = 1
    """Copies that are played at once."""
    frame_stack: Annotated[int, Range(1, 1_024)] = 1
    """Observations that the network sees at once."""
    obs_type: Literal["pixels", "ram"] = "pixels"
    """Of Atari games: the screen as 84 x 84 grey bytes, or the console's 128 bytes of RAM."""
    protocol: Literal["auto", "nature", "sticky", "v5"] = "auto"
    """How Atari games are played: as Mnih et al. (2015) did, with up to 30 no-ops at the start and each life lost a
    termination; with sticky actions (Machado et al. 2018, Dopamine); as Gymnasium's ALE/...-v5. auto goes by the id."""
    kwargs: str = "{}"
    """Arguments of the environment's constructor, as a JSON object; of an Atari game, changes to its protocol."""
    max_restarts: Whole = 10
    """How often, in a run, a copy that raises, hangs or returns NaN is made anew, its step forgotten."""
    isolated: Switch = False
    """Each copy in a process of its own: one that ends its process or hangs is made anew, too. A step takes 0.1 ms."""
    timeout_seconds: Positive = 60.0
    """With isolated: seconds that a copy has for an answer."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network."""

    torso: Literal["auto", "mlp", "nature", "nips", "der", "minatar", "custom"] = "auto"
    """mlp, the convolutions of Mnih et al. (2015), the two of data-efficient Rainbow (van Hasselt et al. 2019), or that
    of MinAtar (Young & Tian 2019); auto takes nature for images of at least 36 x 36, else mlp. custom is a network of
    your own, given in Python."""
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
    clip_rewards: Switch = False
    """Learn from rewards cut to [-1, 1]; what is reported are the environment's own."""
    compress: Switch = False
    """Keep observations compressed (LZ4), each by itself: those of Atari take a tenth of the memory and less."""
    prioritized: Switch = False
    """Sample a transition in proportion to its last error (Schaul et al. 2016)."""
    priority_exponent: Share | None = None
    """prioritized: the power of the error, 0 for uniform; by default 0.6 of a scalar's, 0.5 of a distribution's."""
    beta: Share = 0.4
    """prioritized: how much of the bias is corrected by weights, at the start."""
    beta_steps: Count | None = None
    """prioritized: environment steps until all of it is; by default those of the run."""


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
    """From start to end; end, as soon as the warm-up is over; or a rung for each environment (Horgan et al. 2018), from
    start downwards."""
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
    compile: Literal["auto", "eager", "compiled"] = "auto"
    """How an update runs: operation by operation, or compiled by Inductor into one call, which needs a C++ compiler and
    some seconds, once for every kind of run. auto compiles runs on the CPU of 5,000 updates and more."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What convolutional networks compute in: float32, or bfloat16, with weights that are kept in float32. auto takes
    bfloat16 on a CPU that has instructions for it."""
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
