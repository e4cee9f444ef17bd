"""MinAtar's games, where an episode is a function of its seed and its actions."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from qlearn.envs import make_envs
from qlearn.envs.gym import make_gym
from qlearn.envs.minatar import GAMES, MinAtar, register
from qlearn.types import Array

CHANNELS_AND_ACTIONS = [
    ("Asterix", 4, 5),
    ("Breakout", 4, 3),
    ("Freeway", 7, 3),
    ("Seaquest", 10, 6),
    ("SpaceInvaders", 6, 4),
]


@pytest.fixture(autouse=True)
def registered() -> None:
    if "MinAtar/Breakout-v1" not in gym.registry:
        register()


def play(env: MinAtar, seed: int, length: int = 300) -> list[tuple[bytes, float, bool]]:
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    seen = [(obs.tobytes(), 0.0, False)]
    for _ in range(length):
        obs, reward, terminated, _, _ = env.step(int(rng.integers(len(env._actions))))
        seen.append((obs.tobytes(), float(reward), terminated))
        if terminated:
            break
    return seen


@pytest.mark.parametrize("game", GAMES)
def test_an_episode_is_a_function_of_its_seed_and_actions(game: str) -> None:
    """In the package's own environments up to one in ten is not, for the sticky action of the episode before."""
    old = MinAtar(game)
    episodes = [play(old, seed) for seed in range(60)]
    for seed, episode in enumerate(episodes):
        assert play(MinAtar(game), seed) == episode
    assert len({tuple(episode) for episode in episodes}) > 50


def paddle(obs: Array) -> int:
    """The column of Breakout's paddle."""
    return int(obs[0, 9].argmax())


def test_actions_are_sticky_with_their_probability_and_not_across_episodes() -> None:
    env = MinAtar("breakout", sticky=0.25)
    kept, first = 0, 0
    for seed in range(400):
        obs, _ = env.reset(seed=seed)
        assert paddle(obs) == 4
        obs, *_ = env.step(1)  # left; the action before it is none, so where it sticks the paddle stays
        kept += paddle(obs) == 4
        first += paddle(obs) == 5
        env.step(2)  # the last action of this episode is right
    assert first == 0
    assert 0.18 < kept / 400 < 0.32


@pytest.mark.parametrize(("name", "channels", "actions"), CHANNELS_AND_ACTIONS)
def test_the_games_are_gymnasium_environments(name: str, channels: int, actions: int) -> None:
    for version, count in ((0, 6), (1, actions)):
        env = make_gym(f"MinAtar/{name}-v{version}", render_mode="rgb_array")
        assert env.action_space == gym.spaces.Discrete(count)
        assert env.observation_space == gym.spaces.Box(0, 255, (channels, 10, 10), np.uint8)
        obs, _ = env.reset(seed=3)
        assert set(np.unique(obs)) == {0, 255}
    check_env(env.unwrapped)


def test_difficulty_starts_anew_with_each_episode() -> None:
    env = MinAtar("asterix", sticky=0.0)
    for _ in range(3):
        env.reset(seed=5)
        assert env._game.env.difficulty_ramp() == 0
        while env._game.env.difficulty_ramp() < 2 and not env.step(0)[2]:
            pass
    still = MinAtar("space_invaders", ramping=False)
    assert still._game.env.ramping is False


def test_the_games_are_stepped_by_the_library() -> None:
    envs = make_envs("MinAtar/SpaceInvaders-v1", 3, seed=1)
    assert envs.space.dtype == np.uint8
    assert envs.space.shape == (6, 10, 10)
    envs.reset()
    rng, total = np.random.default_rng(0), 0.0
    for _ in range(300):
        _, reward, _, _ = envs.step(rng.integers(4, size=3))
        total += reward.sum()
    assert total > 5  # aliens are hit even at random
    envs.close()


def test_frames_are_pictures() -> None:
    env = MinAtar("breakout", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(0)
    env.step(0)  # out of the bricks
    frame = env.render()
    assert (frame.shape, frame.dtype) == ((200, 200, 3), np.uint8)
    cells = frame[::20, ::20]
    assert len({tuple(cell) for cell in cells.reshape(-1, 3).tolist()}) == 5  # nothing, paddle, ball, trail, bricks
    assert MinAtar("breakout").render() is None


def test_registering_imports_no_game() -> None:
    """The package, pandas and all, is loaded when a game is made, not before."""
    code = "import sys; from qlearn.envs.minatar import register; register(); assert 'minatar' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
