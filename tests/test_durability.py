"""Nothing is lost: runs that are killed, on disks that fail, in environments that do, go on as if they had not been."""

import dataclasses
import errno
import json
import os
import random
import re
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qlearn
from qlearn import presets
from qlearn.config import Config, check, override, to_dict
from qlearn.errors import EnvError, RunError, UsageError
from qlearn.replay import Ring
from qlearn.runs import archive, checkpoint, directory, resume, session
from qlearn.runs.files import write_bytes
from qlearn.runs.manifest import Manifest, list_checkpoints
from qlearn.runs.session import Interrupted
from qlearn.types import Space, Steps
from tests import scripted
from tests.conftest import Cli
from tests.test_runs import Stopper, steps_of

SMALL: dict[str, Any] = {
    "steps": 400,
    "until_solved": False,
    "network": {"hidden": (8, 8)},
    "replay": {"warmup_steps": 60, "capacity": 150},
    "learner": {"batch_size": 8, "replay_ratio": 0.5, "target_update_steps": 50},
    "pqn": {"rollout_steps": 16, "minibatches": 2},
    "runtime": {"compile": "eager", "checkpoint_steps": 70, "log_steps": 50},
}


def small(preset: str = "intro", env_id: str = "CartPole-v1", /, **changes: Any) -> Config:
    return check(override(override(presets.get(preset, env_id), SMALL), changes))


def content(run: Path) -> dict[str, Any]:
    """All that a run came to, without its clocks."""
    last = list_checkpoints(run / "checkpoints")[-1]
    state = json.loads((last / "state.json").read_text())
    del state["progress"]["wall_seconds"], state["progress"]["metrics"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("wall_seconds", "steps_per_second")
    segments = Manifest.read(last).segments
    return {
        "name": last.name,
        "state": state,
        "metrics": [{k: v for k, v in line.items() if k not in clocks} for line in lines],
        "segments": [(s.first, s.end, s.file.sha256) for s in segments],
        **{name: (last / name).read_bytes() for name in ("networks.safetensors", "training.safetensors")},
    }


def require_equal(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """One difference at a time is readable."""
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name] == theirs[name], name


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of some rows each, so that a small memory has several."""
    monkeypatch.setattr(archive, "SIZE", 1_500)


# A run that stops goes on as if it had not

VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    ("intro", "CartPole-v1", {}),
    ("rainbow", "CartPole-v1", {"env": {"num_envs": 3}}),
    ("m-iqn", "CartPole-v1", {"env": {"frame_stack": 2}, "replay": {"n_step": 3}}),
    ("dqn", "tests.scripted:Doors-v0", {"env": {"num_envs": 2}, "replay": {"prioritized": True}}),
    ("pqn", "CartPole-v1", {"env": {"num_envs": 4}}),
    ("pqn", "tests.scripted:Doors-v0", {"env": {"num_envs": 2}}),
    ("tabular", "FrozenLake-v1", {"runtime": {"log_steps": 75}}),
    ("intro", "CartPole-v1", {"learner": {"replay_ratio": 0.01}}),  # lines of metrics without an update between
    ("intro", "CartPole-v1", {"runtime": {"compile": "compiled"}}),
]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(("preset", "env_id", "changes"), VARIANTS, ids=lambda x: str(x)[:40])
def test_a_run_that_was_stopped_is_the_one_that_was_not(
    preset: str, env_id: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    config = small(preset, env_id, **changes)
    session.start(config, run_dir=tmp_path / "whole")
    with pytest.raises(Interrupted):
        session.start(config, run_dir=tmp_path / "stopped", display=Stopper(111))
    for at in (112, 115, 260):
        with pytest.raises(Interrupted):
            resume(tmp_path / "stopped", display=Stopper(at))
    resume(tmp_path / "stopped")
    require_equal(content(tmp_path / "stopped"), content(tmp_path / "whole"))


def test_frames_that_are_compressed_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    monkeypatch.setattr(archive, "SIZE", 100_000)
    pixels = {
        "steps": 90,
        "network": {"hidden": (16,)},
        "replay": {"capacity": 60, "warmup_steps": 30, "compress": True},
        "learner": {"batch_size": 4, "replay_ratio": 0.25},
        "runtime": {"compile": "eager", "checkpoint_steps": 50, "log_steps": 20, "precision": "fp32"},
    }
    config = check(override(presets.get("nature", "ALE/Breakout-v5"), pixels))
    session.start(config, run_dir=tmp_path / "whole")
    with pytest.raises(Interrupted):
        session.start(config, run_dir=tmp_path / "stopped", display=Stopper(71))
    resume(tmp_path / "stopped")
    require_equal(content(tmp_path / "stopped"), content(tmp_path / "whole"))
    assert content(tmp_path / "whole")["segments"]


def test_more_steps_go_on_as_if_they_had_been_asked_for_at_once(tmp_path: Path) -> None:
    session.start(small(steps=400), run_dir=tmp_path / "whole")
    session.start(small(steps=250), run_dir=tmp_path / "more")
    resume(tmp_path / "more", steps=400)
    require_equal(content(tmp_path / "more"), content(tmp_path / "whole"))


def test_an_environment_that_does_not_repeat_itself_is_gone_on_with_faithfully(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moody(scripted.Corridor):
        def step(self, action: Any) -> Any:
            obs, *others = super().step(action)
            return obs + random.random() * 1e-3, *others

    monkeypatch.setitem(
        gymnasium.registry,
        "Moody-v0",
        gymnasium.envs.registration.EnvSpec("Moody-v0", lambda **kwargs: Moody(**kwargs)),
    )
    said: list[str] = []
    with pytest.raises(Interrupted):
        session.start(small("intro", "Moody-v0"), run_dir=tmp_path / "r", display=Stopper(200))
    display = Stopper(10**9)
    monkeypatch.setattr(display, "say", said.append)
    run = resume(tmp_path / "r", display=display)
    assert said[0].startswith("goes on faithfully from step 200: its environment did not repeat itself")
    assert run.summary["steps"] == 400
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    lengths = [line["length"] for line in lines if line["kind"] == "episode"]
    assert sum(lengths) < 400  # the episode that was running is none


def test_what_has_changed_is_named_and_refused_or_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        session.start(small(), run_dir=tmp_path / "r", display=Stopper(200))
    file = tmp_path / "r/config.toml"
    text = file.read_text()
    for old, new, why in (
        ("seed = 0", "seed = 5", "seed 5, and the run was made with 0"),
        ("hidden = [\n    8,", "hidden = [\n    9,", r"network.hidden \(9, 8\)"),
        ("capacity = 150", "capacity = 151", "replay.capacity 151"),
    ):
        assert old in text or "seed" in old
        file.write_text(text.replace(old, new) if old in text else text.replace("seed = 1", "seed = 5"))
        with pytest.raises(UsageError, match="change it back, or train another run"):
            resume(tmp_path / "r")
        with pytest.raises(UsageError, match=why.replace("with 0", "with")):
            qlearn.load(tmp_path / "r")
    file.write_text(text.replace("batch_size = 8", "batch_size = 9").replace("log_steps = 50", "log_steps = 60"))
    monkeypatch.setattr("qlearn.runs.changes.versions", lambda: {"torch": "9.9"})
    said: list[str] = []
    display = Stopper(10**9)
    monkeypatch.setattr(display, "say", said.append)
    resume(tmp_path / "r", display=display)
    assert said[0].startswith("goes on faithfully from step 200, running episodes included; learner.batch_size was 8")
    assert "torch was 2." in said[0]
    assert "is 9.9" in said[0]
    assert "log_steps" not in said[0]


# Killed


def child(work: Callable[[], Any]) -> int:
    """A process that does it, and nothing else; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        work()
        code = 0
    finally:
        os._exit(code)


def killed_until_done(config: Config, run: Path, kills: int, whole_seconds: float, dice: random.Random) -> int:
    """Train in processes that are killed, so often, at random instants; how many of them were in a save."""

    def work() -> None:
        if (run / "summary.json").exists():
            return  # it was killed when it had come to its end
        if (run / "config.toml").exists():
            resume(run)
        else:
            shutil.rmtree(run, ignore_errors=True)
            session.start(config, run_dir=run)

    in_a_save = 0
    while True:
        pid = child(work)
        if kills > 0:
            time.sleep(dice.uniform(0.1, 0.7) * whole_seconds)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            if kills <= 0:
                return in_a_save
            shutil.rmtree(run)  # it was quicker than its killer
        kills -= 1
        in_a_save += bool(list(run.glob("checkpoints/**/.*.tmp")))


KILLED: list[tuple[str, str, dict[str, Any], int]] = [
    ("intro", "CartPole-v1", {}, 10),
    ("rainbow", "CartPole-v1", {"env": {"num_envs": 2}}, 10),
    ("nature", "ALE/Pong-v5", {"network": {"hidden": (16,)}, "steps": 150, "replay": {"capacity": 100}}, 5),
]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(("preset", "env_id", "changes", "kills"), KILLED, ids=lambda x: str(x)[:20])
def test_a_run_that_is_killed_at_any_instant_is_the_one_that_was_not(
    preset: str, env_id: str, changes: dict[str, Any], kills: int, tmp_path: Path
) -> None:
    if env_id.startswith("ALE"):
        pytest.importorskip("ale_py")
    config = small(preset, env_id, **{"runtime": {"checkpoint_steps": 10, "precision": "fp32"}, **changes})
    began = time.monotonic()
    pid = child(lambda: session.start(config, run_dir=tmp_path / "whole"))
    assert os.waitpid(pid, 0)[1] == 0
    dice = random.Random(0)
    killed_until_done(config, tmp_path / "killed", kills, time.monotonic() - began, dice)
    require_equal(content(tmp_path / "killed"), content(tmp_path / "whole"))
    assert not list(tmp_path.glob("killed/checkpoints/**/.*.tmp"))


def test_sigterm_saves_and_ends_with_the_code_of_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qlearn.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["train", "CartPole-v1", "--preset", "intro", "--steps", "1000000", "--run-dir", "r"]
    pid = os.fork()
    if not pid:
        code = 1
        try:
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            code = main(words)
        finally:
            os._exit(code)
    while not (tmp_path / "r/metrics.jsonl").exists() or (tmp_path / "r/metrics.jsonl").stat().st_size < 300:
        time.sleep(0.02)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert len(steps_of(tmp_path / "r")) == 1
    with pytest.raises(Interrupted):
        resume(tmp_path / "r", display=Stopper(0))


# Disks that fail


class Disk:
    """Counts what is written, synchronised and renamed, and lets some of it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.count, self.folder = 0, str(folder)
        self.fails: Callable[[int], bool] = lambda n: False
        self.number, self.failed = errno.ENOSPC, 0
        for name in ("write", "fsync", "rename", "replace"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), name))

    def _wrapped(self, real: Any, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            first = arguments[0]
            if isinstance(first, int):
                try:
                    first = os.readlink(f"/proc/self/fd/{first}")
                except OSError:
                    first = ""
            if str(first).startswith(self.folder):
                self.count += 1
                if self.fails(self.count):
                    self.failed += 1
                    if name == "write" and self.failed % 2:  # half of it arrives
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **named)

        return call


@pytest.mark.usefixtures("pieces")
def test_every_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(steps=200, runtime={"checkpoint_steps": 50})
    disk = Disk(monkeypatch, tmp_path)
    session.start(config, run_dir=tmp_path / "whole")
    whole, most = content(tmp_path / "whole"), disk.count
    assert most > 60
    for nth in range(1, most + 1, 3):
        run = tmp_path / f"r{nth}"
        disk.count, disk.number = 0, (errno.ENOSPC, errno.EIO)[nth % 2]
        disk.fails = nth.__eq__
        with suppress(RunError):
            session.start(config, run_dir=run)
        assert disk.count >= nth
        disk.fails = lambda n: False
        if not (run / "config.toml").exists():
            continue  # it ended before it began
        for path in list_checkpoints(run / "checkpoints"):
            checkpoint.Checkpoint(path).check()
        if not (run / "summary.json").exists():
            resume(run)
        require_equal(content(run), whole)
        shutil.rmtree(run)


def test_a_disk_that_fills_and_empties_pauses_checkpoints_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = small(steps=600, runtime={"checkpoint_steps": 50})
    disk = Disk(monkeypatch, tmp_path)
    session.start(config, run_dir=tmp_path / "whole")
    kept: list[list[int]] = []

    class Watch(Stopper):
        def update(self, progress: Any, statistics: dict[str, float]) -> None:
            disk.fails = (lambda n: True) if 180 <= progress.tick.steps < 420 else (lambda n: False)
            kept.append(steps_of(tmp_path / "r") if progress.tick.steps > 60 else [])

    session.start(config, run_dir=tmp_path / "r", display=Watch(0))
    assert disk.failed > 10
    assert kept[400] == [100, 150]
    require_equal(content(tmp_path / "r"), content(tmp_path / "whole"))
    told = [record.getMessage() for record in caplog.records]
    assert sum("training goes on" in line for line in told) == 1
    assert sum("its lines wait" in line for line in told) == 1
    assert "checkpoints are written again, at step 450" in told


# Bytes that change


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with segments and two checkpoints."""
    patch = pytest.MonkeyPatch()
    patch.setattr(archive, "SIZE", 1_500)
    run = tmp_path_factory.mktemp("finished") / "r"
    session.start(small(steps=200, replay={"prioritized": True}), run_dir=run)
    patch.undo()
    return run


def hurt(path: Path, how: str, where: float, bit: int) -> None:
    """Damage a file."""
    data = bytearray(path.read_bytes())
    at = min(int(where * len(data)), len(data) - 1)
    if how == "flip":
        data[at] ^= 1 << bit
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[:at])
    elif how == "longer":
        path.write_bytes(data + b"\0")
    elif how == "replaced":
        path.write_bytes(random.Random(bit).randbytes(len(data)))
    elif how == "removed":
        path.unlink()
    elif how == "linked":
        path.rename(path.with_suffix(".elsewhere"))
        path.symlink_to(path.with_suffix(".elsewhere"))
    else:
        path.unlink()
        os.mkfifo(path)


HURTS = ("flip", "cut", "longer", "replaced", "removed", "linked", "fifo")


def numbers(run: Path) -> bytes:
    """Of the network that is loaded."""
    return b"".join(p.detach().numpy().tobytes() for p in qlearn.load(run).network.parameters())


def damaged_and_read(finished: Path, copy: Path, name: str, how: str, where: float, bit: int) -> None:
    """No damage is read: the file is named, or the checkpoint before is taken and that is said."""
    shutil.copytree(finished, copy, symlinks=True)
    newest, oldest = reversed(list_checkpoints(copy / "checkpoints"))
    inside = [*newest.iterdir(), *(copy / "checkpoints/replay").iterdir(), copy / "metrics.jsonl"]
    last = Manifest.read(newest).segments[-1].file.name
    path = next(p for p in inside if p.name.startswith(last if name == "rows" else name))
    shared = any(path.name == segment.file.name for segment in Manifest.read(oldest).segments)
    hurt(path, how, where, bit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if shared or (path.name == "metrics.jsonl" and how in ("linked", "fifo")):
            with pytest.raises(RunError, match=re.escape(path.name)):
                resume(copy, steps=230)
            return
        with pytest.raises(Interrupted):  # soon after it has read all
            resume(copy, steps=230, display=Stopper(0))
    said = [str(warning.message) for warning in caught]
    if path.name == "metrics.jsonl" and how == "longer":
        return  # what was written after the checkpoint is cut off
    assert any(path.name in line for line in said), said


@given(
    name=st.sampled_from(("MANIFEST", "networks", "training", "state", "rows", "metrics")),
    how=st.sampled_from(HURTS),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_damage_is_read(finished: Path, name: str, how: str, where: float, bit: int) -> None:
    copy = finished.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    damaged_and_read(finished, copy, name, how, where, bit)


def test_a_manifest_of_the_future_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "r")
    for path in list_checkpoints(tmp_path / "r/checkpoints"):
        file = path / "MANIFEST.json"
        file.write_text(file.read_text().replace('"format": 4', '"format": 99'))
    with pytest.warns(UserWarning, match="has format 99"), pytest.raises(RunError, match="this qlearn reads format 4"):
        resume(tmp_path / "r")


# Segments


@pytest.mark.usefixtures("pieces")
def test_a_row_is_written_once_and_gone_when_nobody_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def counted(path: Path, data: bytes) -> None:
        written.append(path.name)
        write_bytes(path, data)

    monkeypatch.setattr("qlearn.runs.archive.write_bytes", counted)
    session.start(small(steps=800, runtime={"checkpoint_steps": 40}), run_dir=tmp_path / "r")
    assert len(written) == len(set(written)) > 10
    last = list_checkpoints(tmp_path / "r/checkpoints")
    needed = {segment.file.name for path in last for segment in Manifest.read(path).segments}
    assert {path.name for path in (tmp_path / "r/checkpoints/replay").iterdir()} == needed
    sizes = [(path / "training.safetensors").stat().st_size for path in last]
    assert max(sizes) < 20_000


def test_the_best_checkpoint_is_kept_and_played(here: Cli, tmp_path: Path) -> None:
    words = ["train", "CartPole-v1", "--preset", "intro", "--steps", "900", "--window", "3"]
    words += ["--run-dir", "r", "--replay.warmup-steps", "50", "--runtime.checkpoint-steps", "60"]
    assert here(*words, "--runtime.compile", "eager").returncode == 0
    found = list_checkpoints(tmp_path / "r/checkpoints")
    means = {path: Manifest.read(path).mean_return for path in found}
    best = checkpoint.best(tmp_path / "r/checkpoints")
    assert best is not None
    assert means[best] == max(mean for mean in means.values() if mean is not None)
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    at_checkpoints = [line["mean_return"] for line in lines if line["kind"] == "episode" and line["episode"] >= 3]
    assert (means[best] or 0) >= sorted(at_checkpoints)[len(at_checkpoints) // 2]
    networks = [qlearn.load("r", best=flag).network.state_dict() for flag in (False, True)]
    if best != found[-1]:
        assert not all(torch.equal(a, b) for a, b in zip(*(n.values() for n in networks), strict=True))
        assert len(found) == 3
    assert here("evaluate", "r", "--episodes", "2", "--best").returncode == 0
    shutil.rmtree(tmp_path / "r/checkpoints")
    done = here("evaluate", "r", "--best")
    assert (done.returncode, "r has no best checkpoint" in done.stderr) == (2, True)


# Environments that fail


class Wild(scripted.Corridor):
    """A corridor that fails in every way, now and then."""

    def __init__(self, chance: float = 0.02, ends: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.chance, self.ends = chance, ends

    def reset(self, **options: Any) -> Any:
        if self.ends:  # in a process of its own, which begins with the same numbers as every other
            random.seed(options["seed"])
        if random.random() < self.chance:
            raise RuntimeError("it does not start")
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        obs, reward, *others = super().step(action)
        if random.random() < self.chance:
            how = random.randrange(6 if self.ends else 4)
            if how == 0:
                raise RuntimeError("the motor is stuck")
            if how == 1:
                obs = obs * float("nan")
            if how == 2:
                reward = float("inf")
            if how == 3:
                obs = obs[:0]
            if how == 4:
                os._exit(3)
            if how == 5:
                time.sleep(60)
        return obs, reward, *others


@pytest.fixture
def wild(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    spec = gymnasium.envs.registration.EnvSpec("Wild-v0", lambda **kwargs: Wild(**kwargs), max_episode_steps=30)
    monkeypatch.setitem(gymnasium.registry, "Wild-v0", spec)
    random.seed(1)
    yield
    random.seed()


@pytest.mark.usefixtures("wild")
@pytest.mark.parametrize("preset", ["dqn", "rainbow", "pqn"])
def test_an_environment_that_fails_now_and_then_is_learned_all_the_same(preset: str, tmp_path: Path) -> None:
    changes = {
        "steps": 5_000,
        "env": {"max_restarts": 500},
        "network": {"hidden": (32, 32)},
        "value": {"v_min": -1.0, "v_max": 2.0},
        "replay": {"warmup_steps": 500, "capacity": 2_000},
        "learner": {"batch_size": 32, "replay_ratio": 0.5, "target_update_steps": 50},
        "optimizer": {"learning_rate": 2e-3, "end_learning_rate": None, "decay_steps": 0},
        "runtime": {"compile": "eager", "log_steps": 5_000},
    }
    config = check(override(presets.get(preset, "Wild-v0"), changes))
    run = session.start(config, run_dir=tmp_path / "r")
    assert 30 < run.summary["env_restarts"] < 250
    assert [run.agent.act([float(place)]) for place in range(5)] == [1] * 5
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert {line["return"] for line in lines if line["kind"] == "episode"} <= {0.0, 1.0}


@pytest.mark.usefixtures("wild")
def test_one_in_a_process_of_its_own_may_also_end_it_and_hang(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes: dict[str, Any] = {"max_restarts": 500, "isolated": True, "timeout_seconds": 0.2, "num_envs": 2}
    changes["kwargs"] = '{"ends": true, "chance": 0.06}'
    run = session.start(small("intro", "Wild-v0", env=changes, steps=600), run_dir=tmp_path / "r")
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "ended its process in step() (exit code 3)" in told
    assert "gave no answer from step() within 0.2 seconds" in told
    assert "raised RuntimeError in step(): the motor is stuck" in told
    assert f"({run.summary['env_restarts']} of 500)" in told
    assert run.summary["steps"] in (600, 601)


def test_one_in_a_process_of_its_own_plays_as_it_would_here(tmp_path: Path) -> None:
    for isolated in (False, True):
        config = small("intro", "tests.scripted:Doors-v0", env={"isolated": isolated, "num_envs": 2}, steps=200)
        session.start(config, run_dir=tmp_path / str(isolated))
    require_equal(content(tmp_path / "True"), content(tmp_path / "False"))


@pytest.mark.parametrize("fault", ["raise", "nan", "nan reward", "shape"])
def test_one_that_always_fails_ends_the_run_in_a_line(fault: str, tmp_path: Path) -> None:
    env = {"kwargs": json.dumps({"fault": fault, "at": 1}), "max_restarts": 10}
    with pytest.raises(EnvError, match=r"it failed 3 times in a row"):
        session.start(small("intro", "Corridor-v0", env=env), run_dir=tmp_path / "r")
    env["max_restarts"] = 0
    with pytest.raises(EnvError, match=r"Corridor-v0 (raised RuntimeError|returned)"):
        session.start(small("intro", "Corridor-v0", env=env), run_dir=tmp_path / "s")


def test_a_step_that_is_lost_cuts_its_episode_and_is_no_transition() -> None:
    ring = Ring(Space((1,), np.dtype(np.float32), 2), 20, 2, n_step=2, gamma=1.0)
    for t in range(6):
        obs = np.full((1, 2, 1), t, np.float32)
        lost = np.array([[False, True]]) if t == 3 else None
        zeros = np.zeros((1, 2))
        ring.append(Steps(obs, zeros, zeros + 1, zeros, zeros, None, lost))
    rows = torch.tensor([t * 2 + env for t in range(5) for env in range(2)])
    rows = rows[~ring.storage.final[rows]]
    assert 3 * 2 + 1 not in rows.tolist()
    batch = ring.batch(rows[rows < 8])
    assert batch.obs.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert batch.next_obs.flatten().tolist() == [2, 2, 3, 3, 4, 3, 5]
    assert batch.reward.tolist() == [2, 2, 2, 2, 2, 1, 2]
    assert (batch.discount > 0).all()  # it bootstraps, as where a time limit cuts


# What nobody may bring in


def test_a_run_that_asks_for_too_much_is_refused_before_it_is_given(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "r")
    file = tmp_path / "r/config.toml"
    file.write_text(file.read_text().replace("capacity = 150", "capacity = 900000000000"))
    with pytest.raises(UsageError, match=r"replay.capacity 900000000000"):
        resume(tmp_path / "r")
    path = list_checkpoints(tmp_path / "r/checkpoints")[-1]
    large = override(small(replay={"prioritized": True}), {"network": {"hidden": (60_000, 60_000)}, "steps": 200})
    manifest_of_it = dataclasses.replace(Manifest.read(path), config=to_dict(large))
    (path / "MANIFEST.json").write_bytes(manifest_of_it.encoded())
    directory.write_config(tmp_path / "r", large)
    for read in (qlearn.load, resume):
        with pytest.raises(RunError, match=r"its layers would take 14,400,000,000 bytes, and there are [\d,]+$"):
            read(tmp_path / "r")
    manifest = next(iter(list_checkpoints(tmp_path / "r/checkpoints"))) / "MANIFEST.json"
    with open(manifest, "r+b") as file_of_holes:
        file_of_holes.truncate(10**12)
    shutil.rmtree(tmp_path / "r/checkpoints/steps-000000200")
    with pytest.raises(RunError, match=r"MANIFEST.json is damaged.*1,000,000,000,000 bytes"):
        qlearn.load(tmp_path / "r")


def test_the_first_checkpoint_may_not_be_there_yet(tmp_path: Path) -> None:
    config = small()
    with pytest.raises(ZeroDivisionError):
        session.start(config, run_dir=tmp_path / "r", display=Stopper(30, ZeroDivisionError))
    assert not steps_of(tmp_path / "r")
    resume(tmp_path / "r")
    session.start(config, run_dir=tmp_path / "whole")
    require_equal(content(tmp_path / "r"), content(tmp_path / "whole"))
