"""The page of a run as one file that needs nothing else, and may load nothing else."""

import base64
import hashlib
import re
from pathlib import Path

from qlearn.build import MakeNetwork
from qlearn.runs.files import replace_file, writing
from qlearn.watch.server import SCRIPTS, STYLE, page_file
from qlearn.watch.story import Story


def export(path: str | Path, file: str | Path, *, network: MakeNetwork | None = None) -> None:
    """Write the page of the run in `path` as it is now; `network` is that of a run that has one of your own.

    Raises:
        UsageError: there is no such run. RunError: it is damaged, or the file cannot be written.
    """
    state, studied = Story(Path(path), network).whole()
    file = Path(file)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, page(state, studied))


def page(state: bytes, studied: bytes) -> bytes:
    """The whole page; its scripts and style are allowed by their digests, and nothing else is."""
    style, script = page_file(STYLE), b"\n".join(map(page_file, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    html = page_file("index.html")
    html = re.sub(rb"[ \t]*<(script|link)\b[^>]*\b(src|href)=[^>]*>(</script>)?\n", b"", html)
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'.encode()
    head += b"<style>" + style + b"</style>\n"
    data = b'<script type="application/json" id="data">{"state":' + state + b',"study":' + studied + b"}</script>\n"
    html = html.replace(b"</head>", head + b"</head>")
    return html.replace(b"</body>", data + b"<script>" + script + b"</script>\n</body>")


def _digest(text: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode()
