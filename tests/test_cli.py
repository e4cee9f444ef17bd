"""The command line, end to end, as processes of their own in an empty folder; and each mistake, in one line."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qlearn.runs import metrics
from tests.conftest import Cli

REPLAY_RATIO = 0.5
CORRIDOR = """
import gymnasium
gymnasium.register("Thing-v0", "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv", max_episode_steps=20)
"""
SHORT = ("train", "CartPole-v1", "--steps", "1500", "--replay.warmup-steps", "200", "--network.hidden", "16")


def fails(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """One line on stderr that holds the parts, and the exit code."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished short run, made by the command."""
    folder = tmp_path_factory.mktemp("finished")
    command = [sys.executable, "-W", "error", "-m", "qlearn", *SHORT, "--seed", "3"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder / "runs" / "CartPole-v1" / "dqn-seed3-001"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, free to be damaged, in the folder of the command."""
    return Path(shutil.copytree(finished, tmp_path / "r"))


def test_a_run_leaves_the_directory_of_the_contract(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert names == {
        "config.toml", "command.txt", "metrics.jsonl", "tensorboard", "checkpoints", "learning_curve.png",
        "summary.json",
    }  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert summary.keys() >= {
        "env_id", "preset", "seed", "steps", "episodes", "updates", "solved", "solved_at_episode", "solved_at_step",
        "mean_return", "best_mean_return", "wall_seconds", "steps_per_second", "device"
    }  # fmt: skip
    assert (summary["env_id"], summary["preset"], summary["seed"]) == ("CartPole-v1", "dqn", 3)
    assert (summary["steps"], summary["solved"], summary["device"]) == (1500, False, "cpu")
    assert "--network.hidden 16" in (finished / "command.txt").read_text()
    episodes = list(metrics.read(finished, "episode"))
    assert len(episodes) == summary["episodes"] > 30
    for kind, described in metrics.DESCRIPTIONS.items():
        records = list(metrics.read(finished, kind))
        assert all(record.keys() - {"kind", "steps"} <= described.keys() for record in records)
        assert records[-1].keys() - {"kind", "steps"} == described.keys() - {
            "states_visited",
            "outside_support",
        }  # of others
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert any((finished / "tensorboard").iterdir())
    assert [p.name for p in (finished / "checkpoints").iterdir()] == ["steps-000001500"]


def test_training_says_how_it_went_and_what_comes_next(cli: Cli) -> None:
    result = cli(*SHORT)
    assert result.returncode == 0, result.stderr
    assert "Not solved: the limit of 1,500 steps was reached" in result.stdout
    assert "Results  runs/CartPole-v1/dqn-seed0-001" in result.stdout
    assert "Next     qlearn play runs/CartPole-v1/dqn-seed0-001" in result.stdout
    assert "\x1b" not in result.stdout  # plain lines where the output is no terminal
    assert "step 1,500/1,500" in result.stdout
    again = cli(*SHORT)
    assert "dqn-seed0-002" in again.stdout  # never overwritten


def test_solved_in_so_many_episodes(here: Cli, tmp_path: Path) -> None:
    result = here(*SHORT, "--until-solved", "--reward-threshold", "12", "--window", "20", "--run-dir", "r")
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["solved"]
    assert summary["solved_at_episode"] == summary["episodes"]
    assert f"Solved in {summary['episodes']} episodes" in result.stdout
    assert here("train", "CartPole-v1", "--max-episodes", "7", "--run-dir", "m").returncode == 0
    assert json.loads((tmp_path / "m/summary.json").read_text())["episodes"] == 7


def test_the_same_seed_gives_the_same_metrics(finished: Path, cli: Cli, tmp_path: Path) -> None:
    def lines(run: Path) -> list[dict[str, object]]:
        clocks = ("wall_seconds", "steps_per_second")
        return [{k: v for k, v in record.items() if k not in clocks} for record in metrics.read(run)]

    cli(*SHORT, "--seed", "3", "--run-dir", "same")
    cli(*SHORT, "--seed", "4", "--run-dir", "other")
    assert lines(tmp_path / "same") == lines(finished)
    assert lines(tmp_path / "other") != lines(finished)


def test_evaluate_prints_one_object(here: Cli, finished: Path) -> None:
    result = here("evaluate", str(finished), "--episodes", "12", "--json")
    printed = json.loads(result.stdout)
    assert printed.keys() == {
        "env_id", "episodes", "mean", "std", "median", "ci_low", "ci_high", "returns", "protocol"
    }  # fmt: skip
    assert len(printed["returns"]) == printed["episodes"] == 12
    assert printed == json.loads(here("evaluate", str(finished), "--episodes", "12", "--json").stdout)
    other = json.loads(here("evaluate", str(finished), "--episodes", "12", "--seed", "9", "--json").stdout)
    assert other["returns"] != printed["returns"]
    assert "95 % interval" in here("evaluate", str(finished), "--episodes", "2").stdout


def test_plot_draws_one_run_and_several(here: Cli, finished: Path, tmp_path: Path) -> None:
    here(*SHORT, "--seed", "4", "--run-dir", "b")
    for out, runs in {"one.png": [str(finished)], "two.svg": [str(finished), "b"], "three.pdf": ["b"]}.items():
        result = here("plot", *runs, "--out", out)
        assert (result.returncode, result.stdout.strip()) == (0, out), result.stderr
        assert (tmp_path / out).stat().st_size > 5_000
    assert "2 seeds" in (tmp_path / "two.svg").read_text()


def test_play_writes_a_video(cli: Cli, finished: Path, tmp_path: Path) -> None:
    result = cli("play", str(finished), "--video", "v/film.mp4", "--episodes", "2")
    assert result.returncode == 0, result.stderr
    film = tmp_path / "v/film.mp4"
    assert [p.name for p in film.parent.iterdir()] == ["film.mp4"]
    from qlearn.play import _find_ffmpeg

    probe = subprocess.run([_find_ffmpeg(), "-i", str(film)], capture_output=True, text=True, check=False).stderr
    assert "h264" in probe
    assert "900x400" in probe  # the frame of 600 and the panel of 300
    assert "50 fps" in probe


def test_play_in_a_window(here: Cli, finished: Path) -> None:
    result = here("play", str(finished), "--episodes", "1", SDL_VIDEODRIVER="dummy")
    assert result.returncode == 0, result.stderr
    assert "returns" in result.stdout


def test_resume_continues(here: Cli, run: Path) -> None:
    before = list(metrics.read(run))
    fails(here("resume", "r"), 2, "has its 1,500 steps already", "--steps")
    result = here("resume", "r", "--steps", "2500")
    assert result.returncode == 0, result.stderr
    after = list(metrics.read(run))
    assert after[: len(before)] == before
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["steps"], summary["updates"]) == (2500, int((2500 - 200) * REPLAY_RATIO))
    assert summary["episodes"] == sum(r["kind"] == "episode" for r in after)
    fails(here("resume", "r"), 2, "2,500 steps already")  # the new number of steps is the run's own now


def test_ctrl_c_once_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qlearn", "train", "CartPole-v1", "--run-dir", "r", "--steps", "500000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "r/metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and b'"train"' in log.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with: qlearn resume r" in err
    assert len(err.strip().splitlines()) == 1
    steps = int((tmp_path / "r/checkpoints").iterdir().__next__().name.removeprefix("steps-"))
    assert f"saved at step {steps:,}" in err
    assert "stopping" in out


def test_several_seeds_are_several_runs(cli: Cli, tmp_path: Path) -> None:
    result = cli(*SHORT, "--seeds", "2", "--seed", "5")
    assert {p.name for p in (tmp_path / "runs/CartPole-v1").iterdir()} == {"dqn-seed5-001", "dqn-seed6-001"}
    assert "Next     qlearn plot runs/CartPole-v1/dqn-seed5-001 runs/CartPole-v1/dqn-seed6-001" in result.stdout


def test_presets_and_diff(here: Cli) -> None:
    listed = here("presets", COLUMNS="200").stdout
    assert "intro" in listed
    assert "dqn" in listed
    changed = here("diff", "dqn", "intro").stdout
    assert "learner.target_update_steps" in changed
    assert "2,500" in changed
    assert here("diff", "dqn", "dqn").stdout.strip() == "dqn and dqn are the same"
    rainbow = "\n".join(line.rstrip() for line in here("diff", "dqn", "rainbow").stdout.splitlines())
    assert f"$ qlearn diff dqn rainbow\n{rainbow}\n```" in (Path(__file__).parent.parent / "README.md").read_text()


def test_help_names_every_command_and_field(here: Cli) -> None:
    assert "evaluate" in here("--help").stdout
    text = here("train", "CartPole-v1", "--help", COLUMNS="100").stdout
    assert "--replay.capacity" in text
    assert "Transitions per update" in text
    assert here("train", "CartPole-v1", "--preset", "intro", "--help").stdout.count("16 16 16") == 1


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["trian", "CartPole-v1"], 2, ["unknown command trian", "train"]),
        (["train"], 2, ["ENV"]),
        (["train", "CartPol-v1"], 2, ["CartPol-v1", "did you mean CartPole-v1"]),
        (["train", "Pendulum-v1"], 2, ["Discrete actions only"]),
        (["train", "CartPole-v1", "--preset", "intor"], 2, ["unknown preset intor", "intro"]),
        (["train", "CartPole-v1", "--replay.capcity", "9"], 2, ["--replay.capcity", "did you mean --replay.capacity"]),
        (["train", "CartPole-v1", "--replay.capacity", "many"], 2, ["--replay.capacity", "many"]),
        (["train", "CartPole-v1", "--replay.gamma", "1.5"], 2, ["replay.gamma is 1.5", "from 0 to 1"]),
        (
            ["train", "CartPole-v1", "--learner.batch-size", "0"],
            2,
            ["learner.batch_size is 0", "from 1 to 1,000,000,000,000"],
        ),
        (["train", "CartPole-v1", "--learner.loss", "hubr"], 2, ["hubr", "huber"]),
        (["train", "CartPole-v1", "--replay.capacity", "3"], 2, ["replay.capacity is 3", "at least"]),
        (["train", "CartPole-v1", "--env.kwargs", "{"], 2, ["env.kwargs", "JSON"]),
        (["train", "CartPole-v1", "--device", "cuda"], 2, ["CUDA", "--device cpu"]),
        (["train", "Acrobot-v1", "--seeds", "0"], 2, ["--seeds is 0"]),
        (["train", "FrozenLake-v1", "--steps", "nan"], 2, ["--steps", "nan"]),
        (["train", "Blackjack-v1", "--until-solved"], 2, ["Blackjack-v1", "--reward-threshold"]),
        (["evaluate", "nowhere"], 2, ["there is no run nowhere"]),
        (["resume", "."], 1, [". is not a run"]),
        (["play", "nowhere", "--video", "x.mp4"], 2, ["there is no run nowhere"]),
        (["plot", "nowhere"], 2, ["there is no run nowhere"]),
        (["diff", "dqn", "rainbo"], 2, ["unknown preset rainbo"]),
        (["evaluate", "nowhere", "--episodes", "0"], 2, ["--episodes is 0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(here: Cli, words: list[str], code: int, parts: list[str]) -> None:
    fails(here(*words), code, *parts)


def test_a_mistake_leaves_nothing_behind(here: Cli, tmp_path: Path) -> None:
    here("train", "CartPol-v1")
    here("train", "CartPole-v1", "--learner.batch-size", "0", "--run-dir", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_is_never_overwritten(here: Cli, run: Path) -> None:
    fails(here(*SHORT, "--run-dir", "r"), 2, "r exists", "--run-dir")


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("config.toml", "steps = ", ["config.toml is damaged"]),
        ("config.toml", "stepz = 5", ["unknown field stepz", "did you mean steps"]),
        ("config.toml", "steps = '5'", ["steps is '5'", "int"]),
        ("config.toml", "[learner]\nloss = 'os.system'", ["learner.loss", "huber"]),
        ("checkpoints/steps-000001500/MANIFEST.json", "{}", ["MANIFEST.json is damaged"]),
        ("checkpoints/steps-000001500/networks.safetensors", "xx", ["damaged", "digest"]),
    ],
)
def test_a_damaged_run_is_one_line(here: Cli, run: Path, file: str, content: str, parts: list[str]) -> None:
    (run / file).write_text(content)
    fails(here("evaluate", "r"), 1, *parts)


def test_a_run_of_another_network_is_refused(here: Cli, run: Path) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("hidden = [\n    16,\n]", "hidden = [8]"))
    fails(here("evaluate", "r"), 2, "network.hidden (8,), and the run was made with (16,); change it back")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run: Path) -> None:
    newer = run / "checkpoints/steps-000002000"
    shutil.copytree(run / "checkpoints/steps-000001500", newer)
    (newer / "networks.safetensors").write_bytes(b"{}")
    command = [sys.executable, "-m", "qlearn", "evaluate", "r", "--episodes", "1"]
    result = subprocess.run(command, cwd=run.parent, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0
    assert "qlearn: warning:" in result.stderr
    assert "is damaged" in result.stderr
    assert "taking the checkpoint before it" in result.stderr


def test_an_environment_that_fails_in_the_middle_loses_nothing(cli: Cli, tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent)
    words = ["train", "tests.scripted:Corridor-v0", "--run-dir", "r", "--replay.warmup-steps", "100"]
    words += ["--env.max-restarts", "0"]
    for fault, said in {"raise": "the motor is stuck", "nan": "observation with nan", "nan reward": "nan"}.items():
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        result = cli(*words, "--env.kwargs", json.dumps({"fault": fault, "at": 1300}), PYTHONPATH=root)
        fails(result, 1, said, "Saved at step 1,299", "qlearn resume r")
        assert len(list(metrics.read(tmp_path / "r"))) > 40
        assert (tmp_path / "r/checkpoints/steps-000001299/MANIFEST.json").exists()


def test_the_files_of_a_run_cannot_have_a_module_imported(run: Path) -> None:
    (run.parent / "stranger.py").write_text("open('canary', 'w').close()\n" + CORRIDOR)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("CartPole-v1", "stranger:Thing-v0"))
    for verb in ("evaluate", "play", "resume"):
        more = ("--steps", "9999") if verb == "resume" else ("--episodes", "1")
        command = [sys.executable, "-m", "qlearn", verb, "r", *more]
        result = subprocess.run(command, cwd=run.parent, capture_output=True, text=True, timeout=120, check=False)
        fails(result, 2, "may not import stranger", "--module stranger")
    assert not (run.parent / "canary").exists()
    command += ["--module", "stranger"]
    result = subprocess.run(command, cwd=run.parent, capture_output=True, text=True, timeout=120, check=False)
    assert (run.parent / "canary").exists()
    fails(result, 2, "env.id stranger:Thing-v0, and the run was made with CartPole-v1")


def test_a_missing_package_is_named_with_the_line_that_installs_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "Box2D").mkdir()
    (tmp_path / "Box2D/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'Box2D'\", name='Box2D')")
    result = cli("train", "LunarLander-v3", "--steps", "9", PYTHONPATH=str(tmp_path))
    fails(result, 1, "LunarLander-v3", "pip install 'qlearn[box2d]'")


def test_a_full_disk_at_the_end_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from qlearn.cli import main; sys.exit(main())"
    )
    words = [*SHORT, "--run-dir", "r", "--runtime.checkpoint-steps", "100000", "--runtime.log-steps", "500"]
    result = subprocess.run(
        [sys.executable, "-c", limited, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    fails(result, 1, "cannot write", "intact")
    assert len(list(metrics.read(tmp_path / "r"))) > 30
    assert not list((tmp_path / "r/checkpoints").glob("*"))


def test_videos_that_cannot_be_made(here: Cli, finished: Path, tmp_path: Path) -> None:
    fails(here("play", str(finished), "--video", "film.gif"), 2, ".mp4")
    fails(here("play", str(finished), DISPLAY="", WAYLAND_DISPLAY="", SDL_VIDEODRIVER=""), 2, "no screen", "--video")
    fails(here("plot", str(finished), "--out", "x.gif"), 2, ".png, .svg or .pdf")
    (tmp_path / "file").write_text("")
    fails(here("play", str(finished), "--video", "file/film.mp4"), 1, "cannot write")
