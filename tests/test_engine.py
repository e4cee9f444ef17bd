"""How an update runs: optimisers beside PyTorch's own, compiled beside eager, and machines that cannot compile."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qlearn import dqn, presets
from qlearn.build import Parts, build
from qlearn.build.pieces import build_mode
from qlearn.config import Config, check, override
from qlearn.engine import Adam, CenteredRMSProp, Mode, Optimizer, Program, RAdam, program
from qlearn.prioritized import Prioritized
from qlearn.replay import Ring
from qlearn.types import Space, Steps


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of libraries, of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(program, "_told", set())
    return tmp_path / "cache" / "qlearn" / "compiled"


# Optimisers


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam(3e-3, epsilon=1e-4), lambda p: torch.optim.Adam(p, 3e-3, eps=1e-4)),
        (RAdam(3e-3, epsilon=1e-4), lambda p: torch.optim.RAdam(p, 3e-3, eps=1e-4)),
    ],
)
def test_optimisers_are_pytorchs(ours: Optimizer, theirs: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(50, generator=rng, dtype=torch.float64))
    vector, memory = parameter.detach().clone(), (torch.zeros(50).double(), torch.zeros(50).double())
    optimizer = theirs([parameter])
    for step in range(1, 60):  # RAdam turns adaptive at step 6
        gradient = torch.randn(50, generator=rng, dtype=torch.float64) * 10 ** torch.randn((), generator=rng).double()
        parameter.grad = gradient.clone()
        optimizer.step()
        numbers = torch.tensor(ours.numbers(step, ours.learning_rate), dtype=torch.float64)
        vector, memory = ours.descend(vector, gradient, memory, numbers.unbind())  # type: ignore[assignment]
        torch.testing.assert_close(vector, parameter.detach(), rtol=1e-12, atol=1e-14)


# Compiled and eager


def product(value: str, backup: str, *, dueling: bool, noisy: bool, prioritized: bool, n: int, **more: Any) -> Config:
    """A small run on CartPole of these axes."""
    changes: dict[str, Any] = {
        "steps": 100_000,
        "env": {"id": "CartPole-v1", "num_envs": 2},
        "network": {"hidden": (16, 16), "dueling": dueling, "noisy": noisy},
        "value": {"kind": value, "v_min": -5.0, "v_max": 40.0, "atoms": 11, "quantiles": 5},
        "backup": {"double": backup == "double", "munchausen": backup == "munchausen"},
        "replay": {"capacity": 500, "warmup_steps": 100, "n_step": n, "prioritized": prioritized},
        "learner": {"batch_size": 16, "target_update_steps": 20},
        "optimizer": {"learning_rate": 1e-3, "end_learning_rate": None, "decay_steps": 0},
    }
    for group, fields in more.items():
        changes[group] = {**changes.get(group, {}), **fields}
    return check(override(Config(), changes))


def beside(config: Config) -> tuple[Parts, Parts]:
    """The run eagerly and compiled, both with the same full memory."""
    made = []
    for mode in ("eager", "compiled"):
        parts = build(override(config, {"runtime": {"compile": mode}}))
        assert parts.replay is not None
        while not parts.replay.ring.fill >= 1:
            parts.replay.append(parts.actor.rollout(1.0)[0])
        made.append(parts)
    return made[0], made[1]


def same_updates(one: Parts, other: Parts, count: int) -> None:
    """Updates with the same minibatches: errors, losses and parameters agree after each, to rounding."""
    a, b = one.learner, other.learner
    assert isinstance(a, dqn.Learner)
    assert isinstance(b, dqn.Learner)
    assert one.replay is not None
    for k in range(count):
        index, weight = one.replay.sample(16)
        mine, theirs = a.update(index, weight), b.update(index, weight)
        one.replay.reweigh(index, mine)
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-3)
        assert b.descent.gradient.loss == pytest.approx(a.descent.gradient.loss, rel=2e-2, abs=1e-4)
        if k % 20 == 10:
            a.synchronize()
            b.synchronize()
    torch.testing.assert_close(a.descent.flat.vector, b.descent.flat.vector, rtol=2e-2, atol=2e-3)
    for name, mean in a.descent.memory.items():
        torch.testing.assert_close(mean, b.descent.memory[name], rtol=5e-2, atol=2e-2)
    obs = torch.from_numpy(one.actor.seen)
    torch.testing.assert_close(a.q_values(obs), b.q_values(obs), rtol=2e-2, atol=2e-2)


AXES = list(itertools.product(["scalar", "c51", "qr", "iqn"], ["greedy", "double", "munchausen"]))


@pytest.mark.parametrize(
    "config",
    [
        product("scalar", "greedy", dueling=False, noisy=False, prioritized=False, n=1),
        product("c51", "double", dueling=True, noisy=True, prioritized=True, n=3),
        product("iqn", "munchausen", dueling=False, noisy=True, prioritized=False, n=2, optimizer={"name": "radam"}),
        product(
            "qr", "munchausen", dueling=True, noisy=False, prioritized=True, n=3,
            env={"frame_stack": 3}, optimizer={"name": "rmsprop", "epsilon": 1e-4}, learner={"max_grad_norm": 0.0},
        ),
    ],
    ids=["dqn", "rainbow", "iqn-munchausen-noisy-radam", "qr-munchausen-dueling-stack-rmsprop"],
)  # fmt: skip
def test_compiled_is_eager_to_rounding_over_100_updates(config: Config) -> None:
    eager, compiled = beside(config)
    same_updates(eager, compiled, 100)
    assert isinstance(compiled.learner, dqn.Learner)
    assert compiled.learner.descent.compiled  # and did not fall back
    eager.envs.close()
    compiled.envs.close()


@pytest.mark.parametrize(("value", "backup"), AXES)
def test_what_is_traced_is_the_update_for_every_product_of_axes(value: str, backup: str) -> None:
    """The graph that is compiled, interpreted: for all products of value, backup, network and n."""
    for dueling, noisy, n in itertools.product([False, True], [False, True], [1, 3]):
        parts = build(product(value, backup, dueling=dueling, noisy=noisy, prioritized=False, n=n))
        assert parts.replay is not None
        while not parts.replay.ring.fill >= 1:
            parts.replay.append(parts.actor.rollout(1.0)[0])
        descent = parts.learner.descent  # type: ignore[union-attr]
        run, index = descent._program, parts.replay.sample(16)[0]
        descent._coefficients[:] = torch.tensor(descent.optimizer.numbers(1, 1e-3))
        numbers = descent.numbers(index)
        inputs = (descent._coefficients, *numbers, torch.rand(16), index)
        arguments = [*(tensor.clone() for tensor in run._kept), *inputs]
        expected = run._function(*arguments)
        graph = program.traced(run._function, arguments, run._changes)
        outputs = graph(*arguments)
        for got, wanted in zip([*arguments[: run._changes], *outputs], expected, strict=True):
            torch.testing.assert_close(got, wanted.detach(), rtol=1e-4, atol=1e-6)
        parts.envs.close()


def test_masks_are_compiled_too() -> None:
    masked = {"id": "Taxi-v4", "num_envs": 1}
    config = product("scalar", "double", dueling=False, noisy=False, prioritized=False, n=2, env=masked)
    eager, compiled = beside(config)
    assert eager.envs.space.masked
    same_updates(eager, compiled, 30)
    eager.envs.close()
    compiled.envs.close()


def test_prioritised_sampling_is_the_same_compiled() -> None:
    memories, rng = [], np.random.default_rng(0)
    for mode in ("eager", "compiled"):
        ring = Ring(Space((), np.dtype(np.float32), 2), 300, 1)
        memories.append(Prioritized(ring, np.random.default_rng(1), mode=mode))
    for turn in range(120):
        count = 60 if turn in (0, 50) else int(rng.integers(1, 4))  # sometimes more than enters in one call
        rows, done = np.zeros((count, 1)), rng.random((count, 1)) < 0.2
        drawn = []
        for memory in memories:
            memory.append(Steps(rows, rows.astype(np.int64), rows, done, done))
            drawn.append(memory.sample(16))
        (index, weight), (other, weights) = drawn
        assert torch.equal(index, other)
        torch.testing.assert_close(weight, weights)
        error = torch.from_numpy(rng.random(16).astype(np.float32)) * 4
        error = error[np.unique(index, return_inverse=True)[1]]  # a row that comes twice has one error
        for memory in memories:
            memory.reweigh(index, error)
        assert memories[0].largest == pytest.approx(memories[1].largest)
        np.testing.assert_allclose(memories[0].tree.leaves, memories[1].tree.leaves, rtol=1e-6)
        assert memories[0].count == memories[1].count == np.count_nonzero(memories[0].tree.leaves)


def test_pqn_is_the_same_compiled() -> None:
    runs = []
    for mode in ("eager", "compiled"):
        config = override(
            presets.get("pqn", "CartPole-v1"),
            {
                "steps": 700, "env": {"num_envs": 4}, "network": {"hidden": (16, 16)},
                "pqn": {"rollout_steps": 16, "minibatches": 3}, "runtime": {"compile": mode},
            },
        )  # fmt: skip
        parts = build(check(config))
        list(parts.train())
        runs.append(parts)
        parts.envs.close()
    eager, compiled = (parts.learner.descent for parts in runs)  # type: ignore[union-attr]
    assert compiled.compiled
    assert eager.steps == compiled.steps > 100
    torch.testing.assert_close(eager.flat.vector, compiled.flat.vector, rtol=2e-2, atol=5e-3)


# The cache


def test_a_second_process_compiles_nothing_and_runs_the_same(cache: Path, tmp_path: Path) -> None:
    lines = []
    for name in ("first", "second"):
        before = {path: path.stat().st_ino for path in cache.glob("*.so")}
        script = (
            "import qlearn, logging; logging.basicConfig(level='INFO'); import torch; torch.set_num_threads(1); "
            f"qlearn.train('CartPole-v1', steps=1_400, seed=3, run_dir={str(tmp_path / name)!r}, progress=False, "
            "network={'hidden': (16, 16)}, runtime={'compile': 'compiled'})"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
        assert ("compiling the update" in done.stderr) == (name == "first")
        if before:
            assert before == {path: path.stat().st_ino for path in cache.glob("*.so")}
        metrics = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        lines.append([{k: v for k, v in m.items() if "second" not in k} for m in metrics])
    assert len(list(cache.glob("*.so"))) == 2  # the update and acting
    assert cache.stat().st_mode & 0o077 == 0
    assert lines[0] == lines[1]


def double(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The new x, and an output."""
    return x + y, 2 * y


def run_twice(mode: Mode, function: Any = double, x: Tensor | None = None) -> tuple[Program, Tensor, list[float]]:
    kept = torch.ones(3) if x is None else x
    made = Program(function, [kept], changes=1, mode=mode, name="the update")
    outputs = [made(torch.full((3,), 2.0))[0].sum().item() for _ in range(2)]
    return made, kept, outputs


def test_a_machine_without_a_compiler_runs_eagerly_and_says_so_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(UserWarning, match="the update runs eagerly, which is slower: there is no C\\+\\+ compiler"):
        made, kept, outputs = run_twice("compiled")
    assert not made.compiled
    assert kept.tolist() == [5.0] * 3
    assert outputs == [12.0, 12.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_twice("compiled")


def test_a_command_on_a_machine_without_a_compiler_trains(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("env", "sh"):
        os.symlink(str(shutil.which(tool)), tools / tool)
    words = ["train", "CartPole-v1", "--steps", "1200", "--runtime.compile", "compiled", "--run-dir", "r"]
    done = subprocess.run(
        [sys.executable, "-m", "qlearn", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": str(tools), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("there is no C++ compiler") == 1
    assert (tmp_path / "r" / "summary.json").exists()


def test_a_compiler_that_fails_is_said_once_and_costs_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "g++"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    with pytest.warns(UserWarning, match="the update runs eagerly"):
        made, kept, _ = run_twice("compiled")
    assert not made.compiled
    assert kept.tolist() == [5.0] * 3
    assert not list(cache.glob("*.so"))


def test_what_is_not_pure_is_not_compiled(cache: Path) -> None:
    def drops(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x + torch.nn.functional.dropout(y, 0.5), y

    def counts(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        y.add_(1)
        return x + y, y

    for function, reason in ((drops, "random numbers of its own"), (counts, "changes its tensors in place")):
        with pytest.warns(UserWarning, match=reason):
            made, _, _ = run_twice("compiled", function)
        assert not made.compiled


def test_a_library_that_gives_other_numbers_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(function: Any, arguments: Any, changes: int, *, in_place: bool = False) -> Any:
        return traced(lambda x, y: (x + y, 3 * y), arguments, changes, in_place=in_place)

    traced = program.traced
    monkeypatch.setattr(program, "traced", wrong)
    with pytest.warns(UserWarning, match="it gave other numbers"):
        made, kept, outputs = run_twice("compiled")
    assert not made.compiled
    assert kept.tolist() == [5.0] * 3
    assert outputs == [12.0, 12.0]
    assert not list(cache.glob("*.so"))


def test_a_cache_that_others_can_write_to_is_not_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.warns(UserWarning, match="can be written by others, and what is in it is run"):
        made, _, _ = run_twice("compiled")
    assert not made.compiled


def test_other_shapes_than_compiled_run_eagerly(cache: Path) -> None:
    made = Program(lambda x, y: (x + y.sum(), 2 * y), [torch.zeros(3)], changes=1, mode="compiled", name="it")
    assert made(torch.ones(4))[0].tolist() == [2.0] * 4
    assert made.compiled
    assert made(torch.ones(2))[0].tolist() == [2.0] * 2
    assert made._kept[0].tolist() == [6.0] * 3


def test_the_cache_keeps_what_was_used_last(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    for age in range(5):
        (cache / f"{age}.so").touch()
        os.utime(cache / f"{age}.so", (1000 - age, 1000 - age))
    monkeypatch.setattr(program, "KEPT_LIBRARIES", 3)
    program.prune(cache)
    assert sorted(path.stem for path in cache.iterdir()) == ["0", "1", "2"]


# What is chosen


def test_auto_compiles_what_is_worth_it_and_decides_by_the_configuration_alone() -> None:
    def mode(**changes: Any) -> Mode:
        return build_mode(check(override(presets.get("dqn", "CartPole-v1"), changes)))

    assert mode(steps=50_000) == "compiled"
    assert mode(steps=5_000) == "eager"
    assert mode(steps=50_000, learner={"replay_ratio": 0.01}) == "eager"
    assert mode(steps=50_000, runtime={"compile": "eager"}) == "eager"
    assert mode(steps=2_000, runtime={"compile": "compiled"}) == "compiled"
    assert mode(steps=50_000, runtime={"device": "cuda"}) == "eager"
    assert build_mode(presets.get("pqn", "CartPole-v1")) == "compiled"


def test_a_resumed_run_goes_on_with_the_optimisers_memory(tmp_path: Path) -> None:
    config = override(
        presets.get("dqn", "CartPole-v1"),
        {
            "steps": 600,
            "replay": {"warmup_steps": 100},
            "network": {"hidden": (8, 8)},
            "optimizer": {"name": "rmsprop"},
        },
    )
    parts = build(check(config))
    list(parts.train())
    assert isinstance(parts.learner, dqn.Learner)
    descent = parts.learner.descent
    tensors = descent.tensors()
    again = build(check(config)).learner
    assert isinstance(again, dqn.Learner)
    again.restore({**parts.learner.tensors()})
    assert again.descent.steps == descent.steps == 250
    assert isinstance(descent.optimizer, CenteredRMSProp)
    assert all(torch.equal(again.descent.memory[name], vector) for name, vector in descent.memory.items())
    with pytest.raises(ValueError, match="the optimiser's memory is"):
        descent.restore({**tensors, "optimizer": {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}})
    parts.envs.close()


def test_a_digest_tells_functions_constants_and_layouts_apart() -> None:
    half, third = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.3])
    x, y, wide = torch.zeros(2), torch.ones(2), torch.ones(4)[::2]
    functions = [
        lambda a, b: (a + b, b),
        lambda a, b: (a + b, a),
        lambda a, b: (b + b, b),
        lambda a, b: (a - b, b),
        lambda a, b: (a + 2 * b, b),
        lambda a, b: (a + 3 * b, b),
        lambda a, b: (a + half * b, b),
        lambda a, b: (a + third * b, b),
    ]
    digests = [program.digest(function, [x, y], 1) for function in functions]
    assert len(set(digests)) == len(functions)
    assert digests == [program.digest(function, [x + 1, y + 1], 1) for function in functions]  # whatever is in them
    assert x.tolist() == [0.0, 0.0]
    others = [program.digest(functions[0], [x, other], 1) for other in (wide, torch.ones(2).double(), torch.ones(1))]
    assert len({digests[0], *others}) == 4
    with torch.no_grad():
        half.copy_(third)  # what a constant is, not which
    assert program.digest(functions[6], [x, y], 1) == digests[7]


def test_a_second_start_imports_no_compiler(cache: Path, tmp_path: Path) -> None:
    script = (
        "import sys, torch; from qlearn.engine import Program; x = torch.zeros(3); "
        "p = Program(lambda x, y: (x + y, 2 * y), [x], changes=1, mode='compiled', name='it'); p(torch.ones(3)); "
        "assert p.compiled and x.tolist() == [1.0] * 3; print('torch._dynamo' in sys.modules)"
    )
    said = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout for _ in "ab"]
    assert said == ["True\n", "False\n"]


def test_small_products_are_loops_and_large_ones_calls() -> None:
    """Only where nothing is called may memory lie on the stack."""
    rng = torch.Generator().manual_seed(0)
    for m, k, n, calls in ((32, 16, 16, False), (1, 120, 84, False), (16, 4, 2, False), (128, 128, 128, True)):
        a, b, c = (torch.randn(size, generator=rng) for size in ((m, k), (k, n), (m, n)))
        both = torch.stack([a, -a]), torch.stack([b, b])
        graph = program.traced(
            lambda a, b, c, x, y: (a @ b, torch.addmm(c, a, b), x @ y, a @ b[:, 0]), [a, b, c, *both], 0
        )
        assert any(map(program.calls_a_library, graph.graph.nodes)) == calls
        made = graph(a, b, c, *both)
        expected = (a @ b, c + a @ b, torch.stack([a @ b, -a @ b]), a @ b[:, 0])
        for mine, theirs in zip(made, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)
