"""Rules on what the network says that actions are worth."""

import dataclasses

import numpy as np

from qlearn.doctor.evidence import Evidence
from qlearn.doctor.report import NotJudgedError, Verdict, number
from qlearn.doctor.trace import Trace

SOFT = 1.25  # times the bound: approximation overshoots it a little in healthy runs
OUTSIDE = 0.3  # as `runs.session` warns in training
SAME = 0.99  # of the greedy choices
MATURE = 5_000  # updates before which predictions are not held against anybody


def bounded(evidence: Evidence) -> Verdict | None:
    """No policy can have more than r_max / (1 - gamma) (van Hasselt et al. 2018, who call more soft divergence)."""
    config, sample = evidence.config, evidence.sampled()
    gamma = config.replay.gamma
    if gamma == 1:
        raise NotJudgedError("gamma is 1, and nothing bounds the return")
    rewards = evidence.remembered().trace.rewards
    most = float(np.abs(rewards).max())
    if not most:
        raise NotJudgedError("every reward is 0")
    if config.backup.munchausen:  # which adds to the reward (Vieillard et al. 2020)
        most += config.backup.alpha * -config.backup.clip + config.backup.temperature * np.log(sample.q.shape[1])
    limit = SOFT * most / (1 - gamma)
    q = float(np.quantile(np.abs(sample.q.max(-1)), 0.99))
    if not q > limit:
        return None
    return Verdict(
        "bound",
        f"Q has run away: it reaches {number(q)}, where rewards of at most {number(most)} and gamma {gamma:g} allow "
        f"{number(limit / SOFT)} (threshold {number(limit)})",
        q,
        limit,
        "--optimizer.learning-rate lower by a factor of 10; a slower target network "
        "(--learner.target-update-steps), --backup.double True",
    )


def rising(evidence: Evidence) -> Verdict | None:
    """Values that rise where returns do not, beyond all that was ever earned."""
    q = evidence.series("q_mean", 12)
    evidence.updates(MATURE)
    returns = evidence.returns(30)
    best, spread = _earned(evidence.remembered().trace, evidence.config.replay.gamma)
    threshold = best + spread
    (_, middle, last), (_, before, now) = np.array_split(q, 3), np.array_split(returns, 3)
    improved = now.mean() - before.mean() > 0.05 * (np.abs(before.mean()) + before.std())
    if improved or last.mean() <= middle.mean() or not last.mean() > threshold:
        return None
    return Verdict(
        "rising",
        f"Q rises while returns do not: its mean went from {number(float(middle.mean()))} to "
        f"{number(float(last.mean()))} over the last two thirds of the run, returns from "
        f"{number(float(before.mean()))} to {number(float(now.mean()))}, and no more than {number(best)} was ever "
        f"earned from a step on (threshold {number(threshold)})",
        float(last.mean()),
        threshold,
        "--backup.double True, a slower target network (--learner.target-update-steps), a lower "
        "--optimizer.learning-rate",
    )


def _earned(trace: Trace, gamma: float) -> tuple[float, float]:
    """The most that was earned from a step on, discounted, and the size of such returns."""
    realised = trace.realised(gamma)
    known = realised[np.isfinite(realised)]
    if len(known) < 100:
        raise NotJudgedError("too few episodes end where one can tell what they earn")
    return float(known.max()), float(np.abs(known).max())


def overestimated(evidence: Evidence) -> Verdict | None:
    """What the network promises beside what its own policy then earns (van Hasselt et al. 2016, figure 3).

    They report promises of several times what is earned. A young network's are too high in healthy runs as well, so it
    takes one that is beyond the mean by as much as was earned anywhere.
    """
    evidence.updates(MATURE)
    played = evidence.shown()
    if evidence.config.replay.clip_rewards:
        played = dataclasses.replace(played, reward=played.reward.clip(-1, 1))
    realised = played.realised(evidence.config.replay.gamma)
    known = np.isfinite(realised) & np.isfinite(played.value)
    if known.sum() < 50:
        raise NotJudgedError("too few episodes end where one can tell what they earn")
    promised, earned = float(played.value[known].mean()), float(realised[known].mean())
    size = float(np.abs(realised[known]).max())
    if not size:
        raise NotJudgedError("its greedy play earns nothing at all")
    threshold = earned + size
    if not promised > threshold:
        return None
    return Verdict(
        "overestimated",
        f"the network promises {number(promised)} where its own greedy play then earns {number(earned)}, discounted, "
        f"on average over {int(known.sum()):,} steps (threshold {number(threshold)})",
        promised,
        threshold,
        "--backup.double True, a slower target network (--learner.target-update-steps), a lower "
        "--optimizer.learning-rate; or train longer, if the run is young",
    )


def supported(evidence: Evidence) -> Verdict | None:
    """C51's atoms must reach from the worst return to the best; beyond them targets are cut off and look alike."""
    value = evidence.config.value
    if value.kind != "c51":
        raise NotJudgedError
    outside = evidence.sampled().outside
    if outside is None:
        raise NotJudgedError("the replay memory is empty")
    if not outside > OUTSIDE:
        return None
    rewards, gamma = evidence.remembered().trace.rewards, evidence.config.replay.gamma
    reach = f", for instance to {number(np.abs(rewards).max() / (1 - gamma))}, r_max / (1 - gamma)" if gamma < 1 else ""
    return Verdict(
        "support",
        f"{outside:.0%} of what C51 is to learn lies outside its atoms, from {value.v_min:g} to {value.v_max:g}, and "
        f"is cut off there (threshold {OUTSIDE:.0%})",
        outside,
        OUTSIDE,
        f"widen --value.v-min and --value.v-max{reach}",
    )


def varied(evidence: Evidence) -> Verdict | None:
    """A policy of one action that is no better than chance has learned nothing from what it sees."""
    q = evidence.sampled().q
    if q.shape[1] < 2 or len(q) < 50:
        raise NotJudgedError("there is one action" if q.shape[1] < 2 else "too few observations to choose in")
    evidence.updates(1)
    returns = evidence.returns(30)
    counts = np.bincount(q.argmax(-1), minlength=q.shape[1])
    share, first, last = counts.max() / len(q), returns[: len(returns) // 3], returns[-len(returns) // 3 :]
    improved = last.mean() > first.mean() + 0.05 * (abs(first.mean()) + first.std())
    if not share > SAME or improved:
        return None
    return Verdict(
        "action",
        f"the network prefers action {counts.argmax()} in {share:.1%} of {len(q)} observations (threshold {SAME:.0%}), "
        f"and returns have not risen ({number(float(first.mean()))} at first, {number(float(last.mean()))} now)",
        float(share),
        SAME,
        "it does not tell observations apart: look at their scale and at dormant units, and lower "
        "--optimizer.learning-rate",
    )
