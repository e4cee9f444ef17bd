"""The rules of an environment: is it sound?"""

import dataclasses
from collections.abc import Callable

import numpy as np

from qlearn import presets
from qlearn.config import check
from qlearn.doctor import experience
from qlearn.doctor.report import NotJudgedError, Verdict, judge, number
from qlearn.doctor.trial import COPIES, REPEATED, Trial, tried
from qlearn.errors import EnvError

LARGE = 1_000.0  # of a reward
OUTSIDE = 0.01  # of the observations


def examine_soundness(env_id: str, preset: str, seed: int) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """The verdicts on an environment as a preset plays it."""
    config = check(dataclasses.replace(presets.get(preset, env_id), seed=seed))
    try:
        trial = tried(config)
    except EnvError as error:
        return (
            Verdict(
                "contract",
                f"the environment breaks its contract: {' '.join(str(error).split())}",
                None,
                None,
                "step() and reset() must return finite numbers of the declared shapes, and must not raise; "
                "gymnasium.utils.env_checker.check_env says more",
            ),
        ), ()
    verdicts, checked = judge(trial, RULES)
    return verdicts, (*trial.facts, *checked)


def repeatable(trial: Trial) -> Verdict | None:
    """An episode must be a function of its seed and actions: else no run can be repeated."""
    if not trial.parted:
        return None
    return Verdict(
        "seed",
        f"the same seed and the same actions gave {trial.parted} (threshold 0 differences in {REPEATED} steps)",
        1.0,
        0.0,
        "draw all random numbers from self.np_random, after super().reset(seed=seed)",
    )


def declared(trial: Trial) -> Verdict | None:
    """Observations are what the space says."""
    share, why = trial.outside
    if not share > OUTSIDE:
        return None
    return Verdict(
        "space",
        f"{share:.0%} of the observations are not what observation_space declares (threshold {OUTSIDE:.0%}): {why}",
        share,
        OUTSIDE,
        "correct observation_space: its bounds scale the network's inputs (--network.rescale), its type decides "
        "how they are stored",
    )


def told(trial: Trial) -> Verdict | None:
    """Masks are read from `info`."""
    if not trial.hidden:
        return None
    return Verdict(
        "mask",
        "action masks are in the observation, where they are numbers among others, and 0 of 1 are in info "
        "(threshold 1)",
        0.0,
        1.0,
        'put the mask into info["action_mask"] in reset() and in step()',
    )


def moderate(trial: Trial) -> Verdict | None:
    """Networks reach large values slowly (van Hasselt et al. 2016, on values of many orders of magnitude)."""
    most = float(np.abs(trial.trace.rewards).max())
    if not most > LARGE or trial.config.replay.clip_rewards:
        return None
    return Verdict(
        "reward-scale",
        f"rewards are large: up to {number(most)} in a step (threshold {number(LARGE)})",
        most,
        LARGE,
        "divide them in a wrapper, or learn from their signs: --replay.clip-rewards True",
    )


def rewarded(trial: Trial) -> Verdict | None:
    """A random policy meets some reward: it is all that epsilon-greedy exploration starts with."""
    rewards = trial.trace.rewards
    return experience.unrewarded(rewards, trial.trace.sums(), trial.episodes, len(rewards), "a random policy")


def ending(trial: Trial) -> Verdict | None:
    """Episodes end."""
    if trial.episodes:
        return None
    steps = len(trial.trace.reward)
    if trial.limit is not None:
        raise NotJudgedError(f"none ended in {steps:,} steps, but there is a limit of {trial.limit:,}")
    return Verdict(
        "endless",
        f"none of {COPIES} episodes ended in {steps:,} random steps, and there is no time limit (threshold 1)",
        0.0,
        1.0,
        "gymnasium.register(..., max_episode_steps=N), or gymnasium.wrappers.TimeLimit",
    )


def bootstrapped(trial: Trial) -> Verdict | None:
    """A time limit is truncation."""
    whole = trial.episodes
    return experience.limit_taken_for_end(whole, 0, trial.config.replay.gamma, trial.clock)


def scaled(trial: Trial) -> Verdict | None:
    """Inputs are of a size near 1."""
    if trial.size is None:
        raise NotJudgedError
    return experience.unscaled(trial.size)


def changing(trial: Trial) -> Verdict | None:
    """Observations differ."""
    if trial.spread is None:
        raise NotJudgedError
    return experience.constant(trial.spread)


def moving(trial: Trial) -> Verdict | None:
    """Frames of a stack differ."""
    if trial.still is None:
        raise NotJudgedError
    return experience.frozen(trial.still)


RULES: tuple[tuple[str, Callable[[Trial], Verdict | None]], ...] = (
    ("observations are what their space declares", declared),
    ("the same seed and actions give the same episode", repeatable),
    ("action masks are where they are read", told),
    ("observations change", changing),
    ("the frames of a stack differ", moving),
    ("observations reach the network at a size near 1", scaled),
    ("a random policy meets rewards, and returns that differ", rewarded),
    ("rewards are of moderate size", moderate),
    ("episodes end", ending),
    ("time limits are not taken for terminations", bootstrapped),
)
