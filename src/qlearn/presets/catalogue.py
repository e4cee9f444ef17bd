"""The presets' settings, as changes to the defaults of `qlearn.config`.

Entries by environment: `ALE` holds the published values for Atari, in agent steps (four frames); those of classic
control are ours, found by trials.
"""

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Any]
Tuned = Mapping[str, Changes]

# Three-step returns and a slow target keep the values from running away: docs/benchmarks.md shows CartPole without
# them. The falling learning rate is for a last network that is as good as any before it; it stays at its end, so a
# longer run still learns.
DQN: Changes = {
    "steps": 100_000,
    "network": {"hidden": (128, 128)},
    "replay": {"capacity": 100_000, "warmup_steps": 1_000, "n_step": 3, "gamma": 0.99},
    "learner": {
        "batch_size": 128,
        "replay_ratio": 0.5,
        "target_update_steps": 500,
        "loss": "huber",
        "max_grad_norm": 10.0,
    },
    "optimizer": {"learning_rate": 1e-3, "end_learning_rate": 5e-5, "decay_steps": 100_000},
    "exploration": {"start": 1.0, "end": 0.05, "decay_steps": 10_000},
}

WIDE: Changes = {
    "network": {"hidden": (256, 256)},
    "replay": {"n_step": 1},
    "learner": {"replay_ratio": 1.0, "target_update_steps": 250},
    "optimizer": {"learning_rate": 6e-4},
    "exploration": {"end": 0.1},
}

# What the published agents for Atari have in common; dqn's own values are those of Dopamine (JAX).
ALE: Changes = {
    "steps": 50_000_000,
    "env": {"frame_stack": 4, "protocol": "sticky"},
    "network": {"torso": "auto", "hidden": (512,)},
    "replay": {"capacity": 1_000_000, "warmup_steps": 20_000, "n_step": 1, "gamma": 0.99, "clip_rewards": True},
    "learner": {
        "batch_size": 32,
        "replay_ratio": 0.25,
        "target_update_steps": 8_000,
        "loss": "squared",
        "max_grad_norm": 0.0,
    },
    "optimizer": {"learning_rate": 6.25e-5, "end_learning_rate": None, "decay_steps": 0, "epsilon": 1.5e-4},
    "exploration": {"start": 1.0, "end": 0.01, "decay_steps": 250_000},
    "runtime": {"log_steps": 10_000, "checkpoint_steps": 250_000},
}

# The original DQN of Young & Tian (2019) with Adam in the place of its RMSProp, whose epsilon is outside the root.
MINATAR: Changes = {
    "steps": 5_000_000,
    "value": {"v_min": -100.0, "v_max": 100.0},
    "network": {"torso": "minatar", "hidden": (128,)},
    "replay": {"capacity": 100_000, "warmup_steps": 5_000, "n_step": 1},
    "learner": {
        "batch_size": 32,
        "replay_ratio": 1.0,
        "target_update_steps": 1_000,
        "loss": "huber",
        "max_grad_norm": 0.0,
    },
    "optimizer": {"learning_rate": 2.5e-4, "end_learning_rate": None, "decay_steps": 0, "epsilon": 0.01 / 32},
    "exploration": {"start": 1.0, "end": 0.1, "decay_steps": 100_000},
}

# v_min and v_max are c51's, whose atoms must reach from the worst return to the best: with gamma 0.99 a reward of 1 in
# every step is worth 100.
DQN_TUNED: Tuned = {
    "ALE": ALE,
    "MinAtar": MINATAR,
    "CartPole": {
        "until_solved": True,
        "value": {"v_min": 0.0, "v_max": 100.0},
        "optimizer": {"decay_steps": 50_000},
        "exploration": {"decay_steps": 8_000},
    },
    # Both want more updates of a wider network on one-step returns, and more exploration to the end; the values are
    # near rl-baselines3-zoo's, with a learning rate that falls.
    "Acrobot": {**WIDE, "value": {"v_min": -100.0, "v_max": 0.0}},
    "LunarLander": {
        **WIDE,
        "value": {"v_min": -300.0, "v_max": 300.0},
        "replay": {"n_step": 1, "capacity": 50_000},
    },
    # Random actions never reach the flag, greedy ones on hopeful first values do: so explore greedily early, and let
    # what was tried in vain fall in value fast, over ten steps at a time. The velocity's range of 0.07 is invisible
    # beside the position's until both are brought to [-1, 1].
    "MountainCar": {
        "network": {"rescale": True},
        "value": {"v_min": -100.0, "v_max": 0.0},
        "replay": {"n_step": 10},
        "optimizer": {"learning_rate": 4e-3, "end_learning_rate": 1e-4},
        "exploration": {"decay_steps": 2_000},
    },
}

# The original code's values (google-deepmind/dqn), by its units: periods in agent steps, and RMSProp's constant, 0.01
# for gradients that are summed over 32 transitions, divided by 32^2 for their mean.
NATURE: Changes = {
    "env": {"protocol": "nature"},
    "replay": {"capacity": 1_000_000, "warmup_steps": 50_000, "n_step": 1, "gamma": 0.99},
    "learner": {"batch_size": 32, "replay_ratio": 0.25, "target_update_steps": 10_000, "loss": "huber"},
    "optimizer": {"name": "rmsprop", "learning_rate": 2.5e-4, "epsilon": 0.01 / 32**2},
    "exploration": {"start": 1.0, "end": 0.1, "decay_steps": 1_000_000},
}

# One game soon, on two cores: the small network of Mnih et al. (2013), for a CPU's time goes into convolutions;
# quantiles, three steps and priorities, which of Dopamine's agents learn Pong in the fewest steps; twice as many
# updates for each step, and a higher rate.
ATARI_QUICK: Changes = {
    "steps": 500_000,
    "env": {"protocol": "nature", "num_envs": 4, "kwargs": '{"epsilon": 0.001}'},
    "network": {"torso": "nips", "hidden": (256,)},
    "value": {"kind": "qr", "quantiles": 32},
    "replay": {"capacity": 200_000, "warmup_steps": 4_000, "n_step": 3, "prioritized": True},
    "learner": {"replay_ratio": 0.5, "target_update_steps": 2_000, "max_grad_norm": 10.0},
    "optimizer": {"learning_rate": 2e-4, "epsilon": 3e-4},
    "exploration": {"end": 0.01, "decay_steps": 40_000},
    "runtime": {"checkpoint_steps": 100_000},
}

# Parallel Q-learning without replay. MinAtar's and Atari's settings are purejaxql's; it scales CartPole's reward by a
# tenth, where ours has the Huber loss. A long trace is for rewards that are alike all along; LunarLander's are not.
PQN: Changes = {
    "algorithm": "pqn",
    "steps": 100_000,
    "env": {"num_envs": 16},
    "network": {"hidden": (256, 256), "layer_norm": True},
    "pqn": {"rollout_steps": 32, "epochs": 4, "minibatches": 8, "trace": 0.65},
    "learner": {"loss": "huber", "max_grad_norm": 10.0},
    "optimizer": {"name": "radam", "learning_rate": 1e-3, "end_learning_rate": 0.0, "decay_steps": 100_000},
    "exploration": {"start": 1.0, "end": 0.05, "decay_steps": 50_000},
}
# Its loss is half of ours, so the limit to the gradient is twice its 10. Not taken over: he_normal weights, MinAtar's
# second division by 255, and convolutions normalised over channels alone (ours are over all that a layer has).
PUREJAXQL: Changes = {
    "env": {"num_envs": 128},
    "pqn": {"epochs": 2, "minibatches": 32},
    "learner": {"loss": "squared", "max_grad_norm": 20.0},
}
PQN_TUNED: Tuned = {
    "CartPole": {"until_solved": True, "pqn": {"trace": 0.95}},
    "Acrobot": {"pqn": {"trace": 0.95}},
    "LunarLander": {"steps": 300_000, "optimizer": {"decay_steps": 300_000}, "exploration": {"decay_steps": 150_000}},
    "MinAtar": {
        **PUREJAXQL,
        "steps": 10_000_000,
        "network": {"torso": "minatar", "hidden": (128,)},
        "optimizer": {"learning_rate": 5e-4, "decay_steps": 10_000_000},
        "exploration": {"decay_steps": 1_000_000},
    },
    "ALE": {
        **PUREJAXQL,
        "steps": 50_000_000,
        "env": {"num_envs": 128, "frame_stack": 4, "protocol": "nature", "kwargs": '{"epsilon": 0.0}'},
        "network": {"hidden": (512,)},
        "replay": {"clip_rewards": True},
        "runtime": {"log_steps": 10_000, "checkpoint_steps": 250_000},
        "optimizer": {"learning_rate": 2.5e-4, "end_learning_rate": None, "decay_steps": 0},
        "exploration": {"end": 0.001, "decay_steps": 5_000_000},
    },
}

# Alpha falls to little, for the noise of an environment stays in the table in proportion to it; epsilon falls slowly,
# for nothing but chance finds a goal. Random actions reach that of FrozenLake8x8 once in 500 episodes.
TABULAR: Changes = {
    "algorithm": "tabular",
    "steps": 100_000,
    "env": {"num_envs": 8},
    "replay": {"gamma": 0.99},
    "optimizer": {"learning_rate": 0.5, "end_learning_rate": 0.01, "decay_steps": 100_000},
    "exploration": {"start": 1.0, "end": 0.01, "decay_steps": 80_000},
}
TABULAR_TUNED: Tuned = {
    "FrozenLake8x8": {
        "steps": 600_000,
        "optimizer": {"end_learning_rate": 0.005, "decay_steps": 600_000},
        "exploration": {"decay_steps": 500_000},
    }
}

# The tutorial's own values, all of them. It draws a minibatch without replacement and stores the end of the time
# limit as a termination; here minibatches are drawn with replacement and truncation bootstraps.
INTRO: Changes = {
    "steps": 1_000_000,  # 5,000 episodes of CartPole-v0 at their longest
    "until_solved": True,
    "max_episodes": 5_000,
    "network": {"torso": "mlp", "hidden": (16, 16, 16)},
    "replay": {"capacity": 10_000, "warmup_steps": 1_000, "gamma": 0.99},
    "learner": {
        "batch_size": 32,
        "replay_ratio": 1.0,
        "target_update_steps": 2_500,
        "loss": "squared",
        "max_grad_norm": 0.0,
    },
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "exploration": {"start": 0.05, "end": 0.05, "decay_steps": 0},
}

# The family: each is `dqn` and a few lines.

# DQN Zoo's tuned Double DQN, on which its prioritised and the dueling agent build. Not taken over: its shared bias of
# the last layer, the factor 1/sqrt(2) of the dueling network's gradient, and that it clips errors after weighting them.
ALE_DOUBLE: Changes = {
    "env": {"protocol": "nature", "kwargs": '{"epsilon": 0.01}'},
    "replay": {"warmup_steps": 50_000},
    "learner": {"target_update_steps": 30_000, "loss": "huber"},
    "optimizer": {"name": "rmsprop", "learning_rate": 2.5e-4, "epsilon": 0.01 / 32**2},
    "exploration": {"decay_steps": 1_000_000},
}
ALE_DISTRIBUTION: Changes = {
    "env": {"protocol": "nature", "kwargs": '{"epsilon": 0.001}'},
    "replay": {"warmup_steps": 50_000},
    "learner": {"target_update_steps": 10_000, "max_grad_norm": 10.0},
    "optimizer": {"learning_rate": 5e-5, "epsilon": 0.01 / 32},
    "exploration": {"decay_steps": 1_000_000},
}

DOUBLE: Changes = {"backup": {"double": True}}
DOUBLE_TUNED: Tuned = {"ALE": ALE_DOUBLE}

DUELING: Changes = {"network": {"dueling": True}}
DUELING_TUNED: Tuned = {
    "ALE": {**ALE_DOUBLE, "backup": {"double": True}, "learner": {**ALE_DOUBLE["learner"], "max_grad_norm": 10.0}}
}

PER: Changes = {"replay": {"prioritized": True}}
PER_TUNED: Tuned = {
    "ALE": {
        **ALE_DOUBLE,
        "backup": {"double": True},
        "optimizer": {"name": "rmsprop", "learning_rate": 6.25e-5, "epsilon": 0.01 / 32**2 / 16},
    },
}

NSTEP: Changes = {"replay": {"n_step": 5}}
NSTEP_TUNED: Tuned = {name: {"replay": {"n_step": 3}} for name in ("ALE", "MinAtar", "Acrobot", "LunarLander")} | {
    "MountainCar": {"replay": {"n_step": 20}}
}

# Noise in the weights explores; epsilon is 0 after the warm-up.
NOISY: Changes = {"network": {"noisy": True}, "exploration": {"kind": "constant", "end": 0.0}}
NOISY_TUNED: Tuned = {
    "ALE": {
        "env": {"protocol": "nature", "kwargs": '{"epsilon": 0.0}'},
        "replay": {"warmup_steps": 50_000},
        "learner": {"target_update_steps": 10_000, "loss": "huber"},
        "optimizer": {"name": "rmsprop", "learning_rate": 2.5e-4, "epsilon": 0.01 / 32**2},
    }
}

C51: Changes = {"value": {"kind": "c51"}}
C51_TUNED: Tuned = {
    "ALE": {**ALE_DISTRIBUTION, "optimizer": {"learning_rate": 2.5e-4, "epsilon": 0.01 / 32}},
}

# The low quantiles of a return that grows follow it slowly, at their level's part of the rate: CartPole wants more.
FASTER: Tuned = {"CartPole": {"optimizer": {"learning_rate": 3e-3}}}
QR: Changes = {"value": {"kind": "qr"}}
QR_TUNED: Tuned = {**FASTER, "ALE": {**ALE_DISTRIBUTION, "value": {"quantiles": 201}}}

# The paper finds 8 levels almost as good as 64, and each costs a pass through the head.
IQN: Changes = {"value": {"kind": "iqn", "quantiles": 8}, "learner": {"batch_size": 64}}
IQN_TUNED: Tuned = {
    **FASTER,
    "ALE": {
        **ALE_DISTRIBUTION,
        "value": {"quantiles": 64},
        "replay": {"warmup_steps": 20_000},
        "learner": {"batch_size": 32, "target_update_steps": 10_000},
    },
    "MinAtar": {"learner": {"batch_size": 32}},
}

RAINBOW: Changes = {
    "network": {"dueling": True, "noisy": True},
    "value": {"kind": "c51"},
    "backup": {"double": True},
    "replay": {"n_step": 3, "prioritized": True},
    "exploration": {"kind": "constant", "end": 0.0},
}
RAINBOW_TUNED: Tuned = {
    "MountainCar": {"replay": {"n_step": 10}},
    "ALE": {
        "env": {"protocol": "nature", "kwargs": '{"epsilon": 0.0}'},
        "network": {"noise": 0.1},
        "learner": {"max_grad_norm": 10.0},
        "optimizer": {"learning_rate": 6.25e-5, "epsilon": 0.005 / 32},
    },
}

MUNCHAUSEN: Changes = {"backup": {"munchausen": True}}
ALE_MUNCHAUSEN: Changes = {"optimizer": {"learning_rate": 5e-5, "epsilon": 0.01 / 32}}
M_DQN_TUNED: Tuned = {"ALE": ALE_MUNCHAUSEN}
M_IQN: Changes = {**IQN, **MUNCHAUSEN}
M_IQN_TUNED: Tuned = {
    **FASTER,
    "ALE": {**ALE_MUNCHAUSEN, "value": {"quantiles": 64}, "learner": {"batch_size": 32}},
    "MinAtar": {"learner": {"batch_size": 32}},
}
