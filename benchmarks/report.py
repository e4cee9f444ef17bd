"""The tables of the README and of docs/benchmarks.md, and the presets' expected scores, made of benchmarks/results.

python benchmarks/report.py           write them
python benchmarks/report.py --check   say whether they are as they would be written
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from qlearn.runs.results import aggregate as aggregate_rows
from qlearn.scores import mean_interval, text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ORDER = (
    "intro-cartpole",
    "dqn-cartpole-solved",
    "dqn-cartpole",
    "dqn-acrobot",
    "dqn-mountaincar",
    "dqn-lunarlander",
)


SUITES = ("family", "published", "tables")  # of presets as they are shipped, where a row has no label
QUARTER = "lunarlander"  # of all presets on a smaller budget


ABLATIONS = {
    "dqn-cartpole": "`dqn` as it is: three-step returns, target every 500 steps, falling learning rate",
    "ablate-decay": "constant learning rate",
    "ablate-n-step": "one-step returns",
    "ablate-n-step-fast-target": "one-step returns, target every 50 steps",
}


# +- is over seeds (SB3-contrib: 5; CleanRL: 3, training returns after 500,000 steps), or episodes of one run (rl-zoo).
PUBLISHED = {
    ("CartPole-v1", "qr"): "SB3-contrib: 386 +- 64; rl-zoo: 500 +- 0",
    ("CartPole-v1", "c51"): "CleanRL: 481.2 +- 20.5",
    ("CartPole-v1", "pqn"): "CleanRL: 495.1 +- 6.9",
    ("Acrobot-v1", "qr quarter"): "SB3-contrib: -73 +- 2; rl-zoo: -69.1 +- 10.0",
    ("Acrobot-v1", "c51 quarter"): "CleanRL: -87.7 +- 5.5",
    ("Acrobot-v1", "pqn"): "CleanRL: -95.6 +- 5.7",
    ("MountainCar-v0", "qr"): "SB3-contrib: -111 +- 4; rl-zoo: -106.0 +- 15.5",
    ("LunarLander-v3", "qr"): "on v2, SB3-contrib: 168 +- 39; rl-zoo: 70.2 +- 225.5",
    ("LunarLander-v3", "dqn"): "on v2, SB3: 195 +- 28; rl-zoo: 154.4 +- 79.2",
}


def results(names: Iterable[str] = ORDER) -> list[dict[str, Any]]:
    """The results that there are, in the order of the tables."""
    files = [RESULTS / f"learning-{name}.json" for name in names]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def score(aggregate: dict[str, Any]) -> str:
    """Mean over the seeds and its interval: `-75.3 (-77.0 to -73.6)`."""
    return (
        f"{aggregate['evaluation_mean_over_seeds']:.1f} ({aggregate['ci95_low']:.1f} to {aggregate['ci95_high']:.1f})"
    )


def learning_table() -> str:
    """One row a claim."""
    lines = [
        "| environment, preset | steps | seeds | greedy evaluation: mean of the seeds (95 % interval), worst seed "
        "| solved in training | seconds a run (median) | beside it |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results():
        total, rows = result["aggregate"], result["rows"]
        steps = sorted(row["summary"]["steps"] for row in rows)
        span = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}"
        solved = f"{total['solved']} of {total['seeds']}"
        if total["solved"]:
            solved += f", median {total['median_solved_at_episode']:,.0f} episodes"
        lines.append(
            f"| {result['env']}, `{result['preset']}` | {span} | {total['seeds']} | {score(total)}, "
            f"worst {total['evaluation_worst_seed']:.1f} | {solved} | {total['median_wall_seconds']:.0f} "
            f"| {result['published']} |"
        )
    return "\n".join(lines)


def ablation_table() -> str:
    """What each setting of `dqn` is there for."""
    lines = [
        "| CartPole-v1, 50,000 steps | greedy evaluation: mean of the seeds (95 % interval) | each seed "
        "| largest Q of the last minibatch, each seed |",
        "|---|---|---|---|",
    ]
    for result in results(ABLATIONS):
        rows = result["rows"]
        each = ", ".join(f"{row['evaluation']['mean']:.0f}" for row in rows)
        largest = ", ".join(f"{row['last_train_line']['q_max']:,.0f}" for row in rows if "last_train_line" in row)
        lines.append(f"| {ABLATIONS[result['claim']]} | {score(result['aggregate'])} | {each} | {largest or '-'} |")
    return "\n".join(lines)


def suite(name: str) -> list[dict[str, Any]]:
    """The rows of a suite's results, those that there are."""
    file = RESULTS / f"suite-{name}.json"
    return json.loads(file.read_text())["rows"] if file.exists() else []


def suite_table(name: str) -> str:
    """One row for each environment and preset of a suite, the best first."""
    lines = [
        "| environment | preset | seeds | steps | IQM of the seeds (95 % bootstrap interval) | mean (95 % interval) "
        "| worst seed | last 100 training episodes, mean of the seeds | published |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = suite(name)
    for line in aggregate_rows([{**row, "score": row["evaluation"]["mean"]} for row in rows]):
        of = [row for row in rows if (row["env"], row["label"]) == (line["env"], line["label"])]
        steps = max(row["summary"]["steps"] for row in of)
        band = f" ({text(line['ci95_low'])} to {text(line['ci95_high'])})" if len(of) > 1 else ""
        lines.append(
            f"| {line['env']} | `{line['label']}` | {line['seeds']} | {steps:,} "
            f"| {text(line['iqm'])}{band} "
            f"| {interval([row['evaluation']['mean'] for row in of])} "
            f"| {text(line['worst_seed'])} | {text(float(np.mean([row['summary']['mean_return'] for row in of])))} "
            f"| {PUBLISHED.get((line['env'], line['label']), '')} |"
        )
    return "\n".join(lines)


def optimum_table() -> str:
    """What the best policies score, where dynamic programming tells."""
    lines = ["| environment | steps | best return |", "|---|---|---|"]
    for env, found in json.loads((RESULTS / "optimum.json").read_text()).items():
        lines.append(f"| {env} | {found['steps']} | {found['best_return']:.3f} |")
    return "\n".join(lines)


SPEED = {
    "tutorial": "16-16-16, batch 32, an update every step",
    "cleanrl": "120-84, batch 128, an update every 10 steps",
}


def speed_table() -> str:
    """Steps per second beside the peers', and how many times as many they are."""
    lines = [
        "| CartPole-v1 | `qlearn` | without a compiler | SB3 | SBX | times SB3 (95 % interval) | times SBX |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, what in SPEED.items():
        if result := measured(f"cpu-{name}"):
            speeds = [
                f"{np.median(result['steps_per_second'][k]):,.0f}" for k in ("qlearn", "qlearn-eager", "sb3", "sbx")
            ]
            times = [times_told(result["ratios"][k]) for k in ("sb3", "sbx")]
            lines.append(f"| {what} | {' | '.join([*speeds, *times])} |")
    return "\n".join(lines)


def measured(name: str) -> dict[str, Any]:
    """A result of benchmarks/cpu; nothing where there is none."""
    file = RESULTS / f"{name}.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return result


def times_told(times: dict[str, float], digits: int = 1) -> str:
    """A ratio and its interval."""
    ratio, low, high = (f"{times[name]:.{digits}f}" for name in ("ratio", "ci95_low", "ci95_high"))
    return f"{ratio} ({low} to {high})"


def profile_table() -> str:
    """Microseconds of a step, by what they go into."""
    result = measured("cpu-profile").get("microseconds_a_step", {})
    parts = list(next(iter(result.values()), {}))
    lines = [f"| microseconds of a step | {' | '.join(parts)} |", f"|---|{'---|' * len(parts)}"]
    for setting, taken in result.items():
        lines.append(f"| {SPEED[setting]} | {' | '.join(f'{taken[part]:.0f}' for part in parts)} |")
    return "\n".join(lines)


def solve_table() -> str:
    """Seconds from the start of a process to a solved agent."""
    lines = [
        "| | `qlearn`, median seconds | solved | nothing compiled | SB3, RL Zoo's settings | solved | times sooner |",
        "|---|---|---|---|---|---|---|",
    ]
    for env in ("CartPole-v1", "LunarLander-v3"):
        if result := measured(f"cpu-solve-{env}"):
            medians, solved = result["median_seconds"], result["solved"]
            told = {name: "-" if (s := medians.get(name)) is None else f"{s:.1f}" for name in ("qlearn-cold", "sb3")}
            told["sb3"] = told["sb3"].replace("-", "more than half never")
            times = "-" if result["ratio_of_medians"] is None else f"{result['ratio_of_medians']:.1f}"
            cells = (
                f"{medians['qlearn']:.1f}",
                solved["qlearn"],
                told["qlearn-cold"],
                told["sb3"],
                solved["sb3"],
                times,
            )
            lines.append(f"| {env} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seeds_table() -> str:
    """What ten seeds cost beside one."""
    lines = [
        "| CartPole-v1, 30,000 steps | one seed | ten, one process | times | two processes of five | times |",
        "|---|---|---|---|---|---|",
    ]
    result = measured("cpu-seeds")
    for setting, taken in result.get("seconds", {}).items():
        one, ten, two = (float(np.median(taken[way])) for way in ("one", "ten", "two of five"))
        lines.append(f"| {setting} | {one:.1f} s | {ten:.1f} s | {ten / one:.1f} | {two:.1f} s | {two / one:.1f} |")
    return "\n".join(lines)


def updates_table() -> str:
    """Microseconds of an update."""
    lines = ["| network, compiled | `dqn` | `rainbow` | times (95 % interval) |", "|---|---|---|---|"]
    for shape, told in measured("cpu-updates").get("median_microseconds", {}).items():
        times = times_told(told["rainbow_over_dqn"])
        lines.append(f"| {shape} | {told['dqn']:.0f} us | {told['rainbow']:.0f} us | {times} |")
    return "\n".join(lines)


def per_table() -> str:
    """Steps per second with a full memory of a million rows."""
    lines = [
        "| 1,000,000 rows | uniform, steps/s | prioritised, steps/s | prioritised / uniform (95 % interval) |",
        "|---|---|---|---|",
    ]
    result = measured("cpu-per")
    for library, times in result.get("prioritized_over_uniform", {}).items():
        speeds = [f"{np.median(result['steps_per_second'][library][kind]):,.0f}" for kind in ("uniform", "prioritized")]
        told = times_told(times, 2)
        lines.append(f"| {library} | {' | '.join(speeds)} | {told} |")
    return "\n".join(lines)


ATARI = {
    "pong": (
        "Pong, from pixels",
        "DQN (Dopamine, sticky actions, training returns): -13.7 after 1,000,000 steps, 1.1 after 2,500,000",
    ),
    "breakout": ("Breakout, from pixels", "DQN (Dopamine, sticky actions, training returns): 7.1 after 500,000 steps"),
    "breakout-ram": ("Breakout, from RAM", ""),
}
THROUGHPUT = {
    "qlearn": "`qlearn`: compiled, bfloat16",
    "qlearn-compress": "the same, frames compressed",
    "qlearn-fp32": "compiled, float32",
    "qlearn-eager-fp32": "eager, float32",
    "sb3": "Stable-Baselines3",
}
MEMORY = {
    "plain": "`qlearn`",
    "compressed": "`qlearn`, compressed",
    "sb3": "Stable-Baselines3",
    "sb3-optimized": "the same, `optimize_memory_usage`",
}


def atari_table() -> str:
    """What was learned of Atari."""
    lines = [
        "| game | steps | 30 full games a seed, epsilon 0.05: mean (95 % interval) | each seed | epsilon 0.001 "
        "| random | minutes a run | beside it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (what, published) in ATARI.items():
        if result := measured(f"atari-{name}"):
            rows = result["rows"]
            scores = [row["evaluation"]["mean"] for row in rows]
            low = ", ".join(f"{row['evaluation_epsilon_0.001']:.1f}" for row in rows)
            minutes = np.median([row["wall_seconds"] for row in rows]) / 60
            each = ", ".join(f"{score:.1f}" for score in scores)
            cells = (
                what,
                f"{rows[0]['summary']['steps']:,}",
                interval(scores),
                each,
                low,
                f"{result['random_player']:.1f}",
                f"{minutes:.0f}",
                published,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def throughput_table() -> str:
    """Agent steps a second from pixels."""
    lines = [
        "| Pong, Nature's settings | steps/s, median | `qlearn` is so many times as fast (95 % interval) |",
        "|---|---|---|",
    ]
    result = measured("atari-throughput")
    for way, what in THROUGHPUT.items() if result else ():
        times = result["ratios"].get(way)
        told = times_told(times, 2) if times else "-"
        lines.append(f"| {what} | {result['median'][way]:.0f} | {told} |")
    return "\n".join(lines)


def memory_table() -> str:
    """Gigabytes of a replay memory as it fills."""
    result = measured("atari-memory").get("gigabytes_by_steps", {})
    lines = ["| memory of 1,000,000 steps | game | GB at 100,000 steps | GB at the end, steps |", "|---|---|---|---|"]
    for game, ways in result.items():
        for way, curve in ways.items():
            early = next((f"{gigabytes:.2f}" for steps, gigabytes in curve if steps == 100_000), "-")
            end = f"{curve[-1][1]:.2f}, {curve[-1][0]:,}" if curve else "not given by a machine of 24 GB"
            lines.append(f"| {MEMORY[way]} | {game} | {early} | {end} |")
    return "\n".join(lines)


def durability_cost() -> str:
    """What checkpoints cost."""
    result = measured("durability-cost")
    lines = ["| a checkpoint of Nature's network and replay memory | seconds | MB written | MB on the disk |"]
    lines.append("|---|---|---|---|")
    for row in result.get("filling", ()):
        if row["steps"] in (10_000, 100_000, 500_000, 1_000_000, 1_050_000):
            told = f"{row['seconds']:.2f} | {row['mb_written']:,.0f} | {row['mb_on_disk']:,.0f}"
            lines.append(f"| after {row['steps']:,} steps of Pong, 10,000 since the last one | {told} |")
    lines += ["", "| a run with checkpoints beside one without | steps/s | without | ratio (95 % interval) |"]
    lines.append("|---|---|---|---|")
    for name, ratio in result.get("ratios", {}).items():
        both = (f"{float(np.median(result['steps_per_second'][name][way])):,.0f}" for way in ("with", "without"))
        lines.append(f"| {name} | {' | '.join(both)} | {times_told(ratio, 2)} |")
    return "\n".join(lines)


def durability() -> str:
    """What runs survived."""
    lines = ["| | | outcome |", "|---|---|---|"]
    kills, damage, failing = (measured(f"durability-{name}") for name in ("kills", "damage", "failing"))
    for name, told in kills.get("survived", {}).items():
        what = f"{told['kills']} SIGKILLs, {told['in_a_save']} of them in a save"
        same = f"{told['equal']} of {told['runs']} runs equal the one that was not killed, bit for bit"
        lines.append(f"| {name} | {what} | {same} |")
    if damage:
        how = ", ".join(f"{name} {count}" for name, count in damage["survived"].items())
        lines.append(f"| files damaged | {damage['count']:,} ({how}) | none was read without a word |")
    for env_id, what in {"Failing-v0": "fails once in 500 steps", "CartPole-v1": "does not fail"}.items():
        rows = [row for row in failing.get("rows", ()) if row["env_id"] == env_id]
        if rows:
            score = interval([row["evaluation"] for row in rows])
            restarts = f"made anew {' / '.join(str(row['restarts']) for row in rows)} times"
            lines.append(f"| CartPole-v1 that {what} | 50,000 steps, {count(len(rows))}, {restarts} | scores {score} |")
    return "\n".join(lines)


def interval(scores: list[float]) -> str:
    """Mean of the seeds and its Student's t interval."""
    if len(scores) == 1:
        return text(scores[0])
    return "{} ({} to {})".format(*map(text, (float(np.mean(scores)), *mean_interval(np.array(scores)))))


def count(seeds: int) -> str:
    """`5 seeds`, `1 seed`."""
    return f"{seeds} seed{'s' * (seeds > 1)}"


def expected() -> str:
    """The module with what each preset is expected to score, environment by environment."""
    found: dict[str, dict[str, str]] = {}
    for result in results():
        if not result["claim"].endswith("-solved"):
            told = f"{score(result['aggregate'])}, {count(result['aggregate']['seeds'])}"
            found.setdefault(result["preset"], {})[result["env"]] = told
    for name in SUITES:
        for row in suite(name):
            if row["label"] == row["preset"]:
                same = [r for r in suite(name) if (r["env"], r["label"]) == (row["env"], row["label"])]
                told = f"{interval([r['evaluation']['mean'] for r in same])}, {count(len(same))}"
                found.setdefault(row["preset"], {}).setdefault(row["env"], told)
    lines = [
        '"""Greedy evaluation: mean of the seeds and its 95 % interval. Written by benchmarks/report.py."""',
        "",
        "from collections.abc import Mapping",
        "",
        "EXPECTED: Mapping[str, Mapping[str, str]] = {",
    ]
    for preset, scores in sorted(found.items()):
        lines.append(f'    "{preset}": {{')
        lines += [f'        "{env}": "{text}",' for env, text in sorted(scores.items())]
        lines.append("    },")
    return "\n".join([*lines, "}", ""])


def pages() -> dict[Path, str]:
    """Each page with its tables renewed."""
    tables = {"learning": learning_table(), "ablation": ablation_table(), "optimum": optimum_table()}
    tables |= {"cpu": speed_table(), "profile": profile_table()}
    tables |= {"solve": solve_table(), "seeds": seeds_table(), "updates": updates_table(), "per": per_table()}
    tables |= {"atari": atari_table(), "throughput": throughput_table(), "memory": memory_table()}
    tables |= {"durability-cost": durability_cost(), "durability": durability()}
    tables |= {name: suite_table(name) for name in (*SUITES, QUARTER)}

    def table(match: re.Match[str]) -> str:
        mark = f"<!-- {match[1]} -->"
        return f"{mark}\n{tables[match[1]]}\n{mark}"

    pages = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("benchmarks", "atari", "durability"))]
    renewed = {p: re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- \1 -->", table, p.read_text(), flags=re.S) for p in pages}
    return renewed | {ROOT / "src" / "qlearn" / "presets" / "expected.py": expected()}


def main() -> int:
    stale = [page for page, text in pages().items() if page.read_text() != text]
    if "--check" not in sys.argv:
        for page, text in pages().items():
            page.write_text(text)
        return 0
    print("\n".join(f"{page.relative_to(ROOT)} is not what the results say" for page in stale))
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
