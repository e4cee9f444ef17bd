"""Greedy evaluation: mean of the seeds and its 95 % interval. Written by benchmarks/report.py."""

from collections.abc import Mapping

EXPECTED: Mapping[str, Mapping[str, str]] = {
    "dqn": {
        "Acrobot-v1": "-77.3 (-81.9 to -72.6), 5 seeds",
        "CartPole-v1": "499.8 (499.5 to 500.2), 10 seeds",
        "LunarLander-v3": "223.6 (154.7 to 292.4), 5 seeds",
        "MountainCar-v0": "-101.6 (-104.1 to -99.0), 5 seeds",
        "Taxi-v4": "-190.3 (-216.5 to -164.1), 3 seeds",
    },
    "intro": {
        "CartPole-v0": "200.0 (200.0 to 200.0), 10 seeds",
    },
}
