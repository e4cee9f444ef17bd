"""What the best policy scores where the model is known: by dynamic programming over the steps that are left.

    python benchmarks/optimum.py

writes benchmarks/results/optimum.json.
"""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

RESULT = Path(__file__).parent / "results" / "optimum.json"
STEPS = {"FrozenLake-v1": 100, "FrozenLake8x8-v1": 200, "Taxi-v4": 200, "CliffWalking-v1": 200}  # the last has no limit


def best_return(env_id: str, steps: int) -> float:
    """The largest expected undiscounted return within `steps` steps, from the environment's own starts."""
    inner: Any = gym.make(env_id).unwrapped
    states, actions = len(inner.P), len(inner.P[0])
    chance, reward = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s in range(states):
        for a in range(actions):
            for p, following, r, terminated in inner.P[s][a]:
                reward[s, a] += p * r
                chance[s, a, int(following)] += 0.0 if terminated else p
    value = np.zeros(states)
    for _ in range(steps):
        value = (reward + chance @ value).max(-1)
    return float(inner.initial_state_distrib @ value)


def main() -> None:
    found = {env_id: {"steps": steps, "best_return": best_return(env_id, steps)} for env_id, steps in STEPS.items()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
