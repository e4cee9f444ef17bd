"""MinAtar (Young & Tian 2019): five Atari games on ten by ten cells, as Gymnasium environments.

The games come from the package `minatar`, which is under the GPL and not a part of qlearn: `pip install
'qlearn[minatar]'` is your choice. It is imported when a game is made. Its own Gymnasium environments carry the last
action, which a sticky action repeats, from one episode into the next; here an episode is a function of its seed and
its actions alone.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from qlearn.types import Array

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
SCALE = 20  # pixels of a cell's side, where it is drawn


class MinAtar(gym.Env[Any, Any]):
    """One game; observations are images `[channels, 10, 10]` of bytes, 255 where the channel's thing is, else 0.

    Args:
        game: one of `GAMES`.
        minimal: only the actions that do something in this game, instead of all six (no-op, left, up, right, down,
            fire).
        sticky: probability that the action before is repeated instead of the one chosen.
        ramping: the games become harder while they last; Breakout and Freeway never do.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        game: str,
        *,
        minimal: bool = True,
        sticky: float = 0.1,
        ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        from minatar.environment import Environment

        self.render_mode = render_mode
        self._game = Environment(game, sticky_action_prob=sticky, difficulty_ramping=ramping)
        self._actions = self._game.minimal_action_set() if minimal else list(range(self._game.num_actions()))
        height, width, channels = self._game.state_shape()
        self.action_space = spaces.Discrete(len(self._actions))
        self.observation_space = spaces.Box(0, 255, (channels, height, width), np.uint8)

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 (there are none)
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; without a seed its random numbers go on where the last one's ended."""
        super().reset(seed=seed)
        if seed is not None:
            self._game.seed(seed)  # the coins of sticky actions and the game's own, from one generator
        self._game.last_action = 0
        self._game.reset()
        return self._observation(), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One frame. No game is truncated; Freeway terminates after 2,500 frames."""
        reward, terminal = self._game.act(self._actions[action])
        return self._observation(), float(reward), bool(terminal), False, {}

    def render(self) -> Any:
        """The cells in the colour of the last channel that is on there, `[H, W, 3]` bytes."""
        if self.render_mode is None:
            return None
        from matplotlib import colormaps

        state = self._game.state()
        top = (state * np.arange(1, state.shape[-1] + 1)).max(-1)
        palette = colormaps["cubehelix"](np.linspace(0, 0.9, state.shape[-1] + 1))[:, :3]
        pixels = (255 * palette).astype(np.uint8)[top]
        return pixels.repeat(SCALE, 0).repeat(SCALE, 1)

    def _observation(self) -> Array:
        image: Array = 255 * np.moveaxis(self._game.state(), -1, 0).astype(np.uint8)
        return image


def register() -> None:
    """Give the games their ids: `MinAtar/Breakout-v1`, and -v0 with all six actions. The package is not imported."""
    for game in GAMES:
        name = game.title().replace("_", "")
        for version in (0, 1):
            kwargs = {"game": game, "minimal": version == 1}
            env_id = f"MinAtar/{name}-v{version}"
            if env_id not in gym.registry:
                gym.register(env_id, f"{__name__}:MinAtar", kwargs=kwargs)
