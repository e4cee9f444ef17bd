"""A suite: many runs from one TOML file. What the file says, all of it checked before anything starts.

    name = "family"            # the results go to suites/family, unless `out` or --out says otherwise
    episodes = 100             # of greedy evaluation after each run

    [[runs]]
    env = "CartPole-v1"
    presets = ["dqn", "double"]
    seeds = 10                 # 1 to 10; or a list
    steps = 50_000             # by default the preset's
    label = "small"            # tells apart two blocks of the same runs
    set = { until_solved = false, "learner.batch_size" = 32 }      # any field of the configuration

The file is what its user typed, but a file all the same: it cannot have a module imported (`--module` can).
"""

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlearn import presets
from qlearn.atari57 import games
from qlearn.build import build
from qlearn.config import Config, check, flatten, override
from qlearn.envs import known_games
from qlearn.errors import QlearnError, RunError, UsageError, nearest
from qlearn.runs import directory, session
from qlearn.runs.display import Display
from qlearn.runs.files import reading, writing
from qlearn.runs.manifest import list_checkpoints
from qlearn.runs.progress import threshold

KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "out": (str, "a text"),
    "episodes": (int, "a whole number"),
    "runs": (list, "tables, each under [[runs]]"),
}
RUN_KEYS: dict[str, tuple[Any, str]] = {
    "env": (str, "a text"),
    "presets": (list, "a list of names"),
    "seeds": (int | list, "a whole number or a list of them"),
    "steps": (int, "a whole number"),
    "label": (str, "a text"),
    "set": (dict, "a table of fields"),
}
ELSEWHERE = {"preset": "presets", "seed": "seeds", "steps": "steps", "env.id": "env"}  # not to be set by `set`
OURS = "qlearn suite "  # how the command of a run that a suite began starts


@dataclass(frozen=True)
class Item:
    """One run of a suite: what it is called in tables, its configuration, and its directory."""

    label: str
    config: Config
    path: Path


@dataclass(frozen=True)
class Suite:
    """A checked file: its text, where its results go, the episodes of each evaluation, and its runs in their order."""

    file: Path
    text: str
    name: str
    out: Path
    episodes: int
    items: tuple[Item, ...]


def read(file: Path, out: Path | None = None) -> Suite:
    """What a file asks for. Environments and networks are made once for each block and preset, to see that they can be.

    Raises:
        UsageError: one line that says what is wrong, where in the file, and the nearest right thing.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}{nearest(str(file), map(str, file.parent.glob('*.toml')))}")
    with reading(file):
        text = file.read_text(encoding="utf-8")
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{file} is not TOML: {error}") from None
    _check_keys(str(file), data, KEYS)
    name, episodes = data.get("name", file.stem), data.get("episodes", 100)
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise UsageError(f"{file}: name is {name!r}; it must be of letters, digits, - and _, for it names a directory")
    if episodes < 1:
        raise UsageError(f"{file}: episodes is {episodes}; it must be at least 1")
    if not data.get("runs"):
        raise UsageError(f"{file} has no runs; a [[runs]] table says which")
    out = out or Path(data.get("out", Path("suites") / name))
    lines = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*runs\s*]]", line)]
    places: dict[Path, str] = {}
    found: list[tuple[int, Item]] = []
    for number, block in enumerate(data["runs"], 1):
        line = f":{lines[number - 1]}" if len(lines) == len(data["runs"]) else ""
        where = f"{file}{line}: [[runs]] number {number}"
        if not isinstance(block, dict):
            raise UsageError(f"{where} is {block!r}; it must be a table")
        for turn, item in (pair for one in _each_game(block) for pair in _items(where, one, out)):
            if item.path in places:
                raise UsageError(
                    f"{where}: {item.path.name} of {item.config.env.id} is in {places[item.path]} too; "
                    "a label tells two blocks apart"
                )
            places[item.path] = f"[[runs]] number {number}"
            found.append((turn, item))
    # The first seed of everything comes first, so that a suite that has only begun says something of all of it.
    return Suite(file, text, name, out, episodes, tuple(item for _, item in sorted(found, key=lambda pair: pair[0])))


def _each_game(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The block, or one for each game where its `env` is `atari5`, `atari10` or `atari57`."""
    roms = games(str(block.get("env")))
    try:
        names = {rom: name for name, rom in known_games().items()} if roms else {}
    except ImportError as error:
        raise UsageError(f"{block['env']} needs a package ({error}); the fix: pip install 'qlearn[atari]'") from error
    return [{**block, "env": f"ALE/{names[rom]}-v5"} for rom in roms] or [block]


def _check_keys(where: str, table: Mapping[str, Any], known: Mapping[str, tuple[Any, str]]) -> None:
    for key, value in table.items():
        if key not in known:
            field = "; fields of the configuration go into set" if known is RUN_KEYS else ""
            raise UsageError(f"{where}: unknown key {key}{nearest(key, known) or field}")
        kind, words = known[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UsageError(f"{where}: {key} is {value!r}; it must be {words}")


def _items(where: str, block: dict[str, Any], out: Path) -> Iterator[tuple[int, Item]]:
    """The runs of a block, each with the place of its seed among the seeds."""
    _check_keys(where, block, RUN_KEYS)
    if missing := [key for key in ("env", "presets") if not block.get(key)]:
        raise UsageError(f"{where} has no {missing[0]}")
    label = block.get("label", "")
    if not re.fullmatch(r"[\w.-]*", label):
        raise UsageError(f"{where}: label is {label!r}; it must be of letters, digits, - and _")
    seeds = block.get("seeds", 1)
    seeds = list(range(1, seeds + 1)) if isinstance(seeds, int) else seeds
    if not seeds:
        raise UsageError(f"{where}: seeds is {block['seeds']}; there must be at least one")
    env = block["env"]
    for preset in block["presets"]:
        try:
            if not isinstance(preset, str):
                raise UsageError(f"presets has {preset!r}; it must be a list of names")
            configs = [_config(preset, seed, block) for seed in seeds]
            _try(configs[0])
        except QlearnError as error:
            raise UsageError(f"{where}: {error}") from error
        name = f"{preset}-{label}" if label else preset
        for turn, config in enumerate(configs):
            path = out / re.sub(r"[^\w.-]+", "-", env) / f"{name}-seed{config.seed}"
            yield turn, Item(f"{preset} {label}".strip(), config, path)


def _config(preset: str, seed: Any, block: dict[str, Any]) -> Config:
    config = presets.get(preset, block["env"])
    given = {"steps": block["steps"]} if "steps" in block else {}
    # As many runs as cores: a run has one, unless the file says otherwise.
    config = override(config, {"seed": seed, "runtime": {"threads": 1}, **given})
    return check(override(config, _tree(block.get("set", {}))))


def _tree(table: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names and nested tables, in any mixture, as nested dictionaries. "none" is what TOML has no word for."""
    tree: dict[str, Any] = {}
    for name, value in _leaves(table):
        if name in ELSEWHERE:
            raise UsageError(f"set has {name}, for which there is the key {ELSEWHERE[name]}")
        *groups, last = name.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise UsageError(f"set has {group} and {name}: a value and a group")
        if last in node:
            raise UsageError(f"set has {name} twice")
        node[last] = None if value == "none" else value
    return tree


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _try(config: Config) -> None:
    """See now, not in the middle of the night, that a run can be made."""
    module = config.env.id.rpartition(":")[0]
    if module and module not in sys.modules:
        raise UsageError(f"{config.env.id} is of a module, which a file may not import; add --module {module}")
    build(config).envs.close()
    if config.until_solved and threshold(config) is None:
        raise UsageError(f"until_solved: {config.env.id} has no reward threshold of its own; set reward_threshold")


def require_same(suite: Suite) -> None:
    """See that the runs that are there are those of the file.

    Raises:
        UsageError: one has another configuration. RunError: one was not begun by a suite.
    """
    for item in suite.items:
        if not item.path.exists():
            continue
        if not has_something(item.path):
            _require_ours(item.path)
            continue
        there = dict(flatten(directory.read_config(item.path)))
        for name, value in flatten(item.config):
            if there[name] != value:
                raise UsageError(
                    f"{item.path} was run with {name} {there[name]}, and {suite.file} says {value}; "
                    "choose another --out, or remove that run"
                )


def has_something(path: Path) -> bool:
    """Whether the run in `path` has come so far that it is worth going on with: a checkpoint, or its end."""
    return (path / directory.SUMMARY).exists() or bool(list_checkpoints(path / directory.CHECKPOINTS))


def _require_ours(path: Path) -> None:
    """Only what a suite began, and nothing that holds a checkpoint of any kind, may make way for a new beginning."""
    with reading(path):
        names = {p.name for p in path.iterdir() if not p.name.endswith(".tmp")}
        begun = names <= {directory.CONFIG} or (
            names <= {directory.CONFIG, directory.COMMAND, directory.METRICS, directory.TENSORBOARD, "checkpoints"}
            and (path / directory.COMMAND).exists()
            and (path / directory.COMMAND).read_text(encoding="utf-8").startswith(OURS)
        )
        kept = [p for p in (path / directory.CHECKPOINTS).glob("*") if not p.name.endswith(".tmp")]
    if not begun or kept or path.is_symlink():
        raise RunError(f"{path} is in the way, and was not begun by a suite; choose another --out, or remove it")


def train(config: Config, path: Path, command: str, display: Display) -> None:
    """Bring a run to its end, from wherever it stands."""
    if (path / directory.SUMMARY).exists():
        return
    if has_something(path):
        session.resume(path, display=display)
        return
    if path.exists():
        _require_ours(path)
        with writing(path):
            shutil.rmtree(path)
    session.start(config, run_dir=path, command=command, display=display)
