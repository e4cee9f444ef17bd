"""One training with one library on one setting: `python agents.py LIBRARY SETTING [--seed N]` prints a line of JSON.

The peers come from the extra `[peers]`. All have the same hyper-parameters and one thread; qlearn writes its run
directory as ever, the peers write nothing. Steps per second are of those after `AFTER`: start and compiling are out.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

AFTER = 2_000  # steps that are not timed


@dataclass(frozen=True)
class Setting:
    """DQN on CartPole-v1."""

    hidden: tuple[int, ...]
    batch_size: int
    every: int  # environment steps for an update
    learning_rate: float
    target_update_steps: int
    steps: int
    capacity: int = 10_000
    epsilon: float = 0.05


SETTINGS = {
    "tutorial": Setting((16, 16, 16), 32, 1, 1e-3, 2_500, 12_000),
    "cleanrl": Setting((120, 84), 128, 10, 2.5e-4, 500, 30_000),
}


def qlearn(setting: Setting, seed: int, **changes: Any) -> float:
    """Steps per second, by the run's own metrics."""
    import qlearn as library

    with tempfile.TemporaryDirectory() as folder:
        run = library.train(
            "CartPole-v1",
            preset="intro",
            seed=seed,
            progress=False,
            run_dir=Path(folder) / "run",
            **config(setting, **changes),
        )
        return speed(run.path, AFTER)


def speed(run: Path, after: int) -> float:
    """Steps per second of a run since step `after`, by its metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = (line for line in lines if line["kind"] == "train" and line["steps"] >= after)
    return float((last["steps"] - first["steps"]) / (last["wall_seconds"] - first["wall_seconds"]))


def config(setting: Setting, **changes: Any) -> dict[str, Any]:
    """The setting as qlearn's configuration."""
    return {
        "steps": setting.steps,
        "until_solved": False,
        "max_episodes": None,
        "network": {"hidden": setting.hidden},
        "replay": {"capacity": setting.capacity, "warmup_steps": 1_000},
        "learner": {
            "batch_size": setting.batch_size,
            "replay_ratio": 1 / setting.every,
            "target_update_steps": setting.target_update_steps,
            "loss": "huber",
            "max_grad_norm": 10.0,
        },
        "optimizer": {"learning_rate": setting.learning_rate},
        "exploration": {"start": setting.epsilon, "end": setting.epsilon},
        "runtime": {"threads": 1, "compile": "compiled", "checkpoint_steps": 10_000},
        **changes,
    }


def eager(setting: Setting, seed: int) -> float:
    """qlearn without a compiler."""
    return qlearn(setting, seed, runtime={"threads": 1, "compile": "eager"})


def stable_baselines(setting: Setting, seed: int, library: str) -> float:
    """Stable-Baselines3, or SBX, its sibling on JAX, which has the same interface."""
    if library == "sb3":
        from stable_baselines3 import DQN
    else:
        from sbx import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):  # type: ignore[misc]
        """Notes when the timed steps begin."""

        began = 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps == AFTER:
                self.began = time.perf_counter()
            return True

    kwargs = {} if library == "sbx" else {"max_grad_norm": 10.0}
    agent = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=setting.learning_rate,
        buffer_size=setting.capacity,
        learning_starts=1_000,
        batch_size=setting.batch_size,
        train_freq=setting.every,
        gradient_steps=1,
        target_update_interval=setting.target_update_steps,
        gamma=0.99,
        exploration_fraction=1.0,
        exploration_initial_eps=setting.epsilon,
        exploration_final_eps=setting.epsilon,
        policy_kwargs={"net_arch": list(setting.hidden)},
        seed=seed,
        device="cpu" if library == "sb3" else "auto",
        **kwargs,
    )
    clock = Clock()
    agent.learn(setting.steps, callback=clock)
    return (setting.steps - AFTER) / (time.perf_counter() - clock.began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=["qlearn", "qlearn-eager", "sb3", "sbx"])
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = SETTINGS[given.setting]
    match given.library:
        case "qlearn":
            speed = qlearn(setting, given.seed)
        case "qlearn-eager":
            speed = eager(setting, given.seed)
        case library:
            speed = stable_baselines(setting, given.seed, library)
    print(json.dumps({"library": given.library, "setting": given.setting, "steps_per_second": speed}))


if __name__ == "__main__":
    main()
