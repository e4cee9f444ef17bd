"""What the doctor finds: `python benchmarks/doctor/examine.py [--seeds 3]`.

Each broken set-up of setups.py is trained and examined, and must get the verdict that it deserves; each healthy one
must get none. Both are counted, and every verdict is kept, in benchmarks/results/doctor.json, written as it grows.
Before, the environments themselves are examined, with the five probes. `--only WORD` takes set-ups of that name.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import qlearn
from qlearn.doctor import Report, examine_env, examine_run

sys.path.insert(0, str(Path(__file__).parent.parent / "cpu"))
from compare import write
from setups import BROKEN, HEALTHY, MENDED, Setup, register

ENVS = {  # and what a random policy's play deserves
    "CartPole-v1": "",
    "Acrobot-v1": "",
    "LunarLander-v3": "",
    "FrozenLake-v1": "",
    "Taxi-v4": "",
    "MinAtar/Breakout-v1": "",
    "Catch-v0": "",
    "UnscaledCatch-v0": "scale",
    "UnpaidCartPole-v0": "reward",
}


def told(report: Report) -> list[dict[str, Any]]:
    """The verdicts, as they are kept."""
    return [{"rule": v.rule, "sentence": v.sentence, "number": v.number} for v in report.verdicts]


def trained(setup: Setup, seed: int, kind: str) -> dict[str, Any]:
    """Train and examine; a row."""
    with tempfile.TemporaryDirectory() as folder:
        run = qlearn.train(
            setup.env, preset=setup.preset, run_dir=Path(folder) / "run", progress=False, seed=seed, **setup.changes
        )
        start = time.perf_counter()
        report = examine_run(run.path)
    verdicts = told(report)
    rules = {v["rule"] for v in verdicts}
    return {
        "setup": setup.name,
        "kind": kind,
        "env": setup.env,
        "preset": setup.preset,
        "seed": seed,
        "steps": run.summary["steps"],
        "mean_return": run.summary["mean_return"],
        "deserves": setup.deserves,
        "right": setup.deserves in rules if setup.deserves else not rules,
        "seconds": round(time.perf_counter() - start, 2),
        "judged": sum(not line.startswith("not judged") for line in report.checked) + len(verdicts),
        "verdicts": verdicts,
    }


def looked_at(env: str, deserves: str) -> dict[str, Any]:
    """Examine an environment, and a row."""
    start = time.perf_counter()
    verdicts = told(examine_env(env))
    rules = {v["rule"] for v in verdicts}
    return {
        "env": env,
        "deserves": deserves,
        "right": rules == ({deserves} if deserves else set()),
        "seconds": round(time.perf_counter() - start, 2),
        "verdicts": verdicts,
    }


def counts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Right of all, by kind."""
    kinds = dict.fromkeys(row["kind"] for row in rows)
    of = {kind: [row["right"] for row in rows if row["kind"] == kind] for kind in kinds}
    return {kind: f"{sum(right)} of {len(right)}" for kind, right in of.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="of each broken set-up and its twin; of others one")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    register()
    envs, rows, loads = list[dict[str, Any]](), list[dict[str, Any]](), list[float]()
    for env, deserves in ENVS.items():
        if given.only in env:
            envs.append(looked_at(env, deserves))
            print("environment", env, "right" if envs[-1]["right"] else envs[-1], flush=True)
    seeds = range(given.seeds)
    plan = [("healthy", setup, 0) for setup in HEALTHY]
    plan += [("broken", setup, seed) for setup in BROKEN for seed in seeds]
    plan += [("mended", setup, seed) for setup in MENDED for seed in seeds]
    for kind, setup, seed in plan:
        if given.only not in setup.name:
            continue
        loads.append(os.getloadavg()[0])
        rows.append(row := trained(setup, seed, kind))
        rules = ", ".join(v["rule"] for v in row["verdicts"]) or "nothing"
        print(kind, setup.name, seed, "right:" if row["right"] else "WRONG:", rules, row["mean_return"], flush=True)
        if not given.only:
            write(
                "doctor",
                f"--seeds {given.seeds}",
                loads,
                {"qlearn": "qlearn"},
                folder="doctor",
                right={"environments": f"{sum(e['right'] for e in envs)} of {len(envs)}", **counts(rows)},
                environments=envs,
                runs=rows,
            )


if __name__ == "__main__":
    main()
