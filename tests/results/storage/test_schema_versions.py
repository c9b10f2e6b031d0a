"""Results of another schema version are neither read nor added to."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from results_folder import Folder

from prunelib.errors import UserError
from prunelib.results.columns import SCHEMA_VERSION
from prunelib.results.query import open_results
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.files import LocalFiles
from prunelib.results.storage.marker import MARKER
from prunelib.results.storage.store import Store
from prunelib.results.storage.verify import verify


@pytest.fixture
def filled(folder: Folder) -> Folder:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "10")
    folder.answers("base", "10", task="u", unit_id="eval-other")
    folder.write()
    return folder


def refused(root: Path, version: int) -> None:
    for create in (True, False):
        with pytest.raises(UserError, match=f"schema version {version}, .*new folder") as caught:
            Store.open(root, create)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"schema version {version}"):
        open_results(root)


def older(root: Path, table: str, version: int) -> None:
    """Make the files of a table those of another version."""
    for path in (root / table).rglob("*.parquet"):
        content = pq.read_table(path)
        metadata = content.schema.metadata | {b"schema_version": str(version).encode()}
        pq.write_table(content.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION + 1])
def test_the_marker_tells(filled: Folder, version: int) -> None:
    (filled.root / MARKER).write_text(f'{{"schema_version": {version}}}')
    refused(filled.root, version)


def test_the_table_of_ablations_tells(filled: Folder) -> None:
    """Of version 1, even beside tables of this version."""
    (filled.root / "ablations").mkdir()
    Store.open(filled.root)
    (filled.root / "ablations" / "u1.parquet").write_bytes(b"")
    refused(filled.root, 1)


@pytest.mark.parametrize("table", ["interventions", "predictions", "run_units"])
@pytest.mark.parametrize("merged", [False, True])
def test_files_tell_where_the_marker_was_lost(filled: Folder, table: str, merged: bool) -> None:
    if merged:
        compact(filled.store, 0)
    (filled.root / MARKER).unlink()
    older(filled.root, table, 1)
    refused(filled.root, 1)
    assert not (filled.root / MARKER).exists()


def test_a_damaged_file_does_not_hide_the_others(filled: Folder) -> None:
    (filled.root / MARKER).unlink()
    for damage in (b"", b"PAR1 and no more", b"PAR1" + bytes(40) + b"PAR1"):
        (filled.root / "interventions" / "choose.parquet").write_bytes(damage)
        assert Store.open(filled.root, create=False).done("predictions")
    older(filled.root, "predictions", 1)
    refused(filled.root, 1)


def test_results_without_a_marker_get_it_back(filled: Folder) -> None:
    (filled.root / MARKER).unlink()
    open_results(filled.root).close()
    Store.open(filled.root)
    assert str(SCHEMA_VERSION) in (filled.root / MARKER).read_text()


def test_a_damaged_marker_is_written_again(filled: Folder) -> None:
    marker = filled.root / MARKER
    whole = marker.read_bytes()
    for damage in (b"", b"not json", b"[" * 100_000, whole.replace(b": 3", b": 7")):
        marker.write_bytes(damage)
        open_results(filled.root).close()
        assert verify(filled.root).damage[0].file == MARKER
        Store.open(filled.root)
        assert marker.read_bytes() == whole and not verify(filled.root).damage
    (filled.root / MARKER).unlink()
    marker.mkdir()
    Store.open(filled.root)
    assert marker.read_bytes() == whole


def test_the_marker_spares_reading_files(
    filled: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def reading(self: LocalFiles, name: str) -> bytes:
        read.append(Path(name).parent.name)
        return content(self, name)

    content = LocalFiles.read
    monkeypatch.setattr(LocalFiles, "read", reading)
    Store.open(filled.root, create=False)
    assert read == [""]
    (filled.root / MARKER).unlink()
    read.clear()
    Store.open(filled.root, create=False)
    assert sorted(read) == ["", "interventions", "predictions", "run_units"]
