"""The set-ups of the doctor's benchmark: five that are broken, their mended twins, and healthy presets."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from qlearn.types import Array


class Catch(gym.Env[Array, Any]):
    """A pixel falls through ten rows of eight, and a paddle of one pixel is to be under it (bsuite's Catch).

    Args:
        unscaled: images of floats from 0 to 255, which nobody divides, instead of bytes.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    HEIGHT, WIDTH = 10, 8

    def __init__(self, *, unscaled: bool = False, render_mode: str | None = None) -> None:
        self.render_mode, self._dtype = render_mode, np.float32 if unscaled else np.uint8
        self.action_space = spaces.Discrete(3)
        self.observation_space = spaces.Box(0, 255, (self.HEIGHT, self.WIDTH), self._dtype)
        self._ball, self._paddle = [0, 0], 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._ball, self._paddle = [0, int(self.np_random.integers(self.WIDTH))], self.WIDTH // 2
        return self._image(), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self._paddle = int(np.clip(self._paddle + action - 1, 0, self.WIDTH - 1))
        self._ball[0] += 1
        down = self._ball[0] == self.HEIGHT - 1
        caught = self._ball[1] == self._paddle
        return self._image(), (1.0 if caught else -1.0) if down else 0.0, down, False, {}

    def _image(self) -> Array:
        image: Array = np.zeros((self.HEIGHT, self.WIDTH), self._dtype)
        image[self._ball[0], self._ball[1]] = image[-1, self._paddle] = 255
        return image


class Wrong(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole with a mistake: `unpaid`, all rewards 0; `limit`, that its clock says terminated, not truncated."""

    def __init__(self, *, unpaid: bool = False, limit: int = 0, render_mode: str | None = None) -> None:
        super().__init__(gym.make("CartPole-v1", render_mode=render_mode).unwrapped)
        self._unpaid, self._limit, self._steps = unpaid, limit, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return super().reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        self._steps += 1
        out = bool(self._limit) and self._steps >= self._limit
        return obs, 0.0 if self._unpaid else reward, terminated or out, truncated, info


def register() -> None:
    """Give them their ids."""
    catch, wrong = f"{__name__}:Catch", f"{__name__}:Wrong"
    gym.register("Catch-v0", catch)
    gym.register("UnscaledCatch-v0", catch, kwargs={"unscaled": True})
    gym.register("UnpaidCartPole-v0", wrong, max_episode_steps=500, kwargs={"unpaid": True})
    gym.register("ShortCartPole-v0", wrong, max_episode_steps=100)
    gym.register("ClockedCartPole-v0", wrong, kwargs={"limit": 100})


@dataclass(frozen=True)
class Setup:
    """A run to be made, and the rule whose verdict it deserves, if any."""

    name: str
    env: str
    preset: str = "dqn"
    changes: dict[str, Any] = field(default_factory=dict)
    deserves: str = ""


LINES = {"log_steps": 250}  # short runs with as many lines of metrics as rules ask for
CARTPOLE = {"steps": 10_000, "until_solved": False, "exploration": {"decay_steps": 5_000}, "runtime": LINES}
CATCH = {"steps": 8_000, "exploration": {"decay_steps": 4_000}, "runtime": LINES}

BROKEN = (
    Setup("unscaled pixels", "UnscaledCatch-v0", "dqn", CATCH, "scale"),
    Setup("support too small", "CartPole-v1", "c51", {**CARTPOLE, "value": {"v_min": 0.0, "v_max": 10.0}}, "support"),
    Setup("reward always zero", "UnpaidCartPole-v0", "dqn", CARTPOLE, "reward"),
    Setup("truncation as termination", "ClockedCartPole-v0", "dqn", CARTPOLE, "truncation"),
    Setup("learning rate x 100", "CartPole-v1", "dqn", {**CARTPOLE, "optimizer": {"learning_rate": 0.1}}, "rate"),
)
MENDED = (
    Setup("pixels as bytes", "Catch-v0", "dqn", CATCH),
    Setup("support that reaches", "CartPole-v1", "c51", CARTPOLE),
    Setup("reward and rate as they are", "CartPole-v1", "dqn", CARTPOLE),
    Setup("truncation as truncation", "ShortCartPole-v0", "dqn", CARTPOLE),
)
NOISY = {"steps": 10_000, "until_solved": False, "runtime": LINES}  # epsilon is 0
ON_CARTPOLE = dict.fromkeys(("intro", "double", "dueling", "per", "nstep", "qr", "iqn", "m-dqn", "m-iqn"), CARTPOLE)
HEALTHY = (
    *(
        Setup(f"CartPole {preset}", "CartPole-v1", preset, changes)
        for preset, changes in (ON_CARTPOLE | {"noisy": NOISY, "rainbow": NOISY}).items()
    ),
    Setup("CartPole pqn", "CartPole-v1", "pqn", {"steps": 40_000, "until_solved": False, "runtime": LINES}),
    Setup("Acrobot dqn", "Acrobot-v1", "dqn", {"steps": 12_000, "runtime": LINES}),
    Setup("MountainCar dqn", "MountainCar-v0", "dqn", {"steps": 25_000, "runtime": LINES}),
    Setup("LunarLander dqn", "LunarLander-v3", "dqn", {"steps": 15_000, "runtime": LINES}),
    Setup("FrozenLake tabular", "FrozenLake-v1", "tabular"),
    Setup("Taxi tabular", "Taxi-v4", "tabular"),
    Setup(
        "MinAtar Breakout dqn",
        "MinAtar/Breakout-v1",
        "dqn",
        {"steps": 15_000, "exploration": {"decay_steps": 8_000}, "runtime": LINES},
    ),
    Setup(
        "Pong atari-quick",
        "ALE/Pong-v5",
        "atari-quick",
        {"steps": 6_000, "exploration": {"decay_steps": 1_500}, "runtime": {"log_steps": 100}},
    ),
)
