"""The report that is served: who gets it, and that it follows the run."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from jobs.view import RunView, serve
from prunelib.results.query import query

Answer = tuple[int, dict[str, str], bytes]


class Client:
    """Asks a server; with the cookie that it got, if any."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.server, self.address = serve(view)
        self.token = urlsplit(self.address).query.removeprefix("token=")
        self.cookie = ""
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, path: str, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port)
        given = ({"Cookie": self.cookie} if self.cookie else {}) | headers
        connection.request("GET", path, headers=given)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@pytest.fixture(scope="module")
def served(finished: Path) -> Iterator[Client]:
    client = Client(RunView(str(finished)))
    yield client
    client.server.shutdown()
    client.server.server_close()


@pytest.fixture
def known(served: Client) -> Iterator[Client]:
    """Who has opened the address."""
    status, headers, _ = served.get(f"/?token={served.token}")
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Lax" in headers["Set-Cookie"]
    served.cookie = headers["Set-Cookie"].partition(";")[0]
    yield served
    served.cookie = ""


PATHS = ("/", "/state", "/examples", "/figures/x.png", "/nothing")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_there_is_nothing(served: Client, path: str) -> None:
    name = f"prunelib-{served.server.server_port}"
    for given in ({}, {"Cookie": f"{name}=wrong"}, {"Cookie": f"{name}=\xe9"}, {"Cookie": ";;=,"},
                  {"Cookie": f"other={served.token}"}):
        status, headers, content = served.get(path, **given)
        assert status == 403 and "Set-Cookie" not in headers and len(content) < 100
    assert served.get(f"{path}?token=wrong")[0] == 403
    assert served.get(f"{path}?token={quote('é')}")[0] == 403


def test_the_token_is_long_and_new_each_time(served: Client) -> None:
    server, address = serve(served.view)
    server.server_close()
    assert address.partition("token=")[2] != served.token and len(served.token) >= 40
    assert urlsplit(served.address).hostname == "127.0.0.1"
    assert served.server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example",
                                  "localhost.evil.example:80", "", "[::2]:80"])
def test_a_page_under_another_name_gets_nothing(known: Client, host: str) -> None:
    """DNS rebinding: the browser asks this machine, under the name of the page's own site."""
    assert known.get("/state", Host=host)[0] == 403
    assert known.get(f"/?token={known.token}", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"])
def test_a_forwarded_port_is_no_other_name(known: Client, host: str) -> None:
    assert known.get("/state", Host=host)[0] == 200


def test_the_page_and_its_parts(known: Client, finished: Path) -> None:
    status, headers, content = known.get("/")
    assert status == 200 and headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["Cache-Control"] == "no-store" and known.token.encode() not in content
    assert b"connect-src &#39;self&#39;" in content and b'id="packed"' not in content
    state = json.loads(known.get("/state")[2])
    assert state["ended"] and state["version"].encode() in content
    ((total,),) = [tuple(row.values()) for row in query(
        finished, f"SELECT count(*) AS n FROM ({known.view._report.examples.sql})").to_pylist()]
    first = json.loads(known.get("/examples")[2])
    assert first["total"] == total and len(first["rows"]) == min(total, 20)
    few = json.loads(known.get("/examples?method=none&page=0")[2])
    assert {row["method"] for row in few["rows"]} == {"none"}
    assert json.loads(known.get("/examples?page=999")[2])["rows"] == []
    for page in ("-1", "x", "1e3", "9" * 30, "²"):
        assert known.get(f"/examples?page={quote(page)}")[0] == 400
    for name in known.view._report.files:
        status, headers, content = known.get(f"/figures/{name}")
        assert status == 200 and content and headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/figures/", "/figures/../../etc/passwd", "/etc/passwd", "/figures/a.exe"):
        assert known.get(path)[0] == 404


def test_nothing_but_reading_is_answered(known: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", known.server.server_port)
    connection.request("POST", "/", body="x", headers={"Cookie": known.cookie})
    assert connection.getresponse().status == 501
