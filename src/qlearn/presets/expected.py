"""Greedy evaluation: mean of the seeds and its 95 % interval. Written by benchmarks/report.py."""

from collections.abc import Mapping

EXPECTED: Mapping[str, Mapping[str, str]] = {
    "c51": {
        "CartPole-v1": "499.7 (498.9 to 500.4), 10 seeds",
    },
    "double": {
        "CartPole-v1": "480.3 (456.5 to 504.1), 10 seeds",
    },
    "dqn": {
        "Acrobot-v1": "-77.3 (-81.9 to -72.6), 5 seeds",
        "CartPole-v1": "499.8 (499.5 to 500.2), 10 seeds",
        "LunarLander-v3": "223.6 (154.7 to 292.4), 5 seeds",
        "MountainCar-v0": "-101.6 (-104.1 to -99.0), 5 seeds",
        "Taxi-v4": "7.78 (7.66 to 7.91), 3 seeds",
    },
    "dueling": {
        "CartPole-v1": "499.9 (499.6 to 500.2), 10 seeds",
    },
    "intro": {
        "CartPole-v0": "200.0 (200.0 to 200.0), 10 seeds",
    },
    "iqn": {
        "CartPole-v1": "496.3 (490.0 to 502.6), 10 seeds",
    },
    "m-dqn": {
        "CartPole-v1": "476.5 (439.5 to 513.6), 10 seeds",
    },
    "m-iqn": {
        "CartPole-v1": "479.6 (459.7 to 499.4), 10 seeds",
    },
    "noisy": {
        "CartPole-v1": "447.9 (376.4 to 519.4), 10 seeds",
    },
    "nstep": {
        "CartPole-v1": "479.4 (460.7 to 498.2), 10 seeds",
    },
    "per": {
        "CartPole-v1": "462.5 (411.3 to 513.6), 10 seeds",
    },
    "pqn": {
        "Acrobot-v1": "-82.5 (-87.0 to -77.9), 5 seeds",
        "CartPole-v1": "500.0 (500.0 to 500.0), 10 seeds",
    },
    "qr": {
        "CartPole-v1": "494.8 (489.6 to 500.0), 10 seeds",
        "MountainCar-v0": "-99.5 (-100.6 to -98.3), 5 seeds",
    },
    "rainbow": {
        "CartPole-v1": "481.3 (453.3 to 509.4), 10 seeds",
    },
    "tabular": {
        "CliffWalking-v1": "-13.0 (-13.0 to -13.0), 5 seeds",
        "FrozenLake-v1": "0.74 (0.73 to 0.74), 5 seeds",
        "FrozenLake8x8-v1": "0.85 (0.82 to 0.87), 5 seeds",
        "Taxi-v4": "7.80 (7.75 to 7.85), 5 seeds",
    },
}
