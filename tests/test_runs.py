"""Runs that are stopped, damaged, or not ours: what is kept, and what is refused."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import qlearn
from qlearn import dqn
from qlearn.build import build
from qlearn.errors import NotFiniteError, QlearnError, RunError, UsageError
from qlearn.runs import checkpoint, directory, metrics, resume, session
from qlearn.runs.manifest import File, Manifest, Segment, list_checkpoints
from qlearn.runs.session import Interrupted
from tests.conftest import Cli

QUICK: dict[str, Any] = {
    "progress": False,
    "replay": {"warmup_steps": 50},
    "network": {"hidden": (8,)},
    "learner": {"batch_size": 8},
    "runtime": {"checkpoint_steps": 100, "log_steps": 50},
}


class Stopper:
    """A display that stops the run, as Ctrl-C does, at a step."""

    def __init__(self, at: int, error: type[BaseException] | None = None) -> None:
        self.at, self.error = at, error

    def start(self, total_steps: int) -> None: ...

    def update(self, progress: Any, statistics: dict[str, float]) -> None:
        if progress.tick.steps >= self.at:
            if self.error:
                raise self.error
            os.kill(os.getpid(), 2)

    def say(self, message: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 300 steps with checkpoints at 200 and 300."""
    monkeypatch.chdir(tmp_path)
    return qlearn.train("CartPole-v1", steps=300, run_dir="r", **QUICK).path


def steps_of(run: Path) -> list[int]:
    return [int(p.name[6:]) for p in list_checkpoints(run / "checkpoints")]


def test_the_newest_checkpoints_are_kept(run: Path) -> None:
    assert steps_of(run) == [200, 300]
    assert not list(run.glob("**/*.tmp"))


def test_an_interrupted_run_is_saved_and_continues_to_the_same_counts(run: Path) -> None:
    config = directory.read_config(run)
    with pytest.raises(Interrupted, match=r"saved at step 130; continue with: qlearn resume i"):
        session.start(config, run_dir="i", display=Stopper(130))
    assert steps_of(Path("i")) == [100, 130]
    assert not Path("i/summary.json").exists()
    with pytest.raises(Interrupted):  # twice, the second before a line is logged
        resume("i", display=Stopper(131))
    summary = resume("i").summary
    assert (summary["steps"], summary["updates"]) == (300, 125)
    lines = list(metrics.read(Path("i")))
    assert [r["steps"] for r in lines] == sorted(r["steps"] for r in lines)
    assert [r["episode"] for r in lines if r["kind"] == "episode"] == list(range(1, summary["episodes"] + 1))
    assert [r["steps"] for r in lines if r["kind"] == "train"] == [50, 100, 150, 200, 250, 300]


def test_what_was_logged_after_the_checkpoint_of_a_killed_run_is_logged_once(run: Path) -> None:
    config = directory.read_config(run)
    with pytest.raises(ZeroDivisionError):
        session.start(config, run_dir="k", display=Stopper(180, ZeroDivisionError))
    assert steps_of(Path("k")) == [100]
    assert max(r["steps"] for r in metrics.read(Path("k"))) > 100
    with pytest.raises(Interrupted):
        resume("k", display=Stopper(101))
    resume("k")
    lines = [(r["kind"], r["steps"]) for r in metrics.read(Path("k"))]
    assert len(lines) == len(set(lines))


def test_resuming_restores_everything(run: Path) -> None:
    config = directory.read_config(run)
    parts = build(config)
    saved = checkpoint.newest(run / "checkpoints")
    assert isinstance(parts.learner, dqn.Learner)
    assert parts.replay is not None
    saved.restore(parts)
    tensors = load(saved.content("networks.safetensors"))
    assert all(torch.equal(v, tensors[f"online.{k}"]) for k, v in parts.learner.online.state_dict().items())
    assert all(torch.equal(v, tensors[f"target.{k}"]) for k, v in parts.learner.target.state_dict().items())
    moments = load(saved.content("training.safetensors"))
    memory = parts.learner.descent.memory
    assert memory.keys() == {"exp_avg", "exp_avg_sq"}
    assert all(torch.equal(memory[k], moments[f"optimizer.{k}"]) for k in memory)
    assert float(moments["optimizer.step"]) == parts.learner.descent.steps == 125
    state = json.loads(saved.content("state.json"))
    assert parts.generators()["actor"].bit_generator.state == state["rng"]["actor"]
    assert parts.replay.ring.written == state["replay"]["written"]
    assert parts.envs.episodes == state["envs"]["episodes"]
    # The vector that the optimiser steps is still the network's: an update changes what acts.
    before = parts.learner.q_values(torch.ones(1, 4))
    parts.learner.update(*parts.replay.sample(8))
    assert not torch.equal(before, parts.learner.q_values(torch.ones(1, 4)))
    parts.envs.close()


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_good_ones_survive(run: Path) -> None:
    for damaged in ("steps-000000400", "steps-000000500"):
        shutil.copytree(run / "checkpoints/steps-000000300", run / "checkpoints" / damaged)
        (run / "checkpoints" / damaged / "networks.safetensors").write_bytes(b"xx")
    (run / "checkpoints/.steps-000000600.77.tmp").mkdir()
    (run / "checkpoints/steps-000000300-backup").mkdir()
    with pytest.warns(UserWarning, match="taking the checkpoint before it"):
        qlearn.resume(run, steps=350, progress=False)
    names = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert names == [
        "damaged-steps-000000400",
        "damaged-steps-000000500",
        "steps-000000300",
        "steps-000000300-backup",
        "steps-000000350",
    ]
    assert qlearn.load(run).q_values(np.zeros(4)).shape == (2,)


def test_a_finished_run_without_its_summary_gets_one(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").unlink()
    (run / "learning_curve.png").unlink()
    again = qlearn.resume(run, progress=False).summary
    clocks = ("wall_seconds", "steps_per_second")
    assert {k: v for k, v in again.items() if k not in clocks} == {k: v for k, v in summary.items() if k not in clocks}
    assert (run / "learning_curve.png").exists()


def test_a_run_that_fails_to_draw_has_its_summary_and_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RunError("cannot write the picture")

    monkeypatch.setattr(session, "plot", broken)
    with pytest.raises(RunError, match="picture"):
        qlearn.train("CartPole-v1", steps=100, run_dir=tmp_path / "r", **QUICK)
    assert (tmp_path / "r/summary.json").exists()
    assert steps_of(tmp_path / "r") == [100]


def test_two_processes_cannot_write_one_run(run: Path) -> None:
    with directory.alone(run), pytest.raises(RunError, match="written by another process"):
        qlearn.resume(run, steps=400, progress=False)


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard", "checkpoints"])
def test_a_run_writes_nowhere_else(run: Path, name: str) -> None:
    victim = Path("victim")
    shutil.move(run / name, victim)
    (run / name).symlink_to(victim.absolute())
    before = victim.stat().st_mtime_ns
    with pytest.raises(RunError, match="is a link"):
        qlearn.resume(run, steps=400, progress=False)
    assert victim.stat().st_mtime_ns == before


def rewrite(run: Path, name: str, data: bytes) -> None:
    """Change a file of the newest checkpoint, and its digest with it, as a stranger could."""
    path = list_checkpoints(run / "checkpoints")[-1]
    (path / name).write_bytes(data)
    manifest = Manifest.read(path)
    files = [File.of(name, data) if file.name == name else file for file in manifest.files]
    (path / "MANIFEST.json").write_bytes(dataclasses.replace(manifest, files=tuple(files)).encoded())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("state.json", {"progress": {}}),
        ("state.json", {"progress": None}),
        ("state.json", {"replay": {"written": -1}}),
        ("state.json", {"replay": {"written": 10**30}}),
        ("state.json", {"rest": -5}),
        ("state.json", {"envs": {"episodes": [1, 2], "lengths": [3], "failures": 0}}),
        ("state.json", {"envs": {"episodes": [1], "lengths": [10**9], "failures": 0}}),
        ("state.json", {"rng": {"actor": {"bit_generator": "os.system"}, "replay": {}}}),
        ("state.json", "[" * 100_000),
        ("training.safetensors", b"\xff" * 100),
        ("training.safetensors", b"\x80\x04cos\nsystem\n."),
        ("training.safetensors", save({"rows.obs": torch.zeros(3)})),
        ("networks.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
    ],
)
def test_a_hostile_checkpoint_is_refused_in_a_line(run: Path, name: str, change: Any) -> None:
    path = list_checkpoints(run / "checkpoints")[-1]
    if isinstance(change, dict):
        change = json.dumps({**json.loads((path / name).read_text()), **change})
    rewrite(run, name, change if isinstance(change, bytes) else change.encode())
    shutil.rmtree(run / "checkpoints/steps-000000200")
    with pytest.raises(RunError, match="checkpoints/steps-000000300"):
        qlearn.resume(run, steps=400, progress=False)


def test_a_manifest_cannot_name_files_elsewhere(run: Path) -> None:
    path = list_checkpoints(run / "checkpoints")[-1]
    shutil.rmtree(run / "checkpoints/steps-000000200")
    manifest, elsewhere = Manifest.read(path), File("../../../../etc/passwd", 5, "0" * 64)
    for change in ({"files": (*manifest.files, elsewhere)}, {"segments": (Segment(0, 5, elsewhere),)}):
        (path / "MANIFEST.json").write_bytes(dataclasses.replace(manifest, **change).encoded())
        with pytest.raises(RunError, match=r"MANIFEST\.json is damaged.*etc/passwd"):
            qlearn.load(run)


@pytest.mark.parametrize(
    "line", [b'{"kind": "episode"}\n', b"[]\n", b"\x00\x00\n", b'{"kind": "episode", "steps": 1, "return": "x"}\n']
)
def test_a_damaged_line_of_metrics_is_named(run: Path, line: bytes) -> None:
    (run / "metrics.jsonl").write_bytes(line + (run / "metrics.jsonl").read_bytes())
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        qlearn.runs.plot([run], Path("x.png"))


def test_a_torn_last_line_is_left_out(run: Path) -> None:
    whole = list(metrics.read(run))
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "epi')
    assert list(metrics.read(run)) == whole


def test_nan_in_a_run_reaches_no_checkpoint(tmp_path: Path) -> None:
    class Fuse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = torch.nn.Linear(4, 2), 0

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            q: torch.Tensor = self.layer(obs)
            return q * (float("nan") if self.calls > 300 else 1.0)

    quick = {k: v for k, v in QUICK.items() if k != "network"}
    with pytest.raises(NotFiniteError, match=r"output for batch.obs is not finite.*last checkpoint is of step \d+"):
        qlearn.train("CartPole-v1", steps=1_000, network=lambda s, a: Fuse(), run_dir=tmp_path / "r", **quick)
    tensors = load(checkpoint.newest(tmp_path / "r/checkpoints").content("networks.safetensors"))
    assert all(t.isfinite().all() for t in tensors.values())


def test_until_solved_without_a_threshold_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --reward-threshold"):
        qlearn.train("Blackjack-v1", until_solved=True, run_dir=tmp_path / "r", **QUICK)
    assert not (tmp_path / "r").exists()


def test_every_error_of_qlearn_is_one_kind() -> None:
    assert issubclass(RunError, QlearnError)
    assert (UsageError.exit_code, RunError.exit_code, Interrupted.exit_code) == (2, 1, 130)


@pytest.mark.parametrize("sink", ["/dev/full", "a closed pipe"])
def test_output_that_fails_does_not_stop_a_run(tmp_path: Path, sink: str) -> None:
    words = ["train", "CartPole-v1", "--steps", "600", "--network.hidden", "8", "--run-dir", "r"]
    command = [sys.executable, "-m", "qlearn", *words]
    if sink == "/dev/full":
        with open(sink, "w") as full:
            subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    else:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()
        process.communicate(timeout=120)
    assert json.loads((tmp_path / "r/summary.json").read_text())["steps"] == 600


def test_tensorboard_reads_the_numbers_of_the_metrics(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    qlearn.resume(run, steps=350, progress=False)
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    lines = list(metrics.read(run))
    for name in ("episode/return", "episode/length", "train/loss", "train/updates"):
        kind, key = name.split("/")
        told = [(line["steps"], line[key]) for line in lines if line["kind"] == kind and key in line]
        assert [(e.step, e.value) for e in board.Scalars(name)] == [(s, pytest.approx(v)) for s, v in told]
    assert not [tag for tag in board.Tags()["scalars"] if tag.endswith(("/env", "/episode"))]


def test_what_was_written_after_the_checkpoint_is_purged_from_tensorboard(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.rmtree(run / "checkpoints" / "steps-000000300")
    qlearn.resume(run, progress=False)
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/updates")] == [50, 100, 150, 200, 250, 300]


# What a run needs


def test_a_run_that_does_not_fit_is_refused_with_the_field_to_change(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qlearn.runs import surroundings

    words = ("train", "CartPole-v1", "--replay.capacity", "50000000", "--steps", "40000000", "--max-episodes", "1")
    monkeypatch.setattr(surroundings, "free_memory", lambda: 2 * 10**8)
    done = here(*words)
    assert done.returncode == 2
    assert "replay.capacity is 50,000,000, which takes 1.6 GB of memory; there are 0.2 GB" in done.stderr
    assert "--replay.compress True, or a smaller one" in done.stderr
    monkeypatch.setattr(surroundings, "free_memory", lambda: 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("", (), {"free": 10**9}))
    done = here(*words)
    assert done.returncode == 2
    assert "checkpoints take 4.7 GB of disk; there are 1.0 GB" in done.stderr
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("", (), {"free": 10**13}))
    done = here(*words)
    assert done.returncode == 0
    assert "needs up to 1.6 GB of memory for the replay, and 4.7 GB of disk for its checkpoints" in done.stdout


def test_free_memory_is_some_of_the_machines() -> None:
    from qlearn.runs.surroundings import free_memory

    free = free_memory()
    assert free is None or 10**7 < free < 10**14


def test_a_run_says_how_long_it_will_take(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from qlearn.runs import display

    told = [display.duration(seconds) for seconds in (3.4, 99, 125, 3_599, 11_100)]
    assert told == ["3 s", "99 s", "2 min", "1 h 00 min", "3 h 05 min"]
    monkeypatch.setattr(display.Terminal.__init__, "__kwdefaults__", {"console": None, "seconds": 0.05})
    done = here("train", "CartPole-v1", "--steps", "3000", "--network.hidden", "8", "--run-dir", "r")
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert any(re.search(r"steps/s  \d+ (s|min) left$", line) for line in lines), done.stdout
    assert "left" not in lines[-1]
