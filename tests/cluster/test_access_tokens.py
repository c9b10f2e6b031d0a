"""Tokens: whoever can read one can run code on the cluster."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from cluster.access_tokens import make_token, read_token, saved_token
from prunelib.errors import UserError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def make_and_read(_: int) -> str | None:
    make_token()
    return read_token()


def test_a_made_token_is_its_owners_alone_and_one_for_all(home: Path) -> None:
    old = os.umask(0)
    try:
        with ProcessPoolExecutor(4) as pool:
            tokens = set(pool.map(make_and_read, range(40)))
    finally:
        os.umask(old)
    (token,) = tokens
    assert token is not None and len(token) == 64
    assert [p.name for p in (home / ".ray").iterdir()] == ["auth_token"]
    assert saved_token().stat().st_mode & 0o777 == 0o600
    assert (home / ".ray").stat().st_mode & 0o077 == 0


def test_a_token_that_others_can_read_is_repaired_with_a_line(
    caplog: pytest.LogCaptureFixture
) -> None:
    make_token().chmod(0o644)
    assert read_token()
    assert saved_token().stat().st_mode & 0o777 == 0o600
    assert "could be read by others" in caplog.text
    caplog.clear()
    assert read_token() and not caplog.text


def test_tokens_come_from_where_ray_takes_them(home: Path, monkeypatch: pytest.MonkeyPatch
                                               ) -> None:
    assert read_token() is None
    make_token()
    (home / "other").write_text("from a path\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "other"))
    assert read_token() == "from a path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from the environment")
    assert read_token() == "from the environment"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (home / "other").unlink()
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN_PATH names: No such file"):
        read_token()
