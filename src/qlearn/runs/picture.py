"""The pictures of runs: one by episode; several as learning curves and final scores, a panel each per environment."""

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from qlearn import presets
from qlearn.config import Config, RuntimeConfig, override
from qlearn.errors import RunError, UsageError
from qlearn.presets import diff
from qlearn.runs import directory, metrics, results
from qlearn.runs.files import reading, replace_file, writing
from qlearn.runs.progress import threshold
from qlearn.scores import bootstrap_interval, iqm
from qlearn.types import Array

# The colours of Okabe and Ito (2008), which most eyes tell apart, without the yellow that white paper swallows. Where
# they do not suffice they come again, dashed and with an open mark.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#3d3d3d")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
GRID, RESAMPLES = 200, 1_000  # points of a curve, and resamples of its band
ROW = 0.27  # inches of a line of scores

Look = tuple[str, Any, str]  # colour, dashes, filling of a mark


@dataclass(frozen=True)
class _Drawn:
    """A run to be drawn: its curve, what it scored in the end, and what that is."""

    label: str
    config: Config
    curve: Array  # [N, 2]: environment step, running mean of the returns
    score: float
    measure: str


def plot(runs: Sequence[Path], out: Path) -> None:
    """Draw runs, or all that a suite has done, into `out`, a PNG, SVG or PDF.

    One run is drawn by episode: each return, and the running mean. Several are drawn by environment step, a row of two
    panels for each environment: on the left the interquartile mean over the seeds of their running means, with its
    95 % bootstrap interval; on the right what each came to, with the same interval and a dot for each seed.

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
    suites = [run for run in runs if results.is_suite(run)]
    if len(runs) == 1 and not suites:
        figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
        axes = figure.subplots()
        _one(axes, directory.read_config(runs[0]), episodes(runs[0]))
        _tidy(axes)
        axes.set_ylabel("return")
        axes.legend(frameon=False, loc="best")
    else:
        figure = _many([drawn for run in runs for drawn in (_suite(run) if run in suites else [_run(run)])])
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


def _run(path: Path) -> _Drawn:
    config, table = directory.read_config(path), episodes(path)
    if len(table) == 0:
        raise RunError(f"{path} has no episode to draw")
    measure = f"mean return of the last {config.window} episodes"
    return _Drawn(_label(_alike(config)), config, table[:, [0, 2]], table[-1, 2], measure)


def _suite(path: Path) -> list[_Drawn]:
    """The runs of a suite that have their evaluation, from its results alone."""
    drawn = []
    for row in results.read(path):
        with reading(f"the row of {row['run']} in {path}"):
            config, curve = override(Config(), row["config"]), np.asarray(row["curve"], float).reshape(-1, 2)
        if len(curve) == 0:
            raise RunError(f"{row['run']} of {path} has no episode to draw")
        measure = f"greedy evaluation, {row['evaluation']['episodes']} episodes a seed"
        drawn.append(_Drawn(row["label"], config, curve, row["score"], measure))
    if not drawn:
        raise RunError(f"{path} has no run that is done yet")
    return drawn


def _many(drawn: Sequence[_Drawn]) -> Any:
    """The figure of several runs: a row for each environment, a look for each label."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    drawn = _told_apart(drawn)
    groups: dict[str, dict[str, list[_Drawn]]] = defaultdict(lambda: defaultdict(list))
    for run in drawn:
        groups[run.config.env.id][run.label].append(run)
    labels = list(dict.fromkeys(run.label for run in drawn))
    count = len(COLORS)
    looks = {
        label: (color, DASHES[n // count % len(DASHES)], "white" if n // count % 2 else color)
        for n, (label, color) in enumerate((label, COLORS[n % count]) for n, label in enumerate(labels))
    }
    heights = [
        max(3.4, 1.3 + ROW * len(of) * max(1 + _lines(name).count("\n") for name in of)) for of in groups.values()
    ]
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.02, hspace=0.04)
    figure = Figure(figsize=(13, sum(heights) + 0.4), dpi=120, layout=layout)
    panels = figure.subplots(
        len(groups), 2, squeeze=False, gridspec_kw={"width_ratios": [1.45, 1], "height_ratios": heights}
    )
    for (left, right), (env, of) in zip(panels, groups.items(), strict=True):
        scores = {label: np.array([run.score for run in runs]) for label, runs in of.items()}
        order = sorted(scores, key=lambda label: (-float(iqm(scores[label])), label))
        goal = threshold(next(iter(of.values()))[0].config)
        _curves(left, [(looks[label], of[label]) for label in reversed(order)], goal)
        left.set_title(env, loc="left", fontweight="bold")
        _scores(right, {label: scores[label] for label in order}, looks, goal)
        measures = {run.measure for runs in of.values() for run in runs}
        right.set_xlabel("; ".join(sorted(measures)))
    band = any(len(runs) > 1 for of in groups.values() for runs in of.values())
    figure.suptitle(
        "Interquartile mean over the seeds, with its 95 % bootstrap interval" if band else "One seed each",
        x=0.012, ha="left", fontsize=10, color="0.3",
    )  # fmt: skip
    return figure


def _told_apart(drawn: Sequence[_Drawn]) -> list[_Drawn]:
    """Runs of one label that are no seeds of one thing get what was changed, or what is measured, into their labels."""
    ways: tuple[Callable[[_Drawn], str], ...] = (
        lambda run: _label(_alike(run.config)),
        lambda run: f"{run.label}, {run.measure}",
    )
    for longer in ways:
        meant: dict[tuple[str, str], set[tuple[Config, str]]] = defaultdict(set)
        for run in drawn:
            meant[run.config.env.id, run.label].add((_alike(run.config), run.measure))
        drawn = [
            replace(run, label=longer(run)) if len(meant[run.config.env.id, run.label]) > 1 else run for run in drawn
        ]
    return list(drawn)


def _curves(axes: Any, groups: Sequence[tuple[Look, list[_Drawn]]], goal: float | None) -> None:
    """The learning curves of an environment, the last group on top."""
    alpha = 0.18 if len(groups) <= 4 else 0.1
    ends, left_out = set[float](), list[str]()
    for (color, dashes, _), runs in groups:
        tables = [run.curve for run in runs]
        # A band is only true where every seed has a value: from the last first episode to the first last one.
        low, high = max(t[0, 0] for t in tables), min(t[-1, 0] for t in tables)
        if low >= high and len(tables) > 1:
            left_out.append(runs[0].label)
            continue
        ends |= {round(t[-1, 0] / high, 1) for t in tables}
        grid = np.linspace(low, high, GRID)
        curves = np.stack([np.interp(grid, t[:, 0], t[:, 1]) for t in tables])
        axes.plot(grid, iqm(curves), color=color, linestyle=dashes, linewidth=1.8)
        if len(tables) > 1:
            band = bootstrap_interval([curves], resamples=RESAMPLES)
            axes.fill_between(grid, *band, color=color, alpha=alpha, linewidth=0)
    if _near(goal, axes.get_ylim()):
        axes.axhline(goal, color="0.45", linewidth=1, linestyle=":")
    windows = {run.config.window for _, runs in groups for run in runs}
    over = f" of the last {windows.pop()} episodes" if len(windows) == 1 else ""
    axes.set_ylabel(f"mean return{over}")
    notes = ["a curve ends where its shortest run does"] if len(ends) > 1 else []
    if left_out:
        notes.append(f"no steps in common: {', '.join(left_out)}")
    axes.set_xlabel("environment step" + (f" ({'; '.join(notes)})" if notes else ""))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.01)
    _tidy(axes)


def _scores(axes: Any, scores: Mapping[str, Array], looks: Mapping[str, Look], goal: float | None) -> None:
    """A line for each label, the best on top; its name has a sample of its curve beside it."""
    counts = {len(sample) for sample in scores.values()}
    for place, (label, sample) in enumerate(scores.items()):
        color, dashes, filling = looks[label]
        low, high = bootstrap_interval([sample])
        if len(sample) > 1:
            axes.scatter(sample, np.full(len(sample), place), s=13, color=color, alpha=0.35, linewidth=0, zorder=2)
        axes.plot([low, high], [place, place], color=color, linewidth=3.5, solid_capstyle="butt", zorder=3)
        axes.plot([iqm(sample)], [place], "o", color=color, markerfacecolor=filling, markersize=6.5, zorder=4)
        beside = axes.get_yaxis_transform()  # x in parts of the panel, y as the scores have it
        axes.plot([-0.09, -0.015], [place] * 2, transform=beside, color=color, linestyle=dashes, lw=1.8, clip_on=False)
    names = [
        _lines(label if len(counts) == 1 else f"{label}, {_seeds(len(sample))}") for label, sample in scores.items()
    ]
    axes.set_yticks(range(len(scores)), names)
    axes.tick_params(axis="y", length=0, pad=34)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    if _near(goal, axes.get_xlim()):
        axes.axvline(goal, color="0.45", linewidth=1, linestyle=":")
    each = f"{_seeds(*counts)} each" if len(counts) == 1 else ""
    solved = f"solved at {goal:g}" if goal is not None else ""
    axes.set_title(", ".join(filter(None, (each, solved))), loc="right", fontsize=9, color="0.3")
    _tidy(axes)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _near(goal: float | None, limits: tuple[float, float]) -> bool:
    """Whether a line at the goal leaves the rest of a panel room to be seen."""
    low, high = limits
    return goal is not None and low - (high - low) / 2 <= goal <= high + (high - low) / 2


def _lines(label: str) -> str:
    """A label in lines that are not too long, broken between its parts alone."""
    parts = label.replace(" ", "\xa0").replace(",\xa0", ", ")
    return fill(parts, 30, break_long_words=False, break_on_hyphens=False).replace("\xa0", " ")


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _tidy(axes: Any) -> None:
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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
