"""Statistics of returns."""

import numpy as np

from qlearn.types import Array


def mean_interval(sample: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval (BCa, Efron 1987) of the mean of `sample` `[n]`; the mean itself where all are equal."""
    from scipy.stats import bootstrap

    if len(sample) < 2 or np.ptp(sample) == 0:
        return float(np.mean(sample)), float(np.mean(sample))
    result = bootstrap(
        (sample,),
        np.mean,
        confidence_level=confidence,
        n_resamples=10_000,
        batch=100,
        rng=np.random.default_rng(0),
    )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return (low, high) if np.isfinite([low, high]).all() else (float(np.min(sample)), float(np.max(sample)))
