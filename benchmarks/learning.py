"""Does it learn? Trains each seed of a claim in a process of its own and evaluates it; one JSON file a claim.

    python benchmarks/learning.py CLAIM ... [--jobs 2] [--runs DIR]

Results go to benchmarks/results/learning-CLAIM.json as they come. Seeds that are there are not run again, unless
--fresh is given. Each row says where and when it was measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Claim:
    """What is trained, how often, and what is known of it elsewhere."""

    env: str
    preset: str
    seeds: int
    published: str = ""
    changes: dict[str, Any] = field(default_factory=dict)  # to the preset


CLAIMS = {
    "intro-cartpole": Claim("CartPole-v0", "intro", 10, "the tutorial: solved in 1,396 episodes, one run"),
    "dqn-cartpole": Claim(
        "CartPole-v1",
        "dqn",
        10,
        "SB3: 500 +- 0 over 5 seeds; 50,000 steps",
        {"steps": 50_000, "until_solved": False},
    ),
    "dqn-cartpole-solved": Claim("CartPole-v1", "dqn", 5, "the README's first command: until solved"),
    "dqn-acrobot": Claim("Acrobot-v1", "dqn", 5, "SB3: -74 +- 2 over 5 seeds; rl-zoo: -76.6, one run; 100,000 steps"),
    "dqn-mountaincar": Claim(
        "MountainCar-v0", "dqn", 5, "SB3: -107 +- 4 over 5 seeds; rl-zoo: -100.8, one run; 120,000 steps"
    ),
    "dqn-lunarlander": Claim(
        "LunarLander-v3",
        "dqn",
        5,
        "on LunarLander-v2, SB3: 195 +- 28 over 5 seeds; rl-zoo: 154.4, one run; 100,000 steps",
    ),
    "ablate-n-step": Claim(
        "CartPole-v1", "dqn", 3, "", {"steps": 50_000, "until_solved": False, "replay": {"n_step": 1}}
    ),
    "ablate-n-step-fast-target": Claim(
        "CartPole-v1",
        "dqn",
        3,
        "",
        {
            "steps": 50_000,
            "until_solved": False,
            "replay": {"n_step": 1},
            "learner": {"target_update_steps": 50},
        },
    ),
    "ablate-decay": Claim(
        "CartPole-v1",
        "dqn",
        3,
        "",
        {
            "steps": 50_000,
            "until_solved": False,
            "optimizer": {"end_learning_rate": None, "decay_steps": 0},
        },
    ),
}


def one_seed(name: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train and evaluate one seed; its row of the results."""
    import qlearn
    from qlearn.runs import metrics
    from qlearn.runs.results import machine

    claim = CLAIMS[name]
    run = qlearn.train(
        claim.env,
        preset=claim.preset,
        seed=seed,
        run_dir=runs / f"{name}-{seed}",
        progress=False,
        **claim.changes,
    )
    evaluation = qlearn.evaluate(run.path, episodes=100).summary()
    curve = [(e["steps"], e["episode"], round(e["mean_return"], 2)) for e in metrics.read(run.path, "episode")]
    last = list(metrics.read(run.path, "train"))[-1]
    points = np.unique(np.linspace(0, len(curve) - 1, 200).astype(int))
    return {
        "seed": seed,
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "summary": run.summary,
        "evaluation": {k: v for k, v in evaluation.items() if k != "returns"},
        "last_train_line": {k: last[k] for k in ("loss", "grad_norm", "td_error", "q_mean", "q_max")},
        "curve": [curve[i] for i in points],
    }


def aggregate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers over the seeds."""
    from qlearn.scores import mean_interval

    means = np.array([row["evaluation"]["mean"] for row in rows])
    solved = [row["summary"]["solved_at_episode"] for row in rows if row["summary"]["solved"]]
    low, high = mean_interval(means)
    return {
        "seeds": len(rows),
        "evaluation_mean_over_seeds": float(means.mean()),
        "ci95_low": low,
        "ci95_high": high,
        "evaluation_worst_seed": float(means.min()),
        "evaluation_best_seed": float(means.max()),
        "solved": len(solved),
        "median_solved_at_episode": float(np.median(solved)) if solved else None,
        "median_wall_seconds": float(np.median([row["summary"]["wall_seconds"] for row in rows])),
    }


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write the claim's file, whole."""
    rows = sorted(rows, key=lambda row: int(row["seed"]))
    result = {
        "claim": name,
        **asdict(CLAIMS[name]),
        "command": f"python benchmarks/learning.py {name} --fresh",
        "protocol": "greedy policy of the last checkpoint, 100 episodes a seed, reset seeds that training did not use",
        "timing": "seconds are rough where a row's load_average is not there or above 1.5: other work ran beside",
        "aggregate": aggregate(rows),
        "rows": rows,
    }
    target = RESULTS / f"learning-{name}.json"
    target.with_suffix(".tmp").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".tmp").replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="+", choices=CLAIMS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, help="keep the runs here")
    parser.add_argument("--fresh", action="store_true", help="run every seed again")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is not None:  # a worker
        print(json.dumps(one_seed(arguments.claims[0], arguments.seed, arguments.runs)))
        return

    RESULTS.mkdir(exist_ok=True)
    folder = arguments.runs or Path(tempfile.mkdtemp(prefix="qlearn-benchmarks-"))
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.claims:
        path = RESULTS / f"learning-{name}.json"
        rows[name] = json.loads(path.read_text())["rows"] if path.exists() and not arguments.fresh else []

    def work(name: str, seed: int) -> tuple[str, dict[str, Any]]:
        command = [sys.executable, __file__, name, "--seed", str(seed), "--runs", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        return name, json.loads(output.splitlines()[-1])

    with ThreadPoolExecutor(arguments.jobs) as pool:
        wanted = [
            (name, seed)
            for name in arguments.claims
            for seed in range(1, CLAIMS[name].seeds + 1)
            if all(row["seed"] != seed for row in rows[name])
        ]
        for future in as_completed([pool.submit(work, *item) for item in wanted]):
            name, row = future.result()
            rows[name].append(row)
            write(name, rows[name])
            print(
                name, row["seed"], row["summary"]["solved_at_episode"], f"{row['evaluation']['mean']:.1f}", flush=True
            )


if __name__ == "__main__":
    main()
