"""The page of a run: what is told, to whom, and what a browser makes of it."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import qlearn
from qlearn.errors import RunError, UsageError
from qlearn.runs.directory import alone
from qlearn.values import Categorical, Quantiles
from qlearn.watch import Server, export, serve
from qlearn.watch.card import held
from qlearn.watch.curves import POINTS, Log, buckets
from qlearn.watch.episode import distribution, histogram, realised
from qlearn.watch.health import activity
from qlearn.watch.pictures import frame_uri, observation
from qlearn.watch.plain import dumps, plain
from qlearn.watch.story import Story
from tests.conftest import Cli

EVIL = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'
SMALL: dict[str, Any] = {
    "network": {"hidden": (16, 16)},
    "replay": {"warmup_steps": 200, "capacity": 2_000},
    "runtime": {"compile": "eager", "log_steps": 100},
    "progress": False,
}


class Named(gym.Env[Any, Any]):
    """Four steps, and actions with names that are no names."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 4
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.full(3, self.left / 4, np.float32), float(action), self.left == 0, False, {}

    def get_action_meanings(self) -> list[str]:
        return [EVIL, "wait"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Finished runs: of plain values, of a distribution with priorities, and one with names that are no names."""
    folder = tmp_path_factory.mktemp("watched")
    gym.register("Named-v0", lambda **given: Named(**given))
    made = {}
    for name, env, preset, steps in (
        ("dqn", "CartPole-v1", "dqn", 1_000),
        ("rainbow", "CartPole-v1", "rainbow", 500),
        ("named", "Named-v0", "dqn", 300),
    ):
        made[name] = qlearn.train(env, preset=preset, steps=steps, seed=1, run_dir=folder / name, **SMALL).path
    yield made
    del gym.registry["Named-v0"]


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A run, free to be damaged."""
    return Path(shutil.copytree(runs["dqn"], tmp_path / "r"))


@pytest.fixture(scope="module")
def server(runs: dict[str, Path]) -> Iterator[Server]:
    server = serve(runs["dqn"])
    yield server
    server.close()


Answer = tuple[int, dict[str, str], bytes]


def get(server: Server, path: str, *, method: str = "GET", token: bool = True, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    if token:
        headers = {"Cookie": f"qlearn-{server.port}={server.token}", **headers}
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def told(story: Story) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(story.state()[1])
    return state


# --- who may ask, and for what


def test_the_token_opens_the_page_and_nothing_opens_it_without(server: Server) -> None:
    status, headers, body = get(server, f"/?token={server.token}", token=False)
    assert status == 200
    assert b"<title>qlearn watch</title>" in body
    assert f"qlearn-{server.port}={server.token}; HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    for path in ("/", "/?token=", "/?token=wrong", "/api/state", "/api/study", "/app.js", "/nothing"):
        status, headers, body = get(server, path, token=False)
        assert status == 401, path
        assert "Set-Cookie" not in headers
        assert server.token.encode() not in body
    assert get(server, "/api/state", token=False, Cookie=f"qlearn-{server.port}=x")[0] == 401
    assert get(server, "/api/state", token=False, Cookie='"=;;\x01')[0] == 401
    assert get(server, "/api/state", token=False, Cookie=f"qlearn-{server.port}=é".encode().decode("latin1"))[0] == 401
    assert len(server.token) >= 32


def test_another_host_is_refused_even_with_the_token(server: Server) -> None:
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1.evil.example:80",
        "",
        f"0.0.0.0:{server.port}",
    ):
        assert get(server, f"/?token={server.token}", Host=host)[0] == 403, host
    for host in ("127.0.0.1", "localhost"):
        assert get(server, "/", Host=f"{host}:{server.port}")[0] == 200


def test_it_only_reads(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, headers, _ = get(server, "/api/state", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, body = get(server, "/", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


def test_no_path_leads_elsewhere(server: Server) -> None:
    for path in (
        "/../../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/page/../server.py", "/server.py",
        "/config.toml", "/metrics.jsonl", "/%2e%2e/config.toml", "/app.js/..", "/app.js%00", "/\\..\\x", "/api",
        "//[", "*",
    ):  # fmt: skip
        status, _, body = get(server, path)
        assert (status, body) == (404, b"there is nothing of that name\n"), path


def test_every_answer_forbids_what_it_does_not_need(server: Server) -> None:
    for path in ("/", "/app.js", "/style.css", "/api/state", "/nothing"):
        _, headers, _ = get(server, path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
    assert get(server, "/app.js")[1]["Content-Type"].startswith("text/javascript")
    assert server.url.startswith(f"http://127.0.0.1:{server.port}/?token=")


def test_what_has_not_changed_is_not_sent_again(server: Server) -> None:
    for _ in range(100):
        state = json.loads(get(server, "/api/state")[2])
        if state["studied"] is not None:
            break
        time.sleep(0.1)
    assert get(server, f"/api/state?version={state['version']}")[::2] == (204, b"")
    assert json.loads(get(server, "/api/study")[2])["steps"] == 1_000


def test_a_port_that_is_taken_is_named(server: Server, runs: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=f"port {server.port} cannot be used.*choose another --port"):
        serve(runs["dqn"], server.port)
    with pytest.raises(UsageError, match="from 0"):
        serve(runs["dqn"], 70_000)


# --- what is told


def test_the_whole_record_of_a_run(runs: dict[str, Path]) -> None:
    state, study = (json.loads(part) for part in Story(runs["dqn"]).whole())
    assert (state["env"], state["preset"], state["seed"]) == ("CartPole-v1", "dqn", 1)
    assert state["status"]["kind"] == "finished"
    assert state["status"]["sentence"].startswith("Not solved")
    summary = json.loads((runs["dqn"] / "summary.json").read_text())
    assert state["episodes"] == summary["episodes"]
    assert state["mean_return"] == pytest.approx(summary["mean_return"])
    assert {"loss", "q_mean", "q_max", "td_error", "grad_norm", "epsilon"} <= state["curves"]["train"].keys()
    assert study["bound"] == pytest.approx(100)
    assert study["replay"]["size"] == 997  # the last three cannot start three steps yet
    assert study["replay"]["rewards"] == {"labels": ["1"], "counts": [997]}
    assert sum(count for _, count in study["replay"]["actions"]) == 997
    assert [layer["name"] for layer in study["network"]["layers"]] == ["torso.1", "head.layers.0"]
    greedy, behaved = study["player"]["episodes"]
    assert (greedy["name"], behaved["name"]) == ("greedy", "as in training")
    assert greedy["actions"] == ["push left", "push right"]
    assert greedy["action"] == greedy["greedy"]
    assert behaved["action"] != behaved["greedy"]
    assert len(greedy["q"]) == len(greedy["frames"]) == greedy["length"] == greedy["return"]
    assert greedy["frames"][0].startswith("data:image/png;base64,")
    changed = {name: other for name, _, other in state["card"]["fields"] if other}
    assert changed["network.hidden"] == "128 × 128"


def test_a_surprise_is_its_parts(runs: dict[str, Path]) -> None:
    for name in ("dqn", "rainbow"):
        surprises = json.loads(Story(runs[name]).whole()[1])["replay"]["surprises"]
        for one in surprises:
            assert one["target"] == pytest.approx(
                one["reward"] + one["bonus"] + one["discount"] * one["after"] + one["cut"], rel=1e-4, abs=1e-4
            )
            assert one["error"] == pytest.approx(one["target"] - one["q"], rel=1e-4, abs=1e-4)
            assert one["terminated"] == (one["discount"] == 0)
        sizes = [abs(one["error"]) for one in surprises]
        assert sizes == sorted(sizes, reverse=True)


def test_a_distribution_with_priorities(runs: dict[str, Path]) -> None:
    study = json.loads(Story(runs["rainbow"]).whole()[1])
    assert 0 < study["replay"]["priorities"]["effective"] <= 1
    assert sum(study["replay"]["ages"]["drawn"]) == pytest.approx(1, abs=1e-3)
    episode = study["player"]["episodes"][0]
    assert episode["dist"]["bins"] == 51
    assert "state" not in study["network"]
    assert study["network"]["distance"] is not None


def test_the_realised_return_goes_on_where_an_episode_was_cut() -> None:
    reward, never = np.array([1.0, 1.0, 1.0]), np.zeros(3, bool)
    assert realised(reward, never, 0.5, 8.0) == pytest.approx([1 + 0.5 + 0.25 + 1, 1 + 0.5 + 2, 1 + 4])
    assert realised(reward, np.array([False, True, True]), 0.5, 8.0) == pytest.approx([1.5, 1, 1])


def test_quantiles_as_a_histogram_keep_their_mass() -> None:
    edges = np.linspace(-1, 2, 31)
    for quantiles in ([0.0, 0.1, 0.5, 1.0], [0.3] * 5, [-1.0, 2.0]):
        shares = histogram(np.array(quantiles), edges)
        assert shares.sum() == pytest.approx(1)
        assert (shares >= 0).all()
    assert distribution(Quantiles(), [np.zeros((2, 1))]) is None
    found = distribution(Categorical(0, 10, 11), [np.eye(11)[:2]])
    assert found is not None
    assert (found["low"], found["high"], found["bins"]) == (-0.5, 10.5, 11)


def test_units_that_never_speak_are_dormant() -> None:
    layer = activity("x", torch.tensor([[0.0, 1.0, 1.0, 0.001], [0.0, 2.0, 0.0, 0.0]]))
    assert (layer["units"], layer["dormant"], layer["silent"], sum(layer["scores"])) == (4, 2, 1, 4)
    assert activity("x", torch.zeros(3, 5))["dormant"] == 5


def test_observations_as_pictures_and_numbers() -> None:
    from qlearn.types import Space

    byte, real = np.dtype(np.uint8), np.dtype(np.float32)
    assert observation(np.array(3), Space((), np.dtype(np.int64), 2, categories=9)) == [3]
    assert observation(np.array([0.5, 2], np.float32), Space((2,), real, 2)) == [0.5, 2.0]
    for shape, one, kind in (
        ((4, 84, 84), (84, 84), byte), ((84, 84), (84, 84), byte), ((84, 84, 3), (84, 84, 3), byte),
        ((3, 64, 64), (3, 64, 64), real), ((4, 10, 10), (4, 10, 10), byte), ((128,), (128,), byte),
        ((4, 128), (128,), real), ((2, 5, 40, 40), (5, 40, 40), byte),
    ):  # fmt: skip
        uri = observation(np.ones(shape, kind), Space(one, kind, 2))
        assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", uri), shape
    assert frame_uri(np.zeros((0, 3, 3), np.uint8)) is None
    assert frame_uri("no frame") is None


def test_numbers_as_json_takes_them() -> None:
    assert plain({1: (float("nan"), np.float32(1) / 3, np.array([np.inf, 2.0]), True, None)}) == {
        "1": [None, 0.333333, [None, 2.0], True, None]
    }
    for values in (np.array([1 / 3, -1e-12, 0.0, 12345678.9, 1e300]), np.array([]), np.zeros((2, 0))):
        assert np.array(plain(values)) == pytest.approx(np.array(plain(values.tolist())), rel=1e-12)
    assert json.loads(dumps({"x": EVIL})) == {"x": EVIL}
    assert not set(dumps(EVIL)) & set(b"<>&")


# --- the metrics, as they grow


def episodes(count: int, start: int = 0) -> str:
    lines = (
        {"kind": "episode", "steps": 10 * n, "episode": n, "return": float(n % 97), "length": 10, "mean_return": 48.0}
        for n in range(start + 1, start + count + 1)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_ten_thousand_episodes_are_few_points(run: Path) -> None:
    (run / "metrics.jsonl").write_text(episodes(10_000))
    story = Story(run)
    started = time.perf_counter()
    state = told(story)
    assert time.perf_counter() - started < 2
    curve = state["curves"]["episodes"]
    assert (curve["count"], curve["single"]) == (10_000, False)
    assert len(curve["steps"]) == len(curve["low"]) == len(curve["high"]) == POINTS
    assert (curve["steps"][-1], min(curve["low"]), max(curve["high"]), curve["best"]) == (100_000, 0, 96, 96)
    assert len(story.state()[1]) < 200_000
    assert list(buckets(3)) == [0, 1, 2]
    assert list(buckets(0)) == []


def test_lines_are_read_as_they_come_and_anew_after_a_resume(run: Path) -> None:
    file = run / "metrics.jsonl"
    file.write_text(episodes(5))
    log = Log(run)
    assert (log.read(), len(log.episodes)) == (True, 5)
    assert not log.read()
    with open(file, "a") as more:
        more.write(episodes(2, 5) + '{"kind": "episode", "st')
    assert (log.read(), len(log.episodes), log.last_step) == (True, 7, 70)
    with open(file, "a") as more:
        more.write('eps": 80, "return": 1.0}\n')
    assert (log.read(), len(log.episodes), log.last_step) == (True, 8, 80)
    file.write_text(episodes(3))  # a resumed run cuts off what came after its checkpoint
    assert (log.read(), len(log.episodes), log.last_step) == (True, 3, 30)
    file.unlink()
    assert not log.read()


def test_metrics_that_hold_anything_do_no_harm(run: Path) -> None:
    lines = [
        {"kind": "episode", "steps": 10, "return": EVIL, "length": None, "mean_return": 1e400},
        {"kind": "train", "steps": 10, "loss": [1], "q_mean": True, "epsilon": float("nan"), "updates": 10**400},
        {"kind": EVIL, "steps": -1},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = told(Story(run))
    assert state["curves"]["episodes"]["mean"] == [None]
    assert state["last"]["loss"] is None
    for damage in (b"no JSON\n", b"[1]\n", b'{"kind": "episode"}\n', b"\xff\xfe\n", b"1\n"):
        (run / "metrics.jsonl").write_bytes(damage)
        with pytest.raises(RunError, match=r"metrics\.jsonl"):
            Story(run).state()


def test_a_damaged_run_is_told_in_the_page(run: Path) -> None:
    server = serve(run)
    try:
        (run / "metrics.jsonl").write_text("no JSON\n")
        status, _, body = get(server, "/api/state")
        assert status == 200
        assert "metrics.jsonl is damaged" in json.loads(body)["problem"]
    finally:
        server.close()


# --- live, stopped, finished


@pytest.fixture
def trainer(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run as a trainer does, with a run that has not ended."""
    (run / "summary.json").unlink()
    code = f"""
import fcntl, os, time
fcntl.flock(os.open({str(run)!r}, os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_killed_trainer_is_shown_as_stopped(run: Path, trainer: subprocess.Popen[str]) -> None:
    story = Story(run)
    version, body = story.state()
    assert json.loads(body)["status"]["kind"] == "running"
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    status = told(story)["status"]
    assert story.state()[0] != version
    assert status["kind"] == "stopped"
    assert (status["last"], status["saved"]) == (1_000, 1_000)
    assert "last step 1,000; the newest checkpoint is of step 1,000" in status["sentence"]
    assert status["continue"] == f"qlearn resume {run}"


def test_looking_does_not_hold_the_run(run: Path) -> None:
    assert not held(run)
    with alone(run):  # held() has let go
        assert held(run)
    assert not held(run)
    assert not held(run / "nothing")


def test_a_live_run_is_studied_rarely_and_only_for_who_looks(run: Path, trainer: subprocess.Popen[str]) -> None:
    story = Story(run)
    assert not story.due()  # nobody looks
    story.state()
    assert story.due()
    story.learn()
    assert not story.due()  # it is known
    story.studied_steps = 1
    assert not story.due()  # not so soon
    trainer.kill()
    trainer.wait()
    assert story.due()


def test_a_run_that_has_only_begun(run: Path, trainer: subprocess.Popen[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    story = Story(run)
    state = told(story)
    assert (state["status"]["kind"], state["episodes"], state["curves"]["train"]) == ("running", 0, {"count": 0})
    story.learn()
    assert "no checkpoint" in json.loads(story.studied)["player"]["note"]


def test_a_network_of_your_own_is_given_again(tmp_path: Path) -> None:
    def make(shape: tuple[int, ...], actions: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(shape[0], 8), torch.nn.ReLU(), torch.nn.Linear(8, actions))

    given = {**SMALL, "network": make, "steps": 300, "run_dir": tmp_path / "r"}
    path = qlearn.train("CartPole-v1", **given).path
    assert "give the network" in json.loads(Story(path).whole()[1])["player"]["note"]
    study = json.loads(Story(path, make).whole()[1])
    assert study["network"]["layers"][0]["units"] == 8


def test_a_run_without_a_checkpoint_says_so(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    state, study = (json.loads(part) for part in Story(run).whole())
    assert "there is no checkpoint" in state["status"]["sentence"]
    assert all("no checkpoint" in study[panel]["note"] for panel in ("player", "replay", "network"))


# --- strangers' runs


def test_a_damaged_checkpoint_is_a_note(run: Path) -> None:
    file = next((run / "checkpoints").glob("*/networks.safetensors"))
    file.write_bytes(b"\0" * file.stat().st_size)
    study = json.loads(Story(run).whole()[1])
    assert "damaged" in study["player"]["note"]


def test_what_is_whole_of_a_damaged_checkpoint_is_shown(run: Path) -> None:
    file = next((run / "checkpoints").glob("*/training.safetensors"))
    file.write_bytes(b"\0" * file.stat().st_size)
    study = json.loads(Story(run).whole()[1])
    assert "damaged" in study["replay"]["note"]
    assert study["player"]["episodes"][0]["length"] > 0
    assert study["network"]["source"] == "episode above"
    assert study["network"]["distance"] is not None


def test_a_memory_that_is_too_large_is_left_where_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlearn.watch.study.free_memory", lambda: 1_000)
    study = json.loads(Story(run).whole()[1])
    assert "too much to read" in study["replay"]["note"]
    assert study["player"]["episodes"][0]["length"] > 0


def test_an_environment_that_is_not_imported_is_a_note(run: Path) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace('"CartPole-v1"', '"os.path_stranger:CartPole-v1"'))
    state, study = (json.loads(part) for part in Story(run).whole())
    assert state["env"] == "os.path_stranger:CartPole-v1"
    assert "--module os.path_stranger" in study["player"]["note"]


def evil(run: Path) -> Path:
    """The run, with names that are no names wherever it has some."""
    config = run / "config.toml"
    text = (
        config.read_text()
        .replace('"CartPole-v1"', json.dumps(EVIL))
        .replace('preset = "dqn"', f"preset = {json.dumps(EVIL)}")
    )
    config.write_text(text)
    (run / "command.txt").write_text(EVIL)
    return run


def test_a_link_that_leads_out_of_the_run_is_not_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("my secret")
    (run / "command.txt").unlink()
    (run / "command.txt").symlink_to(tmp_path / "secret")
    assert b"my secret" not in Story(run).state()[1]


def test_names_that_are_no_names_stay_text(run: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    for path in (evil(run), runs["named"]):
        export(path, tmp_path / "page.html")
        html = (tmp_path / "page.html").read_text()
        assert "onerror" in html  # it is there, as JSON
        assert "<img" not in html
        assert html.count("<script") == html.count("</script>") == 2


# --- one file


class Links(HTMLParser):
    """What a page refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "href", "action", "data", "poster", "srcset")
        self.found += [value or "" for name, value in attrs if name in names or name.startswith("on")]


def test_the_export_needs_nothing_else(here: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    result = here("watch", str(runs["dqn"]), "--export", "out/page.html")
    assert (result.returncode, result.stdout) == (0, "out/page.html\n"), result.stderr
    html = (tmp_path / "out/page.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", html.replace("http-equiv", ""))
    assert all(link.startswith("#") for link in Links(html).found), Links(html).found
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert re.match(
        r"default-src 'none'; script-src 'sha256-[\w+/=]+'; style-src 'sha256-[\w+/=]+'; img-src data:", policy[1]
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "there is no run nothing"),
        (("{run}", "--export", "page.png"), "must be an .html file"),
        (("{run}", "--port", "99999"), "--port is 99999"),
        (("{run}", "--module", "no_such_module"), "no module no_such_module"),
        ((".",), "is not a run"),
    ],
)
def test_wrong_usage_is_one_line(here: Cli, runs: dict[str, Path], words: tuple[str, ...], said: str) -> None:
    result = here("watch", *(word.replace("{run}", str(runs["dqn"])) for word in words))
    assert result.returncode in (1, 2)
    assert len(result.stderr.strip().splitlines()) == 1
    assert said in result.stderr


def test_the_command_serves_until_it_is_interrupted(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-W", "error", "-m", "qlearn", "watch", str(runs["dqn"])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/\?token=[\w-]+)\n", process.stdout.readline())
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
    connection.request("GET", found[2])
    assert connection.getresponse().status == 200
    connection.close()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


# --- a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; what it loads and what its console says can be asked."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,900",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


class Page:
    """A page in the browser."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        self.console()
        self.requests()
        browser.get(url)
        self.until("return document.querySelector('#player .stage, #player .note:not(:empty)') && known.study !== null")

    def __call__(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def until(self, script: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self(script):
            assert time.monotonic() < end, f"never: {script}"
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def text(self, selector: str) -> str:
        return str(self(f"return document.querySelector({selector!r}).innerText"))


def test_a_browser_shows_every_panel(browser: Any, runs: dict[str, Path]) -> None:
    for name in ("dqn", "rainbow"):
        server = serve(runs[name])
        try:
            page = Page(browser, server.url)
            assert page.text("#pill") == "finished"
            assert "CartPole-v1" in page.text("h1")
            assert "Not solved" in page.text("#sentence")
            assert page("return document.querySelectorAll('#curves svg .line.first').length") >= 6
            assert page("return document.querySelectorAll('#replay .surprise').length") == 8
            assert page("return document.querySelectorAll('#network tbody tr').length") >= 8
            assert "discount γ" in page.text("#card")
            assert page("return document.querySelectorAll('.actions > li').length") == 3
            assert page("return document.querySelectorAll('.shape canvas').length") == (2 if name == "rainbow" else 0)
            assert page("return player.frame.naturalWidth") == 400
            assert page("return document.querySelectorAll('svg[role=img]:not([aria-label])').length") == 0
            assert page("return document.documentElement.scrollWidth <= innerWidth")
            assert page("const t = performance.now(); fillCurves(known.state, 1); return performance.now() - t") < 500
            origin = server.url.partition("/?")[0]
            assert all(url.startswith((origin, "data:image/png;", "data:,")) for url in page.requests())
            assert page.console() == []
        finally:
            server.close()


def test_the_keyboard_is_enough(browser: Any, server: Server) -> None:
    page = Page(browser, server.url)
    left, right, tab, shift = "\ue012", "\ue014", "\ue004", "\ue008"
    page.press(right, right, "k")
    assert page("return player.step") == 3
    page.press(left, "j")
    assert page("return player.step") == 1
    page.press("e")
    assert page("return Math.abs(player.episode.error[player.step]) >= player.episode.large_error")
    place = page("return player.step")
    page.press("g", shift + "e")
    assert page("return player.step") <= max(place, page("return player.episode.length"))
    assert page("return document.querySelector('input[type=range]').getAttribute('aria-valuetext')").startswith("step ")
    before = page("return getComputedStyle(document.body).backgroundColor")
    page.press("t")
    assert page("return getComputedStyle(document.body).backgroundColor") != before
    page("go(0)")
    page.press(" ")
    page.until("return player.step > 1 || player.timer === null")
    page("stop()")
    page("document.activeElement.blur()")
    page.press(tab)
    assert page("return document.activeElement.className") == "skip"
    for _ in range(4):
        page.press(tab)
    assert page("return document.activeElement.matches('a:focus-visible')")
    assert page("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page("document.querySelectorAll('.choice button')[1].click()")
    page.press("x")
    assert "random" in page.text(".actions")
    assert page.console() == []


def test_the_exported_file_is_the_same_page(browser: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    export(runs["rainbow"], tmp_path / "page.html")
    page = Page(browser, (tmp_path / "page.html").as_uri())
    assert page("return document.querySelectorAll('#replay .surprise').length") == 8
    page.press("k")
    assert page("return player.step") == 1
    assert page.console() == []
    assert all(url.startswith((f"file://{tmp_path}", "data:image/png;")) for url in page.requests())


def test_names_that_are_no_names_run_nothing(browser: Any, run: Path, runs: dict[str, Path]) -> None:
    for path in (evil(run), runs["named"]):
        server = serve(path)
        try:
            page = Page(browser, server.url)
            assert "onerror" in page.text("main")
            assert page("return window.hacked === undefined && !document.querySelector('main img[src=x]')")
            assert page.console() == []
        finally:
            server.close()


def test_a_page_that_is_open_sees_the_trainer_die(browser: Any, run: Path, trainer: subprocess.Popen[str]) -> None:
    server = serve(run)
    try:
        page = Page(browser, server.url)
        assert page.text("#pill") == "training"
        with open(run / "metrics.jsonl", "a") as file:
            file.write(
                json.dumps({"kind": "episode", "steps": 1_234, "return": 9.0, "length": 9, "mean_return": 9.0}) + "\n"
            )
        page.until("return document.querySelector('.figure b').textContent === '1,234'", 5)
        trainer.kill()
        trainer.wait()
        page.until("return document.getElementById('pill').textContent === 'stopped at step 1,234'", 5)
        assert "qlearn resume" in page.text("#sentence")
        assert page.console() == []
    finally:
        server.close()
