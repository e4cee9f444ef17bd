"""What a run is and where it stands: its settings, and whether it is being trained, has finished or was stopped."""

import fcntl
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qlearn import presets
from qlearn.build import build_rules
from qlearn.config import Config
from qlearn.config.rules import flatten
from qlearn.errors import QlearnError
from qlearn.runs import directory, verdict
from qlearn.runs.files import reading
from qlearn.runs.manifest import list_checkpoints

Rows = list[tuple[str, Any]]


def held(path: Path) -> bool:
    """Whether a trainer holds the run, as `runs.directory.alone` has it. Ours is a shared lock, let go at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def saved_steps(path: Path) -> int | None:
    """The environment steps of the newest checkpoint, by its name; None where there is none."""
    found = list_checkpoints(path / directory.CHECKPOINTS)
    return int(found[-1].name.removeprefix("steps-")) if found else None


def status(path: Path, config: Config, last_step: int) -> dict[str, Any]:
    """Whether the run is being trained, has finished, or was stopped, and where."""
    saved = saved_steps(path)
    told = {"saved": saved, "last": max(last_step, saved or 0), "limit": config.steps, "continue": ""}
    if held(path):
        return {**told, "kind": "running", "sentence": "being trained now"}
    summary = _summary(path)
    if summary is not None:
        return {**told, "kind": "finished", "sentence": _outcome(summary, config)}
    told["continue"] = directory.command("resume", path) if saved is not None else ""
    after = "there is no checkpoint" if saved is None else f"the newest checkpoint is of step {saved:,}"
    return {**told, "kind": "stopped", "sentence": f"stopped before its end: last step {told['last']:,}; {after}"}


def _summary(path: Path) -> dict[str, Any] | None:
    file = path / directory.SUMMARY
    if not file.exists():
        return None
    with reading(file):
        summary = json.loads(file.read_bytes())
        return summary if isinstance(summary, dict) else None


def _outcome(summary: dict[str, Any], config: Config) -> str:
    try:
        return verdict(summary, config)
    except (KeyError, TypeError, ValueError):
        return "finished"


def card(path: Path, config: Config) -> dict[str, Any]:
    """The settings: those that decide whether two runs may be compared, and all others by group."""
    return {
        "groups": [
            ("environment", _environment(config)),
            ("agent", _agent(config)),
            ("learning", _learning(config)),
            ("origin", _origin(path, config)),
        ],
        "fields": _fields(config),
    }


def _environment(config: Config) -> Rows:
    env = config.env
    rows: Rows = [("id", env.id), ("copies played at once", env.num_envs)]
    try:
        rules = build_rules(config)
    except (QlearnError, ValueError):
        rules = None
    if rules:
        rows += [
            ("observation", env.obs_type),
            ("sticky actions", rules[1].repeat_action_probability),
            ("frames per action", rules[1].frameskip),
            ("no-ops at the start, at most", rules[1].noop_max),
            ("a life lost ends the bootstrap", rules[1].life_loss),
            ("epsilon of evaluation", rules[1].epsilon),
        ]
    rows += [
        ("frames seen at once", env.frame_stack),
        ("rewards learned from", "cut to [−1, 1]" if config.replay.clip_rewards else "as they are"),
        ("truncated episodes", "bootstrapped; terminated ones are not"),
        ("each episode starts from", "reset(seed), a seed of its own"),
    ]
    return [*rows, *([("arguments", env.kwargs)] if env.kwargs != "{}" else [])]


def _agent(config: Config) -> Rows:
    network, value, backup = config.network, config.value, config.backup
    kinds = {
        "scalar": "the mean of the return",
        "c51": f"{value.atoms} atoms from {value.v_min:g} to {value.v_max:g} (C51)",
        "qr": f"{value.quantiles} quantiles (QR-DQN)",
        "iqn": f"{value.quantiles} drawn quantiles (IQN)",
    }
    soft = "a soft policy (Munchausen)" if backup.munchausen else "the best action"
    return [
        ("preset", config.preset),
        ("algorithm", config.algorithm),
        ("learns", kinds[value.kind]),
        ("backs up", "the best action, chosen by Q, valued by Q′ (double)" if backup.double else soft),
        ("network", f"{network.torso}, hidden {' × '.join(map(str, network.hidden))}"),
        ("with", ", ".join(n for n in ("dueling", "noisy", "layer_norm", "rescale") if getattr(network, n)) or "—"),
        ("steps of reward before the bootstrap", config.replay.n_step),
        ("discount γ", config.replay.gamma),
    ]


def _learning(config: Config) -> Rows:
    learner, replay, explore, optimizer = config.learner, config.replay, config.exploration, config.optimizer
    rows: Rows = [("steps", config.steps), ("seed", config.seed)]
    if config.algorithm == "dqn":
        rows += [
            ("replay memory", replay.capacity),
            ("sampled", "by priority" if replay.prioritized else "uniformly"),
            ("batch", learner.batch_size),
            ("updates per step", learner.replay_ratio),
            ("steps between target copies", learner.target_update_steps),
            ("warm-up steps", replay.warmup_steps),
        ]
    return [
        *rows,
        ("optimiser", f"{optimizer.name}, learning rate {optimizer.learning_rate:g}"),
        ("epsilon", f"{explore.kind}, {explore.start:g} to {explore.end:g} over {explore.decay_steps:,} steps"),
        ("gradient norm, at most", config.learner.max_grad_norm or "any"),
    ]


def _origin(path: Path, config: Config) -> Rows:
    command = path / directory.COMMAND
    typed = ""
    if command.is_file() and not command.is_symlink():  # a stranger's link may lead to what is not a stranger's
        with reading(command), open(command, "rb") as file:
            typed = file.read(2_000).decode(errors="replace").strip()
    rows: Rows = [("run", str(path)), ("command", typed or "—"), ("device", config.runtime.device)]
    for package in ("qlearn", "torch", "gymnasium"):
        try:
            rows.append((f"{package} that reads it", version(package)))
        except PackageNotFoundError:
            continue
    return rows


def _fields(config: Config) -> list[tuple[str, str, str]]:
    """Every field with its value, and the preset's where that is another."""
    try:
        changed = presets.diff(config, presets.get(config.preset, config.env.id))
    except QlearnError:
        changed = {}
    return [(name, _text(value), _text(changed[name][1]) if name in changed else "") for name, value in flatten(config)]


def _text(value: Any) -> str:
    return " × ".join(map(str, value)) if isinstance(value, tuple) else str(value)
