"""Greedy evaluation: mean of the seeds and its 95 % interval. Written by benchmarks/report.py."""

from collections.abc import Mapping

EXPECTED: Mapping[str, Mapping[str, str]] = {
    "c51": {
        "CartPole-v1": "500.0, 1 seed",
    },
    "double": {
        "CartPole-v1": "500.0, 1 seed",
    },
    "dqn": {
        "Acrobot-v1": "-77.3 (-81.9 to -72.6), 5 seeds",
        "CartPole-v1": "499.8 (499.5 to 500.2), 10 seeds",
        "LunarLander-v3": "223.6 (154.7 to 292.4), 5 seeds",
        "MountainCar-v0": "-101.6 (-104.1 to -99.0), 5 seeds",
    },
    "dueling": {
        "CartPole-v1": "500.0, 1 seed",
    },
    "intro": {
        "CartPole-v0": "200.0 (200.0 to 200.0), 10 seeds",
    },
    "iqn": {
        "CartPole-v1": "334.9, 1 seed",
    },
    "noisy": {
        "CartPole-v1": "500.0, 1 seed",
    },
    "nstep": {
        "CartPole-v1": "462.1, 1 seed",
    },
    "per": {
        "CartPole-v1": "500.0, 1 seed",
    },
    "pqn": {
        "Acrobot-v1": "-80.5 (-122.2 to -38.8), 2 seeds",
    },
    "qr": {
        "CartPole-v1": "420.7, 1 seed",
        "MountainCar-v0": "-101.0, 1 seed",
    },
}
