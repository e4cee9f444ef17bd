"""Environments under one contract: a batch of copies, final observations in rows of their own, every episode seeded.

`step` on an environment whose episode has ended ignores the action, starts the next episode and returns its first
observation with reward 0 and no flag set. So nothing is ever reset silently, and the observation returned together
with `terminated` or `truncated` is the true final one. Rewards are raw.
"""

from qlearn.envs.gym import GymEnvs, close_quietly, episode_seed, make_envs, make_gym
from qlearn.envs.spaces import Encoder, encoder

__all__ = ["Encoder", "GymEnvs", "close_quietly", "encoder", "episode_seed", "make_envs", "make_gym"]
