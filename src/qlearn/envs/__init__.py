"""Environments under one contract: a batch of copies, final observations in rows of their own, every episode seeded.

`step` returns observations, raw rewards, `terminated` (nothing is to be bootstrapped from what follows) and `done`
(the episode ended). Truncation is `done` without `terminated`; the loss of a life can be `terminated` without `done`.

On an environment whose episode has ended, `step` ignores the action, starts the next episode and returns its first
observation with reward 0 and no flag set. So nothing is ever reset silently, and the observation that comes with
`done` is the true final one.
"""

from qlearn.envs.atari import Game, Rules, find_game, known_games, rules_of
from qlearn.envs.gym import GymEnvs, close_quietly, episode_seed, import_environments, make_envs, make_gym
from qlearn.envs.spaces import Encoder, encoder

__all__ = [
    "Encoder",
    "Game",
    "GymEnvs",
    "Rules",
    "close_quietly",
    "encoder",
    "episode_seed",
    "find_game",
    "import_environments",
    "known_games",
    "make_envs",
    "make_gym",
    "rules_of",
]
