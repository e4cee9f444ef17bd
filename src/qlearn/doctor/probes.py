"""Five environments so small that the right values are known: the probes of Andy Jones ("Debugging RL", 2021).

Each needs one ability more than those before it, so the first that is not learned says where to look.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from qlearn import presets
from qlearn.build import Parts, build
from qlearn.config import Config, check, override
from qlearn.doctor.report import Verdict, judge
from qlearn.errors import NotFiniteError
from qlearn.networks import evaluating
from qlearn.types import Array

GAMMA = 0.9
NEAR = 0.2  # how far a value may be off, of rewards of size 1


@dataclass(frozen=True)
class Probe:
    """What is to be learned: the values of the actions `[A]` in each of its states, and where to look if they are not.

    An episode starts in a state of `starts` and takes one step, or goes from each state to the next where `chain`.
    """

    name: str
    what: str
    values: tuple[tuple[float, ...], ...]
    look: str
    chain: bool = False


PROBES = (
    Probe("constant", "a constant reward", ((1.0,),), "the loss or the optimiser"),
    Probe(
        "observation",
        "a reward that depends on the observation",
        ((-1.0,), (1.0,)),
        "the way of observations through the replay memory and the network",
    ),
    Probe(
        "delayed",
        "a reward two steps away",
        ((GAMMA,), (1.0,)),
        "the backup: discount, target network, n-step returns",
        chain=True,
    ),
    Probe(
        "action",
        "a reward that depends on the action",
        ((-1.0, 1.0),),
        "the choice of actions: exploration, and that the value of the action taken is the one that moves",
    ),
    Probe(
        "both",
        "a reward that depends on action and observation",
        ((1.0, -1.0), (-1.0, 1.0)),
        "whether observations and actions of a transition belong together",
    ),
)


class ProbeEnv(gym.Env[Any, Any]):
    """A probe as an environment; its observation is the state, as -1 or 1, 0 where there is one only, or its number."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, name: str, *, integers: bool = False, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._probe = next(probe for probe in PROBES if probe.name == name)
        self._integers, self._states, self._state = integers, len(self._probe.values), 0
        self.action_space = spaces.Discrete(len(self._probe.values[0]))
        self.observation_space = spaces.Discrete(self._states) if integers else spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 (there are none)
    ) -> tuple[Any, dict[str, Any]]:
        """The first state of a chain, else any."""
        super().reset(seed=seed)
        self._state = 0 if self._probe.chain else int(self.np_random.integers(self._states))
        return observation(self._state, self._states, self._integers), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The reward is the value, but on the way through a chain, where it comes at the end."""
        last = not self._probe.chain or self._state == self._states - 1
        reward = self._probe.values[self._state][action] if last else 0.0
        self._state = min(self._state + 1, self._states - 1)
        return observation(self._state, self._states, self._integers), reward, last, False, {}


def observation(state: int, states: int, integers: bool) -> Any:
    """What is seen of a state."""
    if integers:
        return state
    return np.array([0.0 if states == 1 else 2.0 * state - 1.0], np.float32)


def register() -> None:
    """Give the probes their ids, `qlearn-probe/constant-v0`."""
    for probe in PROBES:
        env_id = f"qlearn-probe/{probe.name}-v0"
        if env_id not in gym.registry:
            gym.register(env_id, f"{__name__}:ProbeEnv", kwargs={"name": probe.name})


def small(preset: str, probe: Probe, seed: int, changes: Mapping[str, Any]) -> Config:
    """A preset's algorithm at the size of a probe."""
    config = presets.get(preset)
    table = config.algorithm == "tabular"
    settings: dict[str, Any] = {
        "seed": seed,
        "steps": 4_000 if config.algorithm == "pqn" else 1_000,
        "until_solved": False,
        "max_episodes": None,
        "env": {
            "id": f"qlearn-probe/{probe.name}-v0",
            "num_envs": 8 if config.algorithm == "pqn" else 1,
            "kwargs": '{"integers": true}' if table else "{}",
        },
        "network": {"hidden": (32, 32)},
        "value": {"v_min": -2.0, "v_max": 2.0, "quantiles": 8},
        "replay": {"capacity": 2_000, "warmup_steps": 100, "gamma": GAMMA},
        "pqn": {"rollout_steps": 8, "epochs": 2, "minibatches": 2},
        "learner": {"batch_size": 32, "replay_ratio": 0.5, "target_update_steps": 50},
        "optimizer": {"learning_rate": 0.1 if table else 3e-3, "end_learning_rate": None, "decay_steps": 0},
        "exploration": {"decay_steps": 500},
        "runtime": {"compile": "eager"},
    }
    return check(override(override(config, settings), changes))


def learned(probe: Probe, config: Config) -> Verdict | None:
    """Train on a probe, and compare the values with the right ones."""
    register()
    parts = build(config)
    q: Array = np.full((len(probe.values), len(probe.values[0])), np.nan)
    try:
        with contextlib.suppress(NotFiniteError):
            for _ in parts.train():
                pass
            q = values(parts, len(probe.values))
    finally:
        parts.envs.close()
    right = np.array(probe.values)
    off = float(np.abs(q.max(-1) - right.max(-1)).max())
    wrong = int((q.argmax(-1) != right.argmax(-1)).sum())
    if off <= NEAR and not wrong:
        return None
    found, expected = (" and ".join(f"{v:.2f}" for v in x.max(-1)) for x in (q, right))
    return Verdict(
        f"probe-{probe.name}",
        f"{config.preset} does not learn {probe.what}: it values what is worth {expected} at {found}, off by {off:.2f} "
        f"(threshold {NEAR:g})" + (f", and chooses the wrong action in {wrong} of {len(right)} states" * bool(wrong)),
        None if math.isnan(off) else off,
        NEAR,
        f"the environment is not to blame: look at {probe.look}; qlearn's own tests say whether it is this machine",
    )


def values(parts: Parts, states: int) -> Array:
    """Q of all states, `[S, A]`."""
    integers = bool(parts.envs.space.categories)
    obs = torch.from_numpy(np.stack([observation(state, states, integers) for state in range(states)]))
    learner = parts.learner
    if parts.config.env.frame_stack > 1:
        obs = torch.stack([torch.zeros_like(obs)] * (parts.config.env.frame_stack - 1) + [obs], 1)
    with evaluating(learner.online), torch.no_grad():
        q: Array = learner.value.mean(learner.online(obs)).numpy()
    return q


def examine_learning(
    preset: str, seed: int, changes: Mapping[str, Any] | None = None
) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """The verdicts on a preset's algorithm in the five probes, with changes to its configuration."""
    rules = [
        (
            f"{preset} learns {probe.what} on this machine",
            lambda seed, probe=probe: learned(probe, small(preset, probe, seed, changes or {})),
        )
        for probe in PROBES
    ]
    return judge(seed, rules)
