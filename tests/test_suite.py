"""Many runs from one file: it is read, it survives, it says what came of it. And the statistics of that."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import trim_mean

from qlearn.errors import UsageError
from qlearn.runs import directory, metrics, plot, results, suite, workers
from qlearn.runs.board import Board
from qlearn.runs.manifest import list_checkpoints
from qlearn.scores import bootstrap_interval, iqm
from tests.conftest import Cli
from tests.test_cli import fails

BLOCK = '[[runs]]\nenv = "CartPole-v1"\npresets = ["dqn"]\n'
TINY = 'network.hidden = [8], until_solved = false, "replay.warmup_steps" = 50'


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(12, 3))
    assert iqm(sample) == pytest.approx(trim_mean(sample, 0.25))
    assert iqm(np.arange(10.0) ** 2) == pytest.approx((4 / 2 + 9 + 16 + 25 + 36 + 49 / 2) / 5)
    assert iqm(np.array([0.0, 1.0, 8.0])) == pytest.approx((0.25 * 0 + 1 + 0.25 * 8) / 1.5)
    assert iqm(np.array([7.0])) == 7
    assert iqm(np.array([1.0, 3.0])) == 2


def test_the_bootstrap_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(1), 0.0
    for _ in range(300):
        low, high = bootstrap_interval([rng.normal(size=20)], resamples=300)
        inside += float(low) <= 0 <= float(high)
    assert 0.88 < inside / 300 < 0.98
    sample = rng.normal(size=(10, 4))
    one = bootstrap_interval([sample])
    assert one[0].shape == one[1].shape == (4,)
    assert (one[0] < iqm(sample)).all()
    assert np.array_equal(one, bootstrap_interval([sample]))
    assert not np.array_equal(one, bootstrap_interval([sample], seed=1))
    narrow = bootstrap_interval([sample], confidence=0.5)
    assert (narrow[0] > one[0]).all()
    assert (narrow[1] < one[1]).all()


def test_the_bootstrap_draws_each_environments_seeds_from_its_own() -> None:
    strata = [np.full(4, 0.0), np.full(4, 10.0)]
    assert np.array_equal(bootstrap_interval(strata), (5, 5))  # drawn from all, there would not be four of each
    low, high = bootstrap_interval([np.concatenate(strata)])
    assert low < 5 < high
    assert np.array_equal(bootstrap_interval([np.array([3.0])]), (3, 3))


def plan(folder: Path, text: str) -> suite.Suite:
    (folder / "s.toml").write_text(text)
    return suite.read(folder / "s.toml")


def test_a_file_says_which_runs(tmp_path: Path) -> None:
    read = plan(
        tmp_path,
        'name = "family"\nepisodes = 7\n[[runs]]\nenv = "CartPole-v1"\npresets = ["dqn", "intro"]\nseeds = [4, 2]\n'
        'steps = 900\nset = { "learner.batch_size" = 5, learner.replay_ratio = 0.5, max_episodes = "none" }\n'
        + BLOCK
        + 'label = "big"\nset = { network = { hidden = [512] }, runtime.threads = 2 }\n',
    )
    assert (read.name, read.episodes, read.out) == ("family", 7, Path("suites/family"))
    assert [str(item.path.relative_to(read.out)) for item in read.items] == [
        "CartPole-v1/dqn-seed4",
        "CartPole-v1/intro-seed4",
        "CartPole-v1/dqn-big-seed1",
        "CartPole-v1/dqn-seed2",
        "CartPole-v1/intro-seed2",
    ]
    four, big = read.items[1], read.items[2]
    assert (four.label, four.config.preset, four.config.seed, four.config.steps) == ("intro", "intro", 4, 900)
    assert (four.config.learner.batch_size, four.config.learner.replay_ratio) == (5, 0.5)
    assert (four.config.max_episodes, four.config.runtime.threads) == (None, 1)
    assert (big.label, big.config.network.hidden, big.config.runtime.threads) == ("dqn big", (512,), 2)
    assert suite.read(tmp_path / "s.toml", Path("x")).items[0].path == Path("x/CartPole-v1/dqn-seed4")
    assert plan(tmp_path, 'out = "y"\n' + BLOCK).out == Path("y")
    assert plan(tmp_path, BLOCK).name == "s"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = = 1\n", ["s.toml is not TOML", "line 1"]),
        ("", ["s.toml has no runs"]),
        ("episode = 3\n" + BLOCK, ["s.toml: unknown key episode; did you mean episodes?"]),
        ("episodes = 0\n" + BLOCK, ["episodes is 0"]),
        ('name = "a/b"\n' + BLOCK, ["name is 'a/b'"]),
        ("\n" + BLOCK + "sedes = 3", ["s.toml:2: [[runs]] number 1: unknown key sedes; did you mean seeds?"]),
        (BLOCK + "gamma = 3", ["unknown key gamma", "go into set"]),
        (BLOCK + "seeds = true", ["seeds is True"]),
        (BLOCK + "seeds = 0", ["seeds is 0"]),
        (BLOCK + "seeds = [1, 1]", ["dqn-seed1", "label"]),
        (BLOCK + 'seeds = ["a"]', ["seed is 'a'"]),
        (BLOCK + "steps = 0", ["steps is 0"]),
        (BLOCK + BLOCK + "seeds = 3", ["s.toml:4", "number 2: dqn-seed1 of CartPole-v1 is in [[runs]] number 1 too"]),
        (BLOCK.replace("dqn", "dqm"), ["s.toml:1", "unknown preset dqm; did you mean dqn?"]),
        (BLOCK.replace("CartPole", "CartPol"), ["s.toml:1", "unknown environment", "did you mean CartPole-v1"]),
        (BLOCK.replace("CartPole-v1", "Pendulum-v1"), ["Discrete actions only"]),
        (BLOCK.replace("CartPole-v1", "canary:Thing-v0"), ["--module canary"]),
        (BLOCK.replace('presets = ["dqn"]', ""), ["number 1 has no presets"]),
        (BLOCK + "set.learner.batch_siz = 3", ["unknown field learner.batch_siz; did you mean batch_size?"]),
        (BLOCK + 'set = { "learner.batch_size" = 0 }', ["learner.batch_size is 0"]),
        (BLOCK + 'set = { "learner.batch_size" = 1, learner.batch_size = 2 }', ["learner.batch_size twice"]),
        (BLOCK + "set.seed = 3", ["set has seed", "seeds"]),
        (BLOCK + "set.learner = 3", ["learner is a group"]),
        (BLOCK.replace("CartPole", "Blackjack") + "set.until_solved = true", ["Blackjack-v1", "reward_threshold"]),
    ],
)
def test_a_mistake_in_the_file_is_one_line_and_nothing_starts(
    here: Cli, tmp_path: Path, text: str, parts: list[str]
) -> None:
    (tmp_path / "s.toml").write_text(text)
    (tmp_path / "canary.py").write_text("open('imported', 'w').close()")
    fails(here("suite", "s.toml"), 2, *parts)
    assert {p.name for p in tmp_path.iterdir()} == {"s.toml", "canary.py"}


def test_mistakes_on_the_command_line(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "family.toml").write_text(BLOCK)
    fails(here("suite", "famly.toml"), 2, "there is no file famly.toml; did you mean family.toml?")
    fails(here("suite", "family.toml", "--jobs", "0"), 2, "--jobs is 0")
    (tmp_path / "suites").write_text("")
    fails(here("suite", "family.toml"), 1, "cannot write suites/family")


def test_only_what_a_suite_began_makes_way(tmp_path: Path) -> None:
    read = plan(tmp_path, f'out = "{tmp_path}/o"\n' + BLOCK)
    path = read.items[0].path
    (path / "checkpoints").mkdir(parents=True)
    suite.require_same(plan(tmp_path, f'out = "{tmp_path}/p"\n' + BLOCK))  # nothing is there
    with pytest.raises(Exception, match="was not begun by a suite"):
        suite.require_same(read)
    (path / "config.toml").write_text("")
    (path / "command.txt").write_text("qlearn suite s.toml\n")
    suite.require_same(read)
    (path / "checkpoints" / "damaged-steps-000000300").mkdir()
    with pytest.raises(Exception, match="was not begun by a suite"):
        suite.require_same(read)
    (path / "checkpoints" / "damaged-steps-000000300").rmdir()
    (path / "command.txt").write_text("qlearn train CartPole-v1\n")
    with pytest.raises(Exception, match="was not begun by a suite"):
        suite.require_same(read)


def wait(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_suite_goes_on_after_any_stop(here: Cli, tmp_path: Path) -> None:
    """Killed, then interrupted, then finished: what was done stays as it was, what had begun goes on."""
    (tmp_path / "s.toml").write_text(
        f"episodes = 4\n{BLOCK}steps = 200\nset = {{ {TINY} }}\n"
        f'[[runs]]\nenv = "CartPole-v1"\npresets = ["intro"]\nsteps = 12_000\n'
        f'set = {{ {TINY}, runtime.checkpoint_steps = 500, learner.replay_ratio = 0.25, max_episodes = "none" }}\n'
    )
    quick, slow = (tmp_path / "suites/s/CartPole-v1" / name for name in ("dqn-seed1", "intro-seed1"))
    command = [sys.executable, "-m", "qlearn", "suite", "s.toml", "--jobs", "1"]
    pipes: dict[str, Any] = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def steps() -> int:
        return max((int(p.name[6:]) for p in list_checkpoints(slow / "checkpoints")), default=0)

    process = subprocess.Popen(command, **pipes)
    wait(lambda: steps() > 0, process)
    fails(here("suite", "s.toml"), 1, "suites/s is being written by another process")
    process.kill()
    process.communicate()
    rows = results.read(tmp_path / "suites/s")
    assert [row["run"] for row in rows] == ["CartPole-v1/dqn-seed1"]
    done = {p: p.stat().st_mtime_ns for p in quick.rglob("*")}
    begun = (slow / "command.txt").stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        deadline = time.monotonic() + 30
        while True:  # its process saves itself and leaves
            try:
                with directory.alone(slow):
                    break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    killed = steps()
    assert killed % 500, "saved where it was when the suite was killed"

    process = subprocess.Popen(command, **pipes)
    wait(lambda: steps() > killed, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "continue with: qlearn suite s.toml --jobs 1" in err
    assert len(err.strip().splitlines()) == 1
    assert "stopping" in out
    assert killed < steps() < 12_000

    result = here("suite", "s.toml")
    assert result.returncode == 0, result.stderr
    assert "2 runs: 1 done, 1 to do" in result.stdout
    assert {p: p.stat().st_mtime_ns for p in quick.rglob("*")} == done
    assert (slow / "command.txt").stat().st_mtime_ns == begun
    counted = [record["episode"] for record in metrics.read(slow, "episode")]
    assert counted == list(range(1, len(counted) + 1))
    written = json.loads((tmp_path / "suites/s/results.json").read_text())
    assert [row["run"] for row in written["rows"]] == ["CartPole-v1/dqn-seed1", "CartPole-v1/intro-seed1"]
    for row in written["rows"]:
        assert len(row["evaluation"]["returns"]) == 4
        assert row["summary"] == json.loads((tmp_path / "suites/s" / row["run"] / "summary.json").read_text())
        assert row["machine"]["torch"]
    assert (written["suite"], written["command"]) == ((tmp_path / "s.toml").read_text(), "qlearn suite s.toml")
    assert {line["label"]: line["seeds"] for line in written["aggregate"]} == {"dqn": 1, "intro": 1}
    assert (tmp_path / "suites/s/suite.png").read_bytes().startswith(b"\x89PNG")
    assert "worst seed" in result.stdout
    _afterwards(here, tmp_path, slow)


def _afterwards(here: Cli, folder: Path, slow: Path) -> None:
    """What can be asked of a finished suite: again, drawn, evaluated anew; and that it is not another one."""
    before = (folder / "suites/s/results.json").read_text()
    trained = (slow / "summary.json").stat().st_mtime_ns
    assert "2 done, 0 to do" in here("suite", "s.toml").stdout
    assert (folder / "suites/s/results.json").read_text() == before
    assert here("plot", "suites/s", "--out", "p.svg").returncode == 0
    drawn = (folder / "p.svg").read_text()
    assert "greedy evaluation, 4 episodes a seed" in drawn
    assert "1 seed each" in drawn
    # Its results say all that there is to say of a run that is gone.
    quick = folder / "suites/s/CartPole-v1/dqn-seed1"
    quick.rename(folder / "gone")
    assert "2 done, 0 to do" in here("suite", "s.toml").stdout
    shutil.copy(folder / "suites/s/results.json", folder / "kept.json")
    assert here("plot", "kept.json", "--out", "q.svg").returncode == 0
    assert "<!-- dqn -->" in (folder / "q.svg").read_text()
    written = json.loads(before)
    written["rows"][0]["config"]["learner"]["batch_size"] = 5
    (folder / "suites/s/results.json").write_text(json.dumps(written))
    assert "1 done, 1 to do" in here("suite", "s.toml").stdout  # that was another run: it is run
    assert quick.exists()
    written = json.loads(before)
    written["rows"][1]["evaluation"].update(episodes=3, mean=-1.0)
    (folder / "suites/s/results.json").write_text(json.dumps(written))
    assert "1 done, 1 to do" in here("suite", "s.toml").stdout
    assert [row["score"] for row in results.read(folder / "suites/s")][1] >= 8
    assert (slow / "summary.json").stat().st_mtime_ns == trained
    text = (folder / "s.toml").read_text()
    (folder / "s.toml").write_text(text.replace("12_000", "12_001"))
    fails(here("suite", "s.toml"), 2, "intro-seed1 was run with steps 12000, and s.toml says 12001", "--out")


def test_a_run_that_fails_stops_no_other_and_is_tried_again(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=os.pathsep)
    (tmp_path / "s.toml").write_text(
        "episodes = 2\n[[runs]]\nenv = 'tests.scripted:Corridor-v0'\npresets = ['dqn']\nsteps = 300\n"
        f"""set = {{ {TINY}, env.max_restarts = 0, env.kwargs = '{{"fault": "raise", "at": 200}}' }}\n"""
        f"{BLOCK}steps = 200\nset = {{ {TINY} }}\n"
    )
    words = ("suite", "s.toml", "--jobs", "2", "--module", "tests.scripted", "--out", "o")
    result = here(*words)
    name = "tests.scripted-Corridor-v0/dqn-seed1"
    fails(result, 1, "1 of 2 runs are done", name, "qlearn suite s.toml --jobs 2")
    assert "the motor is stuck" in result.stdout
    assert [row["env"] for row in results.read(tmp_path / "o")] == ["CartPole-v1"]
    assert (tmp_path / "o/suite.png").exists()
    again = here(*words)  # goes on from step 199, in a new motor
    assert again.returncode == 0, again.stderr + again.stdout
    assert len(results.read(tmp_path / "o")) == 2


def fake(path: Path, seed: int, steps: int, preset: str = "dqn", env: str = "CartPole-v1") -> Path:
    """A run as it is on disk, as far as a picture is concerned."""
    from qlearn import presets
    from qlearn.config import override

    path.mkdir(parents=True)
    directory.write_config(path, override(presets.get(preset, env), {"seed": seed}))
    lines = [
        {"kind": "episode", "steps": s, "return": seed + s / 100, "mean_return": seed + s / 200}
        for s in range(20, steps + 1, 20)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_picture_of_several_environments_has_a_row_for_each(tmp_path: Path) -> None:
    paths = [
        fake(tmp_path / f"{env}{preset}{seed}", seed, 1000 * seed, preset, env)
        for env in ("CartPole-v1", "Acrobot-v1")
        for preset in ("dqn", "intro")
        for seed in (1, 2, 3)
    ]
    plot(paths, tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert drawn.count("3 seeds each, solved at ") == 2
    assert drawn.count("<!-- intro -->") == drawn.count("<!-- dqn -->") == 2
    assert drawn.count("<!-- mean return of the last 100 episodes -->") == 4  # the axes of curves and of scores
    assert drawn.count("a curve ends where its shortest run does") == 2
    assert "<!-- 1,000 -->" in drawn
    assert "<!-- 3,000 -->" not in drawn  # there not every seed has a value


def test_what_was_changed_is_named_and_never_torn(tmp_path: Path) -> None:
    from qlearn.config import override

    for seed, hidden in ((1, 8), (2, 8), (3, 16)):
        path = fake(tmp_path / str(seed), seed, 1000)
        changes = {"network": {"hidden": (hidden,)}, "replay": {"warmup_steps": 7}, "steps": seed * 1000}
        directory.write_config(path, override(directory.read_config(path), changes))
    plot([tmp_path / str(seed) for seed in (1, 2, 3)], tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert "<!-- dqn, network.hidden (8,), -->" in drawn
    assert "<!-- replay.warmup_steps 7, 2 seeds -->" in drawn
    assert "<!-- replay.warmup_steps 7, 1 seed -->" in drawn


def test_a_picture_needs_something_to_draw(tmp_path: Path) -> None:
    fake(tmp_path / "a", 1, 1000)
    fake(tmp_path / "b", 2, 10)
    with pytest.raises(Exception, match="b has no episode to draw"):
        plot([tmp_path / "a", tmp_path / "b"], tmp_path / "p.png")
    results.write(tmp_path, {}, [])
    with pytest.raises(Exception, match="no run that is done yet"):
        plot([tmp_path], tmp_path / "p.png")
    with pytest.raises(UsageError, match="is no suite"):
        results.read(tmp_path / "a")


def test_a_process_that_crashes_is_a_run_that_failed(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "raise SystemError('no memory of this')"
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", broken))
    (tmp_path / "s.toml").write_text(BLOCK)
    result = here("suite", "s.toml")
    fails(result, 1, "0 of 1 runs are done; failed: CartPole-v1/dqn-seed1.")
    assert "failed: SystemError: no memory of this (suites/s/CartPole-v1/dqn-seed1.log)" in result.stdout
    assert "Traceback" in (tmp_path / "suites/s/CartPole-v1/dqn-seed1.log").read_text()
    monkeypatch.setattr(workers, "WORKER", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    assert "failed: killed by SIGKILL" in here("suite", "s.toml").stdout


def test_a_board_whose_reader_has_gone_is_silent_and_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    written = io.StringIO()
    for board in (Board(console=Console(file=Gone())), Board(console=Console(file=written), silent=True)):
        for _ in range(3):
            board.say("1 of 3 runs done")
        board.close()
    assert written.getvalue() == ""
