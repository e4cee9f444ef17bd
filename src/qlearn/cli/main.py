"""`qlearn VERB ...`: find the verb, run it, and turn what goes wrong into one line and an exit code."""

import importlib
import sys
import warnings

from qlearn.cli.parse import WrongUsage
from qlearn.errors import QlearnError, nearest

VERBS = {
    "train": "train an agent in an environment",
    "resume": "continue a run from its last checkpoint",
    "evaluate": "play whole episodes with a trained agent and report the returns",
    "play": "watch a trained agent, in a window or as a video",
    "watch": "see a run in the browser, live or finished, or write its page as one file",
    "suite": "train and evaluate many runs, as one file says",
    "doctor": "say why it does not learn: of an environment before training, or of a run",
    "plot": "draw the returns of runs, or the results of a suite",
    "presets": "list the presets",
    "diff": "show in which settings two presets differ",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help"):
        print(_help())
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(f"qlearn {version('qlearn')}")
        return 0
    warnings.showwarning = _warn  # type: ignore[assignment]
    try:
        if verb not in VERBS:
            raise WrongUsage(f"unknown command {verb}{nearest(verb, VERBS)} (qlearn --help lists them)")
        code: int = importlib.import_module(f"qlearn.cli.{verb}").main(argv[1:])
        sys.stdout.flush()
    except QlearnError as error:
        print(f"qlearn: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("qlearn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has gone: nothing is left to say
        return 1
    except OSError as error:
        print(f"qlearn: {error}", file=sys.stderr)
        return 1
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
    return f"""qlearn: Q-learning, from its first lesson to its last result

usage: qlearn COMMAND ... (qlearn COMMAND --help explains one)

{verbs}

first steps:
  qlearn train CartPole-v1
  qlearn play runs/CartPole-v1/dqn-seed0-001"""


def _warn(message: Warning | str, category: type[Warning], *_: object) -> None:
    """A warning of ours as one line; those of libraries are for developers, and are not shown."""
    if issubclass(category, UserWarning):
        print(f"qlearn: warning: {message}", file=sys.stderr)
