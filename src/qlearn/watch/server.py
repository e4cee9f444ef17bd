"""The server: this machine only, these few names only, reading only.

Whoever has the address with its token can read the run. Others on this machine cannot, and neither can a page of the
web: it does not know the token, a name of its own that it has resolved to this machine is refused by its Host, and
the page itself may load nothing but its own files.
"""

import os
import re
import secrets
import threading
from contextlib import suppress
from functools import partial
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from qlearn.build import MakeNetwork
from qlearn.errors import QlearnError, UsageError
from qlearn.watch.plain import dumps
from qlearn.watch.story import Story

SCRIPTS = ("base.js", "charts.js", "player.js", "panels.js", "app.js")  # in the order in which they are read
STYLE, PAGE = "style.css", "index.html"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page_file(name: str) -> bytes:
    """A file of the page, by its name."""
    return files("qlearn.watch").joinpath("page", name).read_bytes()


class Server:
    """The page of the run in `path`, served from a thread until `close`; `url` is where, token included.

    Args:
        path: the run directory.
        port: of 127.0.0.1; 0 takes any that is free.
        network: the network of a run that has one of your own.

    Raises:
        UsageError: there is no such run, or the port is taken. RunError: the run is damaged.
    """

    def __init__(self, path: str | Path, port: int = 0, *, network: MakeNetwork | None = None) -> None:
        self.story, self.token = Story(Path(path), network), secrets.token_urlsafe(24)
        if not 0 <= port < 65536:
            raise UsageError(f"--port is {port}; it must be from 0 (any that is free) to 65535")
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, self))
        except OSError as error:
            raise UsageError(f"port {port} cannot be used: {error.strerror}; choose another --port") from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/?token={self.token}"
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=self.story.errand, args=(self._stop,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        while not self._stop.wait(3600):
            pass

    def close(self) -> None:
        """Stop serving."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, target: str) -> tuple[int, str, bytes]:
        """Status, type and body of what is asked for."""
        path, _, query = target.partition("?")
        name = "/" + PAGE if path == "/" else path
        if name[1:] in (PAGE, STYLE, *SCRIPTS):
            return 200, TYPES[os.path.splitext(name)[1]], page_file(name[1:])
        if name == "/api/state":
            version, body = self.story.state()
            known = parse_qs(query).get("version", [""])[0]
            return (204, "", b"") if known == version else (200, "application/json", body)
        if name == "/api/study":
            return 200, "application/json", self.story.studied
        return 404, "text/plain", b"there is nothing of that name\n"


class Handler(BaseHTTPRequestHandler):
    """Refuses what is not the reader's own browser, and answers the rest from `page`."""

    server_version, sys_version, protocol_version = "qlearn", "", "HTTP/1.1"
    timeout = 60

    def __init__(self, page: Server, *connection: Any) -> None:
        self.page = page
        super().__init__(*connection)

    def handle(self) -> None:
        """A reader may leave in the middle."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Every method comes here."""
        status, kind, body = self._refused() or self._answer()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        if status == 200:
            cookie = f"{self._cookie_name()}={self.page.token}; HttpOnly; SameSite=Strict; Path=/"
            self.send_header("Set-Cookie", cookie)
        if status == 405:
            self.send_header("Allow", "GET, HEAD")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal is for what went wrong."""

    def _answer(self) -> tuple[int, str, bytes]:
        try:
            return self.page.answer(self.path)
        except Exception as error:  # a stranger's files may hold anything; the page says so
            ours = "" if isinstance(error, QlearnError) else f"{type(error).__name__}: "
            return 200, "application/json", dumps({"problem": ours + " ".join(str(error).split())})

    def _refused(self) -> tuple[int, str, bytes] | None:
        if not HOST.fullmatch(self.headers.get("Host") or ""):
            return 403, "text/plain", b"this page is for this machine only\n"
        if self.command not in ("GET", "HEAD"):
            return 405, "text/plain", b"this page can only be read\n"
        if not any(secrets.compare_digest(given.encode(), self.page.token.encode()) for given in self._tokens()):
            return 401, "text/plain", b"open the address that qlearn watch printed, with its token\n"
        return None

    def _tokens(self) -> list[str]:
        given = parse_qs(self.path.partition("?")[2]).get("token", [])
        with suppress(CookieError):
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self._cookie_name())
            given += [cookie.value] if cookie else []
        return given

    def _cookie_name(self) -> str:
        return f"qlearn-{self.page.port}"


def serve(path: str | Path, port: int = 0, *, network: MakeNetwork | None = None) -> Server:
    """Serve the page of the run in `path` to this machine; see `Server`."""
    return Server(path, port, network=network)
