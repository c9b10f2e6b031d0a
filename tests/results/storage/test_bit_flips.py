"""No bit of a file can change unnoticed, wherever it is: rows, page headers, footer, statistics."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from results_folder import Folder

from prunelib.results.storage.compaction import compact
from prunelib.results.storage.rows import parquet
from prunelib.results.storage.seal import fault, sealed
from prunelib.results.storage.store import Store

TABLES = ("interventions", "predictions", "run_units", "units")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("flips"))
    folder.intervention("base", "none", "baseline")
    for task in ("t", "u"):
        folder.answers("base", "10c0e1", task=task, unit_id=f"base-{task}")
    folder.attempt("u1", "done", 0)
    folder.write()
    return folder


def files(folder: Folder) -> list[Path]:
    """One unit file of each table, and a merged file."""
    compact(folder.store)
    return [next((folder.root / table).glob("*.parquet")) for table in TABLES] + [
        next((folder.root / "predictions" / "merged").iterdir())]


def test_every_bit_is_covered(filled: Folder) -> None:
    path = files(filled)[0]
    name = str(path.relative_to(filled.root))
    content = bytearray(path.read_bytes())
    assert fault(name, bytes(content)) is None
    for bit in range(0, len(content) * 8, 3 if len(content) > 4000 else 1):
        content[bit // 8] ^= 1 << bit % 8
        assert fault(name, bytes(content)), bit
        content[bit // 8] ^= 1 << bit % 8


def test_a_flip_is_never_read(filled: Folder) -> None:
    """By a store that reads the rows, with the file's time and size as they were."""
    import os

    chance = random.Random(0)
    for path in files(filled):
        table = path.relative_to(filled.root).parts[0]
        whole, at = path.read_bytes(), path.stat()
        before = Store.open(filled.root, create=False).read(table)
        for _ in range(20):
            changed = bytearray(whole)
            bit = chance.randrange(len(whole) * 8)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
            store = Store.open(filled.root, create=False)
            after = store.read(table)
            # Rows that are in a merged file as well are read from that one.
            assert after.equals(before) or after.num_rows < before.num_rows
            assert [damage.file for damage in store.damage()] == [
                str(path.relative_to(filled.root))]
        path.write_bytes(whole)


def test_a_file_counts_under_its_own_name_only(filled: Folder) -> None:
    path = filled.root / "predictions" / "base-t.parquet"
    content = path.read_bytes()
    assert fault("predictions/base-t.parquet", content) is None
    for name in ("predictions/base-u.parquet", "interventions/base-t.parquet", "base-t.parquet"):
        assert "checksum" in str(fault(name, content))


def test_other_readers_of_parquet_see_no_difference(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(1000)), "b": ["text"] * 1000})
    path = tmp_path / "x.parquet"
    path.write_bytes(sealed("x.parquet", parquet("x", table)))
    assert pq.read_table(path).equals(table)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(8) + b"PAR1", b"x" * 100,
                                     b"PAR1" + b"\xff" * 8 + b"PAR1"])
def test_what_is_no_file_of_ours_is_named(content: bytes) -> None:
    assert fault("runs/a.parquet", content)
