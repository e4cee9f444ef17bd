"""The picture of a table of values: the world's grid where it has one that we know, else states by actions."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv

from qlearn.runs.files import replace_file, writing
from qlearn.types import Array

COLORMAP, GREY, DARK, RED, AMBER, GREEN = "YlGnBu", "0.86", "0.15", "#d1495b", "#e0951f", "#2f8f5b"
HEAD = {"headwidth": 3.4, "headlength": 4, "headaxislength": 3.6}  # of an arrow, in widths of its shaft
MARKERS = {"pick up": "o", "drop off": "s"}


@dataclass(frozen=True)
class World:
    """What can be drawn of an environment: its cells, and what its actions do there.

    `letters` `[R, C]` has a letter where a cell is more than floor. An action moves, (right, down), or has a marker.
    """

    letters: Array
    moves: Mapping[int, tuple[int, int]]
    marks: Mapping[int, str]


def draw_table(q: Array, visits: Array, env: gym.Env[Any, Any], env_id: str, out: Path) -> None:
    """Draw a table into `out`, a PNG: the best value of each state as a colour, the best actions as arrows.

    FrozenLake with any map, CliffWalking and Taxi are drawn as the grids that they are; any other table as states by
    actions. What was never visited is grey. Where actions are equally good, all are drawn. Where the environment
    forbids actions (Taxi does), the best is the best of the others.

    Args:
        q: values `[S, A]`.
        visits: how often each was updated `[S, A]`.
        env: the environment, for its map.
        env_id: its name, for the title.
        out: the file.

    Raises:
        RunError: `out` cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(dpi=120, layout="compressed")
    world, inner = _world(env, q.shape), env.unwrapped
    if world is None:
        axes = _heat_map(figure, q, visits)
        axes.set_title(f"{env_id}: value of each action in each state", loc="left")
    elif isinstance(inner, TaxiEnv):
        _taxi(figure, q, visits, world, inner)
        figure.suptitle(f"{env_id}: value and best action of each state", x=0.01, ha="left")
    else:
        axes = _grid(figure, q, visits, world)
        axes.set_title(f"{env_id}: value and best action of each state", loc="left")
    data = io.BytesIO()
    figure.savefig(data, format="png")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, data.getvalue())


def _world(env: gym.Env[Any, Any], shape: tuple[int, ...]) -> World | None:
    """The world of an environment that we know, as long as the table is that of its states and actions."""
    inner: Any = env.unwrapped
    left, down, right, up = (-1, 0), (0, 1), (1, 0), (0, -1)
    if isinstance(inner, FrozenLakeEnv) and shape == (inner.nrow * inner.ncol, 4):
        letters = np.asarray(inner.desc).astype(str)
        return World(np.where(letters == "F", "", letters), dict(enumerate((left, down, right, up))), {})
    if isinstance(inner, CliffWalkingEnv) and shape == (48, 4):
        letters = np.full((4, 12), "", "<U1")
        letters[3] = ["S", *"C" * 10, "G"]
        return World(letters, dict(enumerate((up, right, down, left))), {})
    if isinstance(inner, TaxiEnv) and shape == (500, 6):
        letters = np.char.strip(inner.desc[1:-1, 1::2].astype(str))
        return World(letters, dict(enumerate((down, up, right, left))), {4: "pick up", 5: "drop off"})
    return None


def _grid(figure: Any, q: Array, visits: Array, world: World) -> Any:
    """One state in each cell."""
    from matplotlib.patches import Circle, Patch, Rectangle

    rows, columns = world.letters.shape
    cell = np.clip(9 / max(rows, columns), 0.45, 1.1)
    figure.set_size_inches(max(cell * columns + 1.2, 5.2), cell * rows + 1.1)
    ends = np.isin(world.letters, list("HCG")).ravel()
    value, best = _greedy(q, visits, np.ones(q.shape, np.bool_))
    value[ends], best[ends] = np.nan, False
    axes, scale = figure.subplots(), _scale(value)
    _cells(axes, scale, value, best, world, lift=0.1)
    for state, letter in enumerate(world.letters.flat):
        y, x = divmod(state, columns)
        if letter and letter in "HCG":
            color = RED if letter == "C" else "white"
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=1.5))
        if letter == "H":
            axes.add_patch(Circle((x, y), 0.36, facecolor=DARK))
        if letter == "G":
            axes.plot(x, y, marker="*", markersize=44 * cell, color=GREEN, markeredgewidth=0)
        if letter:
            place = (x, y, "center") if letter in "HCG" else (x - 0.38, y - 0.34, "center")
            ink = "white" if letter in "HCG" else _ink(scale, value[state])
            axes.text(*place[:2], letter, ha="center", va=place[2], color=ink, weight="bold", fontsize=9 * cell**0.5)
        if np.isfinite(value[state]) and columns <= 12:
            number = f"{value[state]:.{1 if np.nanmax(np.abs(value)) >= 10 else 2}f}"
            size = min(8.0, 9 * cell)
            axes.text(x, y + 0.36, number, ha="center", va="center", fontsize=size, color=_ink(scale, value[state]))
    _colorbar(figure, axes, scale)
    if np.isnan(value[~ends]).any():
        never = [Patch(facecolor=GREY, label="never visited")]
        figure.legend(handles=never, loc="outside lower left", frameon=False, fontsize=8)
    return axes


def _taxi(figure: Any, q: Array, visits: Array, world: World, env: TaxiEnv) -> None:
    """A grid of the taxi's places for each place of the passenger and each destination."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    figure.set_size_inches(10.5, 8.8)
    allowed = np.stack([env.action_mask(state) for state in range(len(q))]).astype(np.bool_)
    value, best = _greedy(q, visits, allowed)
    scale, names = _scale(value), [world.letters[place] for place in env.locs]
    panels = figure.subplots(4, 5)
    values, bests = value.reshape(25, 5, 4), best.reshape(25, 5, 4, -1)
    for (destination, passenger), axes in np.ndenumerate(panels):
        _cells(axes, scale, values[:, passenger, destination], bests[:, passenger, destination], world, lift=0)
        for y, x in np.argwhere(env.desc[1:-1, 2:-2:2] == b"|"):
            axes.plot([x + 0.5, x + 0.5], [y - 0.5, y + 0.5], color=DARK, linewidth=3, solid_capstyle="butt")
        for name, (y, x) in zip(names, env.locs, strict=True):
            ink = _ink(scale, values[5 * y + x, passenger, destination])
            axes.text(x - 0.4, y - 0.4, name, ha="left", va="top", fontsize=6, color=ink)
        marked = {passenger: AMBER} if passenger < 4 and passenger != destination else {}
        for which, color in {**marked, destination: RED}.items():
            y, x = env.locs[which]
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=color, linewidth=2))
        if destination == 0:
            axes.set_title(
                "passenger in the taxi" if passenger == 4 else f"passenger at {names[passenger]}", fontsize=9
            )
        if passenger == 0:
            axes.set_ylabel(f"to {names[destination]}", fontsize=9)
    _colorbar(figure, panels, scale)
    handles = [
        *(Line2D([], [], marker=m, color=DARK, linestyle="", markersize=6, label=n) for n, m in MARKERS.items()),
        Patch(facecolor="none", edgecolor=AMBER, linewidth=2, label="passenger"),
        Patch(facecolor="none", edgecolor=RED, linewidth=2, label="destination"),
        Patch(facecolor=GREY, label="never visited"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)


def _heat_map(figure: Any, q: Array, visits: Array) -> Any:
    """States from left to right, actions from top to bottom; a dot on the best ones where there is room."""
    from matplotlib.patches import Patch

    states, actions = q.shape
    figure.set_size_inches(np.clip(0.35 * states, 5, 12), np.clip(0.35 * actions, 1, 8) + 1.6)
    value = np.where(visits > 0, q, np.nan)
    axes, scale = figure.subplots(), _scale(value)
    axes.imshow(scale.to_rgba(value.T), aspect="auto", interpolation="nearest" if states <= 1000 else "auto")
    if states <= 64:
        state, action = np.nonzero(_greedy(q, visits, visits > 0)[1])
        axes.scatter(state, action, s=14, color=[_ink(scale, v) for v in q[state, action]])
    axes.set_xlabel("state")
    axes.set_ylabel("action")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    _colorbar(figure, axes, scale)
    if np.isnan(value).any():
        never = [Patch(facecolor=GREY, label="never tried")]
        figure.legend(handles=never, loc="outside lower left", frameon=False, fontsize=8)
    return axes


def _greedy(q: Array, visits: Array, allowed: Array) -> tuple[Array, Array]:
    """The value of each state `[S]`, NaN where it was never visited, and its best actions `[S, A]`, bool."""
    usable = np.where(allowed & (visits.sum(-1, keepdims=True) > 0), q, -np.inf)
    value = usable.max(-1)
    return np.where(np.isfinite(value), value, np.nan), (usable == value[:, None]) & np.isfinite(value)[:, None]


def _cells(axes: Any, scale: Any, value: Array, best: Array, world: World, lift: float) -> None:
    """The cells of a grid in the colours of their values `[R * C]`, and the best actions `[R * C, A]` in them."""
    rows, columns = world.letters.shape
    axes.imshow(scale.to_rgba(value.reshape(rows, columns)), interpolation="nearest")
    axes.set_xticks(np.arange(columns + 1) - 0.5, [])
    axes.set_yticks(np.arange(rows + 1) - 0.5, [])
    axes.tick_params(length=0)
    axes.grid(color="white", linewidth=1.5)
    axes.spines[:].set_color("0.6")
    arrows: list[Sequence[Any]] = []
    for state, action in np.argwhere(best):
        y, x = divmod(int(state), columns)
        y, ink, alone = y - lift, _ink(scale, value[state]), best[state].sum() == 1
        if action in world.moves:
            (right, down), (start, length) = world.moves[action], (-0.27, 0.54) if alone else (0.07, 0.3)
            arrows.append((x + start * right, y + start * down, length * right, length * down, ink))
        else:
            axes.plot(x, y, marker=MARKERS[world.marks[action]], markersize=6, color=ink, markeredgewidth=0)
    if arrows:
        *where, inks = zip(*arrows, strict=True)
        axes.quiver(*where, color=inks, angles="xy", scale_units="xy", scale=1, units="xy", width=0.06, **HEAD)


def _scale(value: Array) -> Any:
    """Values to colours; NaN is grey."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = value[np.isfinite(value)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    colors = matplotlib.colormaps[COLORMAP].with_extremes(bad=GREY)
    return ScalarMappable(Normalize(low, high if high > low else low + 1), colors)


def _ink(scale: Any, value: float) -> str:
    """A colour that is read on the colour of `value`."""
    red, green, blue, _ = scale.to_rgba(value)
    return DARK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"


def _colorbar(figure: Any, axes: Any, scale: Any) -> None:
    bar = figure.colorbar(scale, ax=axes, fraction=0.04, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("value", fontsize=9)
