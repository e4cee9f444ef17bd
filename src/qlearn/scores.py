"""Statistics of returns."""

from collections.abc import Callable, Sequence

import numpy as np

from qlearn.types import Array


def mean_interval(sample: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of `sample` `[n]`; the mean itself where all are equal."""
    from scipy.stats import t

    mean, count = float(np.mean(sample)), len(sample)
    if count < 2 or np.ptp(sample) == 0:
        return mean, mean
    reach = float(t.ppf(0.5 + confidence / 2, count - 1)) * float(np.std(sample, ddof=1)) / count**0.5
    return mean - reach, mean + reach


def iqm(sample: Array) -> Array:
    """Interquartile mean over the first axis, `[n, ...]` to `[...]`: the mean of the middle half (Agarwal et al. 2021).

    Exactly half of the weight is kept: where n is no multiple of 4, the two values at the edges count in part. For
    n = 10 the third and the eighth count half, where `scipy.stats.trim_mean(sample, 0.25)` counts them whole.
    """
    count = len(sample)
    place = np.arange(count)
    weight = np.clip(np.minimum(place + 1, 0.75 * count) - np.maximum(place, 0.25 * count), 0, None)
    return np.tensordot(weight / weight.sum(), np.sort(sample, axis=0), 1)


def bootstrap_interval(
    samples: Sequence[Array],
    statistic: Callable[[Array], Array] = iqm,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2_000,
) -> tuple[Array, Array]:
    """Percentile interval of `statistic`, by a stratified bootstrap over seeds (Agarwal et al. 2021).

    Each stratum, the seeds of one environment, is drawn again from itself, with replacement; then the strata are
    put together and the statistic is taken of all. The scores of several environments must be on one scale.

    It knows no more than the seeds that it is given, and few seeds make it too narrow: of 3 normal values the 95 %
    interval of the interquartile mean holds the true one 74 times in 100, of 5 it is 90, of 10 it is 93. Of a single
    environment with n seeds it is the interval of those n values, as narrow as that; of one seed, or of equal ones,
    it is the value itself, which says nothing about the next seed.

    Args:
        samples: the strata, each `[n, ...]`, one row a seed; `[scores]` for a single environment.
        statistic: reduces the first axis, and knows nothing of the others.
        confidence: the part of the resamples that is inside.
        seed: of the resampling.
        resamples: how many.

    Returns:
        The lower and the upper end, `[...]`.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.asarray(s)[rng.integers(len(s), size=(len(s), resamples))] for s in samples]  # each [n, resamples, ...]
    outside = (1 - confidence) / 2
    low, high = np.quantile(statistic(np.concatenate(drawn)), (outside, 1 - outside), axis=0)
    return low, high


def text(score: float) -> str:
    """A score as people read it: one decimal, or two where it is less than ten."""
    return f"{score:,.{1 if abs(score) >= 10 else 2}f}"
