"""Statistics of returns."""

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
