"""Rules on how it learns: losses, gradients, schedules, units, and where the time goes."""

import math

import numpy as np

from qlearn.build.pieces import build_epsilon
from qlearn.doctor.evidence import Evidence
from qlearn.doctor.report import NotJudgedError, Verdict, number

CLIPPED, LINES = 0.95, 20  # part of the gradients; lines of metrics that it takes to say so
STEP = 0.3  # of a weight's first size: what an update may move it by at most
GREEDY = 0.5  # epsilon above which the agent's own policy is not what is seen
DORMANT = 0.9  # of a layer's units
EFFECTIVE = 0.1  # of a minibatch
BOUND, SLOW = 0.9, 1e-3  # the environment's part of the time, and seconds of a step below which it is not slow


def updated(evidence: Evidence) -> Verdict | None:
    """Updates come after the warm-up, replay_ratio for each step."""
    config = evidence.config
    if config.algorithm != "dqn":
        raise NotJudgedError
    planned = int(max(0, config.steps - config.replay.warmup_steps) * config.learner.replay_ratio)
    if planned:
        return None
    return Verdict(
        "updates",
        f"the run learns nothing: of its {config.steps:,} steps {config.replay.warmup_steps:,} are warm-up, and "
        "0 updates are made (threshold 1)",
        0.0,
        1.0,
        "more --steps, or a smaller --replay.warmup-steps; --learner.replay-ratio must be more than 0",
    )


def finite(evidence: Evidence) -> Verdict | None:
    """A loss that is NaN, or exactly 0 again and again."""
    loss = evidence.series("loss", 3)
    fix = "a lower --optimizer.learning-rate, --learner.max-grad-norm 10, rewards of moderate size"
    if not np.isfinite(loss).all():
        bad = int((~np.isfinite(loss)).sum())
        return Verdict(
            "loss",
            f"the loss is NaN or infinite in {bad} of {len(loss)} lines of metrics (threshold 0)",
            float(bad),
            0.0,
            fix,
        )
    zeros = int((loss[-10:] == 0).sum())
    if zeros < min(10, len(loss)):
        return None
    return Verdict(
        "loss",
        f"the loss is exactly 0 in the last {zeros} lines of metrics: target and value are the same number (threshold "
        f"{zeros - 1})",
        float(zeros),
        float(zeros - 1),
        "see whether any reward is ever paid and whether observations change; all units may be dead",
    )


def free(evidence: Evidence) -> Verdict | None:
    """Gradients that are clipped always have a direction, and no size any more."""
    limit = evidence.config.learner.max_grad_norm
    if not limit:
        raise NotJudgedError
    norms = evidence.series("grad_norm", LINES)
    share = float((norms > limit).mean())
    if not share > CLIPPED:
        return None
    return Verdict(
        "clipped",
        f"{share:.0%} of the gradients are clipped to --learner.max-grad-norm {limit:g} (threshold {CLIPPED:.0%}); "
        f"their median norm is {number(float(np.median(norms)))}",
        share,
        CLIPPED,
        "rewards or observations are too large, or the learning rate is: scale them, lower "
        "--optimizer.learning-rate, or raise --learner.max-grad-norm",
    )


def gentle(evidence: Evidence) -> Verdict | None:
    """Adam and RMSProp move each weight by about the learning rate in each of their first updates.

    Weights begin as U(+-1/sqrt(fan_in)), of size 1/sqrt(3 fan_in) (see `networks`). qlearn's presets move them by 0.01
    to 0.08 of that; from 0.3 on a few updates leave nothing of what the layer was.
    """
    if evidence.config.algorithm == "tabular":
        raise NotJudgedError
    fan_in, rate = evidence.sampled().fan_in, evidence.config.optimizer.learning_rate
    share = rate * math.sqrt(3 * fan_in)
    if not share > STEP:
        return None
    return Verdict(
        "rate",
        f"the learning rate is too large: {rate:g} moves weights by {share:.0%} of their first size in each early "
        f"update (threshold {STEP:.0%}; layers have up to {fan_in:,} inputs)",
        share,
        STEP,
        f"--optimizer.learning-rate {0.02 / math.sqrt(3 * fan_in):.0e} or so",
    )


def synchronised(evidence: Evidence) -> Verdict | None:
    """Line 9 of the algorithm must happen."""
    config = evidence.config
    if config.algorithm != "dqn":
        raise NotJudgedError
    steps = evidence.steps if evidence.finished else config.steps
    after, period = steps - config.replay.warmup_steps, config.learner.target_update_steps
    if after <= 0 or after >= period or evidence.solved:
        return None
    return Verdict(
        "target",
        f"the target network is never synchronised: {after:,} steps follow the warm-up, and "
        f"--learner.target-update-steps is {period:,} (threshold 1 synchronisation)",
        0.0,
        1.0,
        f"--learner.target-update-steps {max(1, after // 50)} or so, or more --steps",
    )


def decayed(evidence: Evidence) -> Verdict | None:
    """At the end the agent should do what it has learned."""
    config = evidence.config
    if evidence.finished:
        if evidence.solved:
            return None
        if evidence.steps <= config.replay.warmup_steps and config.algorithm == "dqn":
            raise NotJudgedError("the run ended in its warm-up")
    last = evidence.steps if evidence.finished else config.steps
    warmup = config.replay.warmup_steps if config.algorithm == "dqn" else 0
    epsilon = float(np.mean(build_epsilon(config)(max(0, last - warmup))))
    if not epsilon > GREEDY:
        return None
    return Verdict(
        "epsilon",
        f"epsilon is still {epsilon:.2f} at the end of the run (threshold {GREEDY:g}): most of what it did was random",
        epsilon,
        GREEDY,
        f"--exploration.decay-steps {max(1, (last - warmup) // 4)} or so, or more --steps",
    )


def awake(evidence: Evidence) -> Verdict | None:
    """Units that hardly ever answer (Sokar et al. 2023)."""
    evidence.updates(1)
    shares = evidence.sampled().dormant
    if not shares:
        raise NotJudgedError("the network has no layers of ReLUs")
    layer, share = max(shares.items(), key=lambda item: item[1])
    if not share > DORMANT:
        return None
    return Verdict(
        "dormant",
        f"{share:.0%} of the units of layer {layer} are dormant (threshold {DORMANT:.0%}): they answer to no "
        "observation",
        share,
        DORMANT,
        "a lower --optimizer.learning-rate, --network.layer-norm True, fewer updates (--learner.replay-ratio); units "
        "that are dead stay dead, so start anew",
    )


def even(evidence: Evidence) -> Verdict | None:
    """Importance weights can leave a few transitions of a minibatch in charge."""
    if not evidence.config.replay.prioritized:
        raise NotJudgedError
    effective = evidence.remembered().effective
    if effective is None:
        raise NotJudgedError("the replay memory has no priorities yet")
    if not effective < EFFECTIVE:
        return None
    return Verdict(
        "priorities",
        f"prioritised replay's weights leave {effective:.0%} of a minibatch in effect (threshold {EFFECTIVE:.0%})",
        effective,
        EFFECTIVE,
        "a smaller --replay.priority-exponent, or a larger --learner.batch-size",
    )


def balanced(evidence: Evidence) -> Verdict | None:
    """Where the environment takes the time, more updates cost nothing."""
    if evidence.env_seconds is None:
        raise NotJudgedError(evidence.missing)
    share = environment_share(evidence)
    if share is None:
        raise NotJudgedError("no line of metrics tells the speed")
    if not (share > BOUND and evidence.env_seconds > SLOW):
        return None
    return Verdict(
        "time",
        f"the run is environment-bound: a step of the environment takes {1e3 * evidence.env_seconds:.2g} ms, "
        f"{share:.0%} of the time (threshold {BOUND:.0%})",
        share,
        BOUND,
        "a quicker environment; or more updates of what was seen, which cost little beside it: --learner.replay-ratio",
    )


def environment_share(evidence: Evidence) -> float | None:
    """The part of the run's time that its environments take, as quick as one is now; None where that is not known."""
    speeds = [line["steps_per_second"] for line in evidence.train if line.get("steps_per_second")]
    if evidence.env_seconds is None or not speeds:
        return None
    return min(1.0, evidence.env_seconds * float(np.median(speeds)))
