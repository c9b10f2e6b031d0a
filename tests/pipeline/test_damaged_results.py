"""Bad files of every kind, at every place: they take nothing else down, and a run mends them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline.small import ask, recipe, rows

import prunelib
from jobs import cli
from prunelib.errors import UserError
from prunelib.models import ModelInfo
from prunelib.pipeline.progress import read_progress
from prunelib.results.schemas import TABLES
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.marker import MARKER
from prunelib.results.storage.store import ASIDE, Store
from prunelib.results.storage.verify import verify

#: A bad file is made where there was a good one, whose content is given.
Spoil = Callable[[Path, bytes], object]


def link(target: str | Path) -> Spoil:
    return lambda path, _: path.symlink_to(target)


def flip(path: Path, content: bytes) -> None:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


def rewritten(path: Path, content: bytes) -> None:
    """By something else, with the same rows."""
    path.write_bytes(content)
    pq.write_table(pq.read_table(path), path)


KINDS: dict[str, Spoil] = {
    "empty": lambda path, _: path.write_bytes(b""),
    "cut short": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "without its beginning": lambda path, content: path.write_bytes(content[100:]),
    "longer": lambda path, content: path.write_bytes(content + b"x"),
    "a flipped bit": flip,
    "zeros": lambda path, content: path.write_bytes(bytes(len(content))),
    "text": lambda path, _: path.write_text("not found"),
    "rewritten": rewritten,
    "a folder": lambda path, _: path.mkdir(),
    "a full folder": lambda path, _: (path / "x.parquet").mkdir(parents=True),
    "a link to nothing": link("nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to a folder": link("/"),
    "a device": link("/dev/zero"),
    "a pipe": lambda path, _: os.mkfifo(path),
}


@pytest.fixture(scope="module")
def finished(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("damaged") / "results"
    assert prunelib.run(recipe(info, attribution="wanda"), results).complete
    return results


def spoil(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.unlink()
    KINDS[kind](path, content)


def counts(results: Path) -> dict[str, int]:
    return dict(ask(results, " union all ".join(
        f"select '{table}', count(*) from {table}" for table in TABLES)))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prunelib", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def mended(results: Path, finished: Path, info: ModelInfo) -> prunelib.RunReport:
    """Run the recipe again; then everything is as it was."""
    report = prunelib.run(recipe(info, attribution="wanda"), results)
    assert report.complete and not verify(results).damage
    before = rows(finished)
    assert [name for name, table in rows(results).items() if not table.equals(before[name])] == []
    assert ask(results, "from leaderboard") == ask(finished, "from leaderboard")
    return report


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_unit_file_is_left_out_and_named(
    kind: str, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    path = sorted((results / "predictions").glob("evaluate-*.parquet"))[0]
    lost = pq.read_metadata(path).num_rows
    before, done = counts(results), read_progress(results)
    spoil(path, kind)
    assert counts(results) == before | {"predictions": before["predictions"] - lost}
    assert set(caplog.messages) == {
        f"1 damaged files do not count: prunelib verify {results} lists them"}
    found = read_progress(results)
    assert found.damaged == 1
    assert sum(s.done for s in found.stages) == sum(s.done for s in done.stages) - 1
    capsys.readouterr()
    assert command(monkeypatch, "verify", str(results)) == 1
    said = capsys.readouterr().out
    assert path.name in said.replace("\n", "") and "prunelib run RECIPE" in said
    assert "lost: 1 units of run small-" in said
    assert command(monkeypatch, "compact", "--results", str(results)) == 0
    assert counts(results) == before | {"predictions": before["predictions"] - lost}


def test_a_run_mends_all_of_them(info: ModelInfo, finished: Path, tmp_path: Path,
                                 caplog: pytest.LogCaptureFixture) -> None:
    """Every kind of damage at once, in every table."""
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    files = sorted(path for path in results.rglob("*.parquet"))
    assert len(files) > len(KINDS)
    for at, path in enumerate(files[::2]):
        spoil(path, list(KINDS)[at % len(KINDS)])
    damaged = len(verify(results).damage)
    assert damaged >= len(KINDS)
    caplog.clear()
    report = mended(results, finished, info)
    assert report.units_done and report.units_reused
    assert caplog.messages == [f"{damaged} damaged files were moved to {results}/{ASIDE}: what "
                               "this run needs of them is done again"]


@pytest.mark.parametrize("kind", ["cut short", "a flipped bit", "a folder", "a link to nothing"])
def test_bad_merged_files(kind: str, info: ModelInfo, finished: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    before = counts(results)
    compact(Store.open(results))
    merged = {path.parent.parent.name: path for path in results.rglob("merged/*.parquet")}
    spoil(merged["predictions"], kind)
    assert counts(results) == before  # from the units' own files
    spoil(merged["runs"], kind)
    shutil.rmtree(results / "canaries")
    compact(Store.open(results), 0)
    (other,) = set(results.glob("predictions/merged/*.parquet")) - {merged["predictions"]}
    spoil(other, kind)
    assert counts(results)["predictions"] < before["predictions"]
    assert "predictions" in {damage.table for damage in verify(results).damage}
    assert counts(results)["attributions"] == before["attributions"]
    mended(results, finished, info)


def test_files_in_the_wrong_place(info: ModelInfo, finished: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    before = counts(results)
    one, other = sorted((results / "predictions").glob("*.parquet"))[:2]
    for target in (results / "attributions" / one.name, results / "runs" / one.name,
                   results / "predictions" / "misplaced.parquet",
                   results / "predictions" / f"{one.stem}.7-{'0' * 32}.parquet",
                   results / "predictions" / "merged" / f"7-{'0' * 32}.parquet",
                   results / "merged" / one.name, results / one.name):
        target.parent.mkdir(exist_ok=True)
        shutil.copy(one, target)
    for name in ("README", "Copy of x.parquet", ".tmp-x", ".hidden.parquet", "x.parquet.bak"):
        (results / "predictions" / name).write_bytes(b"not ours")
    assert counts(results) == before
    assert len(verify(results).damage) == 5
    shutil.copy(one, other)  # one unit's rows under another's name
    assert counts(results)["predictions"] < before["predictions"]
    mended(results, finished, info)
    assert (results / "predictions" / "Copy of x.parquet").exists()


@pytest.mark.parametrize("table", ["runs", "run_units", "units", "predictions", "models"])
@pytest.mark.parametrize("kind", ["text", "a link to nothing", "a link to itself", "a pipe"])
def test_something_else_where_a_table_should_be(
    kind: str, table: str, info: ModelInfo, finished: Path, tmp_path: Path,
) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    before = counts(results)
    shutil.rmtree(results / table)
    KINDS[kind](results / table, b"")
    assert counts(results) == before | {table: 0}
    assert [damage.file for damage in verify(results).damage] == [table]
    if kind == "a link to itself":
        mended(results, finished, info)


def test_a_damaged_first_file_does_not_hide_later_ones(finished: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    (first,) = (path for path in (results / "runs").iterdir() if "." not in path.stem)
    spoil(first, "empty")
    store = Store.open(results)
    row = store.read("runs").to_pylist()
    assert store.has("runs", first.stem) and row[0]["status"] == "done"
    store.set_aside(store.damage())
    assert Store(store.files).has("runs", first.stem) and not verify(results).damage
    store.write("runs", first.stem, [row[0] | {"status": "failed"}])
    assert ask(results, "select status from runs") == [("failed",)]


def test_another_driver_was_faster(finished: Path, tmp_path: Path) -> None:
    """What became whole since it was looked at is not moved away."""
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    path = next((results / "predictions").glob("*.parquet"))
    content = path.read_bytes()
    spoil(path, "empty")
    store = Store.open(results)
    damage = store.damage()
    path.write_bytes(content)
    store.set_aside(damage)
    assert path.read_bytes() == content and not (results / ASIDE).exists()


def test_a_file_that_may_not_be_read_stops_a_run(
    info: ModelInfo, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be finished work: not done again, and not taken for damaged."""
    from prunelib.results.storage.files import LocalFiles

    results = Path(shutil.copytree(finished, tmp_path / "r"))
    path = next((results / "predictions").glob("*.parquet"))
    read = LocalFiles.read

    def denied(self: LocalFiles, name: str) -> bytes:
        if name.endswith(path.name):
            raise PermissionError(13, "permission denied")
        return read(self, name)

    monkeypatch.setattr(LocalFiles, "read", denied)
    assert counts(results)["attributions"] == counts(finished)["attributions"]
    with pytest.raises(UserError, match=rf"{path.name} cannot be read: permission"):
        prunelib.run(recipe(info, attribution="wanda"), results)
    assert path.exists()


def test_the_marker_is_mended_too(finished: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "r"))
    spoil(results / MARKER, "a link to nothing")
    assert counts(results) == counts(finished)
    assert [damage.file for damage in verify(results).damage] == [MARKER]
    Store.open(results)
    assert not verify(results).damage
