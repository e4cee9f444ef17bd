"""`qlearn watch RUN`: the page of a run, live or finished, in a browser or as one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from qlearn.cli.parse import parse
from qlearn.envs import import_environments
from qlearn.errors import UsageError
from qlearn.watch import export, serve


@dataclass(frozen=True)
class Arguments:
    """See a run: its episodes with their Q-values, its curves, its replay memory, its network, its settings.

    The page is for this machine alone, and follows a run that is being trained."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    export: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Write the page as it is now into one file that needs nothing else, instead of serving it."""
    port: int = 0
    """Of 127.0.0.1; 0 takes any that is free."""
    module: str | None = None
    """Import this module first: the one of an environment module:Id, if you trust it."""


def main(argv: list[str]) -> int:
    """Watch; returns the exit code."""
    arguments = parse(Arguments, argv, "watch")
    import_environments(arguments.module)
    torch.set_num_threads(1)  # the others are the training's
    if arguments.export is not None:
        if arguments.export.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"{arguments.export}: the page must be an .html file")
        export(arguments.run, arguments.export)
        print(arguments.export)
        return 0
    server = serve(arguments.run, arguments.port)
    try:
        print(f"{server.url}\nfor this machine alone; Ctrl-C ends it", flush=True)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0
