"""Rules on what the agent has seen and done."""

from collections.abc import Sequence

import numpy as np

from qlearn.doctor.evidence import Evidence
from qlearn.doctor.report import NotJudgedError, Verdict, number
from qlearn.doctor.trace import Length
from qlearn.scores import mean_interval
from qlearn.types import Array

LARGE = 10.0  # root mean square of inputs; weights are drawn for inputs of size 1 (LeCun et al. 1998)
STILL = 0.9  # of the stacks
CLOCK = 0.99  # of the variance of time: then the end can be seen coming (Pardo et al. 2018)
PILE, FEW, SHORT = 0.1, 5, 10  # of episodes as long as the longest: their part, their number, their length
HORIZON = 0.1  # of an episode's length, 1 / (1 - gamma): with less, few values depend on how it ends
SETTLED = 10_000  # updates before which the greedy policy may be anything
MANY = 20  # episodes that are all alike before that is held against them
WAIT = 2_000  # steps after which a reward should have been seen


def rewarded(evidence: Evidence) -> Verdict | None:
    """Where all rewards are the same there is nothing to learn from."""
    if evidence.steps < WAIT:
        raise NotJudgedError(f"{evidence.steps:,} steps were made; it takes {WAIT:,}")
    trace = evidence.memory.trace if evidence.memory else evidence.shown()
    returns = np.array([line["return"] for line in evidence.episodes], np.float64)
    return unrewarded(trace.rewards, returns, trace.episodes(), evidence.steps, "the run")


def unrewarded(rewards: Array, returns: Array, whole: Sequence[Length], steps: int, who: str) -> Verdict | None:
    """The verdict on rewards that never tell one action from another."""
    if not len(rewards):
        raise NotJudgedError("there are no steps to look at")
    found = int(np.count_nonzero(rewards)) + int(np.count_nonzero(returns))
    fix = (
        "this is exploration, not learning: explore for longer (--exploration.decay-steps, --exploration.end), reward "
        "steps on the way, or make the first goals nearer; see too whether the environment pays rewards at all"
    )
    if not found:
        return Verdict(
            "reward",
            f"no reward was ever seen: {who} was rewarded in 0 of {steps:,} steps (threshold 1)",
            0.0,
            1.0,
            fix,
        )
    ends = sum(e.terminated for e in whole)
    if np.ptp(rewards) == 0 and not ends and not (len(returns) and np.ptp(returns)):
        if len(whole) < MANY:
            raise NotJudgedError(f"{len(whole)} episodes ended, all alike; it takes {MANY}")
        return Verdict(
            "reward",
            f"{who} got the same reward of {number(float(rewards[0]))} in every step, and 0 of {len(whole)} episodes "
            "ended before their limit (threshold 1): nothing was ever better than anything else",
            0.0,
            1.0,
            fix,
        )
    return None


def scaled(evidence: Evidence) -> Verdict | None:
    """Inputs far from size 1 saturate or swamp the first layer."""
    size = evidence.sampled().size
    if size is None:
        raise NotJudgedError
    return unscaled(size)


def unscaled(size: float) -> Verdict | None:
    """The verdict on inputs of this root mean square."""
    if not size > LARGE:
        return None
    return Verdict(
        "scale",
        f"observations reach the network unscaled: their root mean square is {number(size)} (threshold {LARGE:g})",
        size,
        LARGE,
        "give images as np.uint8, which qlearn divides by 255; of other observations declare the bounds and set "
        "--network.rescale True, or divide them in a wrapper",
    )


def changing(evidence: Evidence) -> Verdict | None:
    """Observations that never change say nothing."""
    sample = evidence.sampled()
    if sample.spread is None or len(sample.q) < 50:
        raise NotJudgedError("" if sample.spread is None else "too few observations to compare")
    return constant(sample.spread)


def constant(spread: float) -> Verdict | None:
    """The verdict on inputs of which none varies more than `spread`."""
    if spread > 0:
        return None
    return Verdict(
        "constant",
        "every observation is the same: the largest standard deviation of one of its numbers is 0 (threshold 0)",
        spread,
        0.0,
        "look at what step() and reset() return: perhaps one array that is never written to, or a screen never drawn",
    )


def moving(evidence: Evidence) -> Verdict | None:
    """Frames are stacked to show motion."""
    still = evidence.sampled().still
    if still is None:
        raise NotJudgedError
    return frozen(still)


def frozen(still: float) -> Verdict | None:
    """The verdict on stacks of which this part holds the same frame over and over."""
    if not still > STILL:
        return None
    return Verdict(
        "still",
        f"the frames of {still:.0%} of the stacks are all the same (threshold {STILL:.0%}), so they show no motion",
        still,
        STILL,
        "look at what step() returns: a frame drawn before the step, or one array that is changed in place; or set "
        "--env.frame-stack 1",
    )


def bootstrapped(evidence: Evidence) -> Verdict | None:
    """A time limit is no end of the world (pitfall 2; Pardo et al. 2018)."""
    memory = evidence.remembered()
    longest = max((int(line["length"]) for line in evidence.episodes), default=0)
    return limit_taken_for_end(memory.trace.episodes(), longest, evidence.config.replay.gamma, memory.clock)


def limit_taken_for_end(whole: Sequence[Length], longest: int, gamma: float, clock: float | None) -> Verdict | None:
    """The verdict on episodes that pile up at one length, the longest of all, and are said to have terminated there."""
    if len(whole) < FEW:
        raise NotJudgedError(f"{len(whole)} whole episodes are there to look at; it takes {FEW}")
    most = max(e.steps for e in whole)
    piled = sum(e.terminated for e in whole if e.steps == most)
    share = piled / len(whole)
    far = gamma < 1 and 1 / (1 - gamma) < HORIZON * most
    if longest > most or most < SHORT or far or piled < FEW or share < PILE or (clock or 0.0) > CLOCK:
        return None
    if clock is None and piled == len(whole):  # so many moves may be the game, and be seen
        raise NotJudgedError(f"all episodes take {most:,} steps, and such observations are not asked for the time")
    return Verdict(
        "truncation",
        f"a time limit seems to be taken for termination: {piled} of {len(whole)} episodes terminated after exactly "
        f"{most:,} steps, and none was longer (threshold {PILE:.0%})",
        share,
        PILE,
        "return truncated=True and terminated=False from step() where time is up, or leave it to "
        "gymnasium.register(..., max_episode_steps=N): else states near the limit are taught to be worth nothing",
    )


def alike(evidence: Evidence) -> Verdict | None:
    """The greedy policy in fresh episodes, beside the returns of training.

    A young network often plays far worse without epsilon, which frees it where it is stuck: it is not judged.
    """
    evidence.updates(SETTLED)
    returns, played = evidence.returns(200), evidence.shown()
    greedy = played.sums()
    if len(greedy) < FEW or not played.done.any(0).all():
        raise NotJudgedError("greedy episodes did not end in the steps that they were given")
    recent, early = returns[-100:], returns[: max(10, len(returns) // 10)]
    if not evidence.finished:
        raise NotJudgedError("the run goes on")
    threshold = float(recent.mean() + early.mean()) / 2
    high = mean_interval(greedy, 0.99)[1]
    gained = recent.mean() > early.mean() + 2 * (early.std() + recent.std()) / np.sqrt(min(len(early), len(recent)))
    if not gained or not high < threshold:
        return None
    return Verdict(
        "evaluation",
        f"evaluation is unlike training: the greedy policy's mean return is {number(float(greedy.mean()))} over "
        f"{len(greedy)} fresh episodes, that of the last {len(recent)} of training {number(float(recent.mean()))} "
        f"(threshold {number(threshold)})",
        float(greedy.mean()),
        threshold,
        "the last network is a bad one: let --optimizer.end-learning-rate be small, or the target network slower; see "
        "too whether the environment changes with the episodes played",
    )
