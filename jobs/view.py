"""A run's report on this machine's loopback address, for one browser, while the run goes on."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from jobs.watch import headline
from prunelib.pipeline.progress import RunProgress, read_progress
from prunelib.results.query import open_results
from prunelib.results.report.html import Report, build
from prunelib.results.report.run import find_run
from prunelib.results.storage.store import Store

#: Names under which a browser on this machine may ask. A page of another site whose name was made
#: to point here (DNS rebinding) asks under that name.
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}
_TYPES = {"pdf": "application/pdf", "svg": "image/svg+xml", "png": "image/png"}
#: Least seconds between two reports of a run that goes on; at least so many times what one takes.
_SECONDS, _TIMES = 15.0, 10.0


class RunView:
    """The report of a run, made anew now and then while results are added.

    Raises :class:`~prunelib.errors.UserError` if there is no such run.
    """

    def __init__(self, results: str, run: str | None = None) -> None:
        self._results = results
        self._lock = threading.Lock()
        self._store = Store.open(results, create=False)
        with open_results(results) as connection:
            self._run = find_run(connection, results, run)["run"]
        self._version, self._next = "", 0.0
        self._report = self._build(self._progress())

    def state(self) -> dict[str, Any]:
        """How far the run is (``text``, ``ended``), and the ``version`` that the page has now."""
        with self._lock:
            progress = self._progress()
            self._renew(progress)
            return {"version": self._version, "text": headline(progress), "ended": progress.ended}

    def page(self) -> str:
        """The page."""
        with self._lock:
            return self._report.html

    def examples(self, wanted: dict[str, str], page: int) -> dict[str, Any]:
        """A page of examples."""
        with self._lock:
            return self._report.examples.page(wanted, page)

    def figure(self, name: str) -> bytes | None:
        """A file of a figure."""
        with self._lock:
            return self._report.file(name)

    def _progress(self) -> RunProgress:
        return read_progress(self._store, self._run)

    def _renew(self, progress: RunProgress) -> None:
        due = progress.ended or time.monotonic() > self._next
        if due and _version(progress) != self._version:
            self._report = self._build(progress)

    def _build(self, progress: RunProgress) -> Report:
        began = time.monotonic()
        connection = open_results(self._results)
        version = _version(progress)
        report = build(connection, find_run(connection, self._results, self._run), "figures",
                       version)
        self._version = version
        now = time.monotonic()
        self._next = now + max(_SECONDS, _TIMES * (now - began))
        return report


def _version(progress: RunProgress) -> str:
    done = sum(stage.done for stage in progress.stages)
    failed = sum(stage.failed for stage in progress.stages)
    return f"{progress.status}-{done}-{failed}"


def serve(view: RunView, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server on the loopback address that is ready to serve, and the address to open.

    ``port``: 0 for any that is free. Who does not have the token of the address gets nothing.
    """
    token = secrets.token_urlsafe(32)
    handler = type("Handler", (_Handler,), {"view": view, "token": token})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    return server, f"http://127.0.0.1:{server.server_port}/?token={token}"


class _Handler(BaseHTTPRequestHandler):
    """Answers to requests: the token of the address becomes a cookie, which all others need."""

    view: RunView
    token: str
    server_version, sys_version = "prunelib", ""

    def do_GET(self) -> None:
        cookie = f"prunelib-{cast('ThreadingHTTPServer', self.server).server_port}"
        host = self.headers.get("Host", "").rpartition(":")
        if (host[0] if host[2].isdigit() else "".join(host)) not in _HOSTS:
            return self._say(HTTPStatus.FORBIDDEN, "this address answers to localhost alone")
        url = urlsplit(self.path)
        asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/" and _same(asked.get("token", ""), self.token):
            return self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", {
                "Location": "/",
                "Set-Cookie": f"{cookie}={self.token}; HttpOnly; SameSite=Lax; Path=/"})
        if not _same(_cookie(self.headers.get("Cookie", ""), cookie), self.token):
            return self._say(HTTPStatus.FORBIDDEN,
                             "open the address that prunelib view has printed")
        return self._answer(url.path, asked)

    def _answer(self, path: str, asked: dict[str, str]) -> None:
        if path == "/":
            return self._send(HTTPStatus.OK, self.view.page().encode(), "text/html; charset=utf-8")
        if path == "/state":
            return self._json(self.view.state())
        if path == "/examples":
            page = asked.pop("page", "0")
            if not (page.isascii() and page.isdigit() and len(page) < 10):
                return self._say(HTTPStatus.BAD_REQUEST, "page is a number from 0")
            return self._json(self.view.examples(asked, int(page)))
        name = path.removeprefix("/figures/")
        content = self.view.figure(name)
        if content is None:
            return self._say(HTTPStatus.NOT_FOUND, "there is nothing here")
        return self._send(HTTPStatus.OK, content, _TYPES[name.rpartition(".")[2]])

    def _json(self, content: dict[str, Any]) -> None:
        self._send(HTTPStatus.OK, json.dumps(content).encode(), "application/json")

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(status, text.encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, content: bytes, kind: str,
              headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({
            "Content-Type": kind, "Content-Length": str(len(content)),
            "Content-Security-Policy": "frame-ancestors 'none'", "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        } | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: the address has the token in it."""


def _same(given: str, token: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""
