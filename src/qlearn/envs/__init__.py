"""Environments under one contract: a batch of copies, final observations in rows of their own, every episode seeded.

`step` returns observations, raw rewards, `terminated` (nothing is to be bootstrapped from what follows) and `done`
(the episode ended). Truncation is `done` without `terminated`; the loss of a life can be `terminated` without `done`.

On an environment whose episode has ended, `step` ignores the action, starts the next episode and returns its first
observation with reward 0 and no flag set. So nothing is ever reset silently, and the observation that comes with
`done` is the true final one.

Where an environment raises, hangs or breaks its contract, and may be made anew, its step came to nothing: `lost` says
whose. What `step` returns for it is the first observation of its next episode, with reward 0 and no flag set.
"""

from qlearn.envs.atari import Game, Rules, find_game, known_games, rules_of
from qlearn.envs.gym import close_quietly, import_environments, make_gym
from qlearn.envs.lockstep import GymEnvs, episode_seed, make_envs
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
