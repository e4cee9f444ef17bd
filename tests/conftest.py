"""What the tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qlearn.cli import main
from qlearn.engine import program

torch.set_num_threads(1)
program.OPTIONS["aot_inductor.precompile_headers"] = True  # of many libraries it pays

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `qlearn ...` in this process, in an empty folder: quicker, for commands that end at once."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as stop:  # tyro's --help
            code = int(stop.code or 0)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `qlearn ...` as a process of its own in an empty folder."""

    def run(*words: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", "import sys; from qlearn.cli import main; sys.exit(main())", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", **env},
        )

    return run
