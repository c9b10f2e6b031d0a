"""A page that is served while its run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.view import RunView
from prunelib.identity import digest
from prunelib.results.storage.store import Store


def mark(place: Path, **changes: object) -> None:
    """Change the row of the run, as its driver does."""
    store = Store.open(place)
    (row,) = store.read("runs").to_pylist()
    store.write("runs", f"run-{digest('run', row['run'])}", [row | changes])


def test_the_page_follows_the_run(finished: Path, tmp_path: Path) -> None:
    """A run as it was before its last answers, and then as it ended."""
    place = tmp_path / "results"
    shutil.copytree(finished, place)
    answers = sorted((place / "predictions").iterdir(), key=lambda path: path.name)
    for path in answers[1:]:
        path.rename(tmp_path / path.name)
    (row,) = Store.open(place).read("runs").to_pylist()
    mark(place, status="running", finished=None)
    view = RunView(str(place))
    before, page = view.state(), view.page()
    assert not before["ended"] and "The run has not ended" in page

    for path in answers[1:]:
        (tmp_path / path.name).rename(path)
    assert view.state()["version"] == before["version"] and view.page() == page  # not that often
    view._next = 0.0
    after = view.state()
    assert after["version"] != before["version"] and not after["ended"]
    assert view.page() != page and "The run has not ended" in view.page()
    assert view.examples({}, 0)["total"] > 0

    mark(place, status="done", finished=row["finished"])
    last = view.state()  # at once
    assert last["ended"] and last["version"] != after["version"]
    assert "The run has not ended" not in view.page()
