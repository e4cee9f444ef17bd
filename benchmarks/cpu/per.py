"""What prioritised replay costs: `python benchmarks/cpu/per.py [--repeats 3 --turns 5]`.

Steps per second of the whole loop with a memory of a million steps that is full, prioritised beside uniform, for qlearn
and for Tianshou; and what a step takes longer. Tianshou (2.0 or newer) wants an older pandas than ours, and so an
environment of its own. A process of replays.py holds both loops of a library, which take turns; processes of the
libraries take turns too. A ratio is of two neighbouring turns. The result is benchmarks/results/cpu-per.json.
"""

import argparse
import os
from importlib.metadata import version

import numpy as np
from compare import ratio, told, write
from replays import KINDS

LIBRARIES = ("qlearn", "tianshou")


def measure(library: str, seed: int, turns: int, steps: int) -> dict[str, list[float]]:
    """Steps per second of each turn, by the kind of replay."""
    words = ("--seed", seed, "--turns", turns, "--steps", steps)
    speeds = told("replays.py", library, *words)
    return {kind: speeds[kind] for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes of each library")
    parser.add_argument("--turns", type=int, default=5, help="of each kind in a process")
    parser.add_argument("--steps", type=int, default=4_000, help="of each turn")
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    given = parser.parse_args()
    if "tianshou" in given.libraries and int(version("tianshou").split(".")[0]) < 2:
        parser.error(f"Tianshou is {version('tianshou')}; pip install 'tianshou>=2'")
    speeds: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in given.libraries}
    loads = []
    for repeat in range(given.repeats):
        for library in given.libraries:
            loads.append(os.getloadavg()[0])
            for kind, measured in measure(library, repeat, given.turns, given.steps).items():
                speeds[library][kind] += measured
            median = {kind: round(float(np.median(of)), 1) for kind, of in speeds[library].items()}
            print(library, median, flush=True)
            known = {name: of for name, of in speeds.items() if of["uniform"]}
            more = {
                name: 1e6 / np.array(of["prioritized"]) - 1e6 / np.array(of["uniform"]) for name, of in known.items()
            }
            write(
                "cpu-per",
                f"--repeats {given.repeats} --turns {given.turns} --steps {given.steps}",
                loads,
                {name: name for name in given.libraries},
                steps_per_second=speeds,
                prioritized_over_uniform={name: ratio(of["prioritized"], of["uniform"]) for name, of in known.items()},
                extra_microseconds_per_step={name: round(float(np.median(of)), 2) for name, of in more.items()},
            )


if __name__ == "__main__":
    main()
