"""Environments whose every step is known, to check the others against."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from qlearn.types import Array, Space


class Scripted:
    """A batch of environments (`qlearn.types.Envs`) that plays given episodes.

    An episode is (length, how it ends). Its observations are [environment, episode, step], its reward at step t is
    100 * episode + t + 1. `life` gives steps at which `terminated` is set though the episode goes on.
    """

    mask: Array | None = None
    lost: Array | None = None

    def __init__(self, scripts: list[list[tuple[int, str]]], life: tuple[int, ...] = ()) -> None:
        self.scripts, self.life = scripts, life
        self.num_envs = len(scripts)
        self.space = Space((3,), np.dtype(np.float32), 7)
        self.at = [[0, 0] for _ in scripts]  # episode, step
        self.ended = [False] * len(scripts)
        self.log: list[tuple[int, int, int, int]] = []  # environment, episode, step, action of each true step

    def reset(self) -> Array:
        return self._obs()

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        reward = np.zeros(self.num_envs, np.float32)
        terminated, done = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for env, at in enumerate(self.at):
            if self.ended[env]:
                self.at[env], self.ended[env] = [at[0] + 1, 0], False
                continue
            self.log.append((env, at[0], at[1], int(action[env])))
            length, end = self.script(env, at[0])
            at[1] += 1
            reward[env] = 100 * at[0] + at[1]
            if at[1] == length:
                self.ended[env] = done[env] = True
                terminated[env] = end == "terminated"
            elif at[1] in self.life:
                terminated[env] = True
        return self._obs(), reward, terminated, done

    def abandon(self, env: int) -> None:
        self.ended[env] = True

    def close(self) -> None:
        pass

    def script(self, env: int, episode: int) -> tuple[int, str]:
        return self.scripts[env][episode % len(self.scripts[env])]

    def _obs(self) -> Array:
        return np.asarray([[env, *at] for env, at in enumerate(self.at)], np.float32)


class Corridor(gym.Env[Any, Any]):
    """Walk right to the end, five steps; +1 there. Options make it break its contract."""

    observation_space = spaces.Box(0.0, 5.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, fault: str = "", at: int = 40, render_mode: str | None = None) -> None:
        self.fault, self.fault_at, self.total, self.place = fault, at, 0, 0
        self.render_mode = render_mode
        if fault == "continuous":
            self.action_space = spaces.Box(-1.0, 1.0, (1,))  # type: ignore[assignment]
        if fault == "text":
            self.observation_space = spaces.Text(5)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.total += 1
        self.place = max(0, self.place + (1 if action == 1 else -1))
        obs, reward = np.asarray([self.place], np.float32), float(self.place == 5)
        if self.total >= self.fault_at:
            if self.fault == "raise":
                raise RuntimeError("the motor is stuck")
            if self.fault == "nan":
                obs[0] = np.nan
            if self.fault == "nan reward":
                reward = float("nan")
            if self.fault == "shape":
                obs = np.zeros(2, np.float32)
        return obs, reward, self.place == 5, False, {}

    def render(self) -> Any:
        frame = np.full((60, 121, 3), 230, np.uint8)
        frame[20:40, 20 * self.place : 20 * self.place + 20] = (200, 60, 60)
        return frame


gym.register("Corridor-v0", f"{__name__}:Corridor", max_episode_steps=30)


class Doors(gym.Env[Any, Any]):
    """Five doors, of which a mask allows two at each step, by turns; a door that is not allowed is an error.

    The reward is the number of the door. Options make the mask break its contract.
    """

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(5)

    def __init__(self, fault: str = "", render_mode: str | None = None) -> None:
        self.fault, self.place, self.render_mode = fault, 0, render_mode

    def mask(self) -> Any:
        mask = np.zeros(5, np.int8)
        mask[[self.place, (self.place + 2) % 5]] = 1
        if self.place == 3 and self.fault == "shape":
            return mask[:4]
        if self.place == 3 and self.fault == "nothing":
            return mask * 0
        return mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(3))
        return self.place, {} if self.fault == "late" else {"action_mask": self.mask()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.fault and not self.mask()[action]:
            raise ValueError(f"door {action} is not allowed at {self.place}")
        self.place += 1
        over = self.place == 5
        info = {"action_mask": np.zeros(5, np.int8) if over else self.mask()}
        if self.fault == "gone":
            info = {}
        return self.place % 5, float(action), over, False, info


gym.register("Doors-v0", f"{__name__}:Doors", max_episode_steps=30)
