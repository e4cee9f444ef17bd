"""The pictures of runs: returns per episode and their running mean; several runs as a mean and a band."""

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from qlearn import presets
from qlearn.config import Config, RuntimeConfig
from qlearn.errors import RunError, UsageError
from qlearn.presets import diff
from qlearn.runs import directory, metrics
from qlearn.runs.files import reading, replace_file, writing
from qlearn.runs.progress import threshold
from qlearn.types import Array

COLORS = ("#1f5fa8", "#d1495b", "#2f8f5b", "#b8741a", "#7a4fa3", "#4b5563", "#c04fa0", "#178a94")


def plot(runs: Sequence[Path], out: Path) -> None:
    """Draw runs into `out`, a PNG, SVG or PDF.

    One run is drawn by episode: each return, and the running mean. Several are drawn by environment step: the mean
    over the seeds of their running means, and the range from the lowest seed to the highest.

    Raises:
        UsageError: `out` is of no kind that can be drawn.
        RunError: a run cannot be read or has no episode, or `out` cannot be written.
    """
    from matplotlib.figure import Figure

    if not runs:
        raise UsageError("no run to plot; name at least one run directory")
    kind = out.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(f"{out}: the picture must be a .png, .svg or .pdf file")
    drawn = [(run, directory.read_config(run), episodes(run)) for run in runs]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    if len(drawn) == 1:
        _one(axes, *drawn[0][1:])
    else:
        _many(axes, drawn)
    axes.set_ylabel("return")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")
    data = io.BytesIO()
    figure.savefig(data, format=kind)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, data.getvalue())


def episodes(run: Path) -> Array:
    """A row for each episode: the environment step at its end, its return, the running mean, `[N, 3]`."""
    with reading(run / directory.METRICS):
        rows = [(r["steps"], r["return"], r["mean_return"]) for r in metrics.read(run, "episode")]
        return np.asarray(rows, float).reshape(-1, 3)


def _one(axes: Any, config: Config, table: Array) -> None:
    number = np.arange(1, len(table) + 1)
    axes.plot(number, table[:, 1], color="0.72", linewidth=0.8, label="return of each episode")
    axes.plot(number, table[:, 2], color=COLORS[0], linewidth=2, label=f"mean of the last {config.window}")
    _threshold(axes, config)
    axes.set_xlabel("episode")
    axes.set_title(f"{config.env.id}, {config.preset}, seed {config.seed}", loc="left")


def _many(axes: Any, drawn: Sequence[tuple[Path, Config, Array]]) -> None:
    for run, _, table in drawn:
        if len(table) == 0:
            raise RunError(f"{run} has no episode to draw")
    groups: dict[Config, list[Array]] = defaultdict(list)
    for _, config, table in drawn:
        groups[_alike(config)].append(table)
    envs = sorted({config.env.id for config in groups})
    for color, (config, tables) in zip(cycle(COLORS), groups.items(), strict=False):
        # A band is only true where every seed has a value: from the last first episode to the first last one.
        if max(t[0, 0] for t in tables) >= min(t[-1, 0] for t in tables):
            raise RunError(f"the runs of {_label(config)} have no environment steps in common to draw")
        grid = np.linspace(max(t[0, 0] for t in tables), min(t[-1, 0] for t in tables), 400)
        curves = np.stack([np.interp(grid, t[:, 0], t[:, 2]) for t in tables])
        label = _label(config) if len(envs) == 1 else f"{_label(config)}, {config.env.id}"
        seeds = f", {len(tables)} seeds" if len(tables) > 1 else ""
        axes.plot(grid, curves.mean(0), color=color, linewidth=2, label=f"{label}{seeds}")
        if len(tables) > 1:
            axes.fill_between(grid, curves.min(0), curves.max(0), color=color, alpha=0.18, linewidth=0)
    windows = {config.window for _, config, _ in drawn}
    over = f" of the last {windows.pop()} episodes" if len(windows) == 1 else ""
    band = "; band: lowest to highest seed" if any(len(t) > 1 for t in groups.values()) else ""
    if len(envs) == 1:
        _threshold(axes, drawn[0][1])
    axes.set_xlabel("environment step")
    axes.set_title(f"{', '.join(envs)}: mean return{over}{band}", loc="left", fontsize=10)


def _alike(config: Config) -> Config:
    """What the runs of one curve have in common: all but the seed, and how long and where they ran."""
    ours = Config(runtime=RuntimeConfig())
    return replace(
        config,
        seed=ours.seed,
        steps=ours.steps,
        until_solved=ours.until_solved,
        max_episodes=ours.max_episodes,
        runtime=ours.runtime,
    )


def _label(config: Config) -> str:
    """The preset, and what was changed of it."""
    changed = diff(config, _alike(presets.get(config.preset, config.env.id)))
    return ", ".join([config.preset, *(f"{name} {value}" for name, (value, _) in changed.items())])


def _threshold(axes: Any, config: Config) -> None:
    """A line where the environment counts as solved, where that is known."""
    goal = threshold(config)
    if goal is not None:
        axes.axhline(goal, color="0.35", linewidth=1, linestyle="--", label=f"solved at {goal:g}")
