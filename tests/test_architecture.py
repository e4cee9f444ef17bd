"""The rooms: imports run one way, public names are exact, nothing inherits, no file that is read can run code."""

import ast
import re
import runpy
import tomllib
from pathlib import Path

import pytest

import qlearn

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "qlearn"

# Each room may import those before it.
ORDER = [
    "errors", "types", "values", "exploration", "draws", "torsos", "networks", "engine", "frames", "views", "replay",
    "prioritized", "envs", "actor", "dqn", "pqn", "tabular", "config", "presets", "scores", "atari57", "evaluate",
    "agent", "build", "cohort", "runs", "doctor", "play", "api", "watch", "cli",
]  # fmt: skip


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of qlearn that a file imports, each as a dotted name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "qlearn":
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "qlearn"}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
    return names


def test_every_room_is_known() -> None:
    assert {room(p) for p in modules()} == {*ORDER, "__init__", "__main__"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    if room(path) in ("__init__", "__main__"):
        return
    for name in imported(path):
        target = name.split(".")[1] if "." in name else "api"  # `import qlearn` is its public names
        assert ORDER.index(target) <= ORDER.index(room(path)), f"{path} imports {name}"


def test_the_public_names_are_exact() -> None:
    assert qlearn.__all__ == ["Agent", "QlearnError", "Run", "dqn", "evaluate", "load", "resume", "train"]
    assert all(hasattr(qlearn, name) for name in qlearn.__all__)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_file_is_short_and_its_functions_too(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 330
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            doc = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0  # type: ignore[operator]
            assert (node.end_lineno or 0) - node.lineno + 1 - doc <= 50, f"{path}: {node.name}"


def test_nothing_inherits_but_from_modules_protocols_and_exceptions() -> None:
    allowed = {
        "nn.Module",
        "Protocol",
        "Exception",
        "ProgressColumn",
        "BaseHTTPRequestHandler",
        "NamedTuple",
        "gym.Env[Any, Any]",
        "gym.Env[Array, Any]",
        "TorchDispatchMode",
    }
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for base in map(ast.unparse, node.bases):
                    assert base in allowed or base.endswith(("Error", "Usage")), f"{path}: {node.name}({base})"


def test_no_file_that_is_read_can_run_code() -> None:
    for path in modules():
        text = path.read_text()
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {n.split(".")[0] for n in names} & {"pickle", "cloudpickle", "dill", "joblib", "yaml"}, path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("eval", "exec", "torch.load", "np.load", "__import__"), path
        if "import_module" in text:  # by name: the verbs of the command line, and the user's own `module:Id`
            assert path.relative_to(SOURCE).as_posix() in ("cli/main.py", "envs/gym.py")


def test_only_one_file_writes_durably() -> None:
    for path in modules():
        if path.relative_to(SOURCE).as_posix() not in ("runs/files.py", "runs/metrics.py", "play.py"):
            assert not re.search(r"\.write_(text|bytes)\(|open\([^)]*[\"'][wax]", path.read_text()), path


def test_the_algorithm_reads_as_the_papers() -> None:
    """The nine lines open dqn.py, and each comes back as a comment where it happens, in order."""
    text = (SOURCE / "dqn.py").read_text()
    head, _, body = text.partition('"""\n\nimport')
    assert re.findall(r"^    (\d)  ", head, re.M) == list("123456789")
    marks = [int(n) for marks in re.findall(r"# ((?:\d, )*\d)$", body, re.M) for n in marks.split(", ")]
    assert set(marks) == set(range(1, 10))
    loop = body[body.index("def train(") : body.index("class Greedy")]
    inside = [int(n) for marks in re.findall(r"# ((?:\d, )*\d)$", loop, re.M) for n in marks.split(", ")]
    assert list(dict.fromkeys(inside)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_ci_runs_the_readmes_test_command_as_it_is_written() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv .*$", readme, re.M)
    assert len(commands) == 2, "one sets up and trains, one sets up and tests"
    assert sum("qlearn train CartPole-v1" in c for c in commands) == 1
    (test,) = [c for c in commands if "pytest" in c]
    assert test in (ROOT / ".ci" / "run").read_text().splitlines()
    assert readme.index(commands[0]) < 2_500  # on the first screen


def test_every_dependency_has_its_pinned_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[<>=\[]", d)[0].lower() for d in wanted} - {"qlearn"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert names <= {name.lower().replace("_", "-") for name in pinned}
    assert pinned["torch"] == "2.13.0"


def test_the_metrics_in_the_documentation_are_those_that_are_written() -> None:
    from qlearn.runs.metrics import DESCRIPTIONS

    page = (ROOT / "docs" / "metrics.md").read_text()
    for names in DESCRIPTIONS.values():
        for name, description in names.items():
            assert f"| `{name}` | {description} |" in page


def test_the_numbers_in_the_pages_are_those_of_the_results() -> None:
    report = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
    for page, text in report["pages"]().items():
        assert page.read_text() == text, "python benchmarks/report.py writes it anew"
