"""Which flipped bits of result files are noticed, and what the checksums cost.

``python -m benchmarks.integrity [--flips 15290] [--units 5000] [--results FOLDER]``

*Flips*: one random bit at a time of the unit files of a run (or of ``--results``), equally many in
each table. Each file is then read by plain pyarrow, by pyarrow with the checksums of Parquet's
pages, and by the store. *Cost*: opening that folder and a made-up one of many units for SQL, and
``prunelib verify`` of the latter.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import prunelib
from benchmarks.unit_overhead import tiny_model
from prunelib.recipe.recipe import Recipe
from prunelib.results.query import query
from prunelib.results.schemas import TABLES
from prunelib.results.storage.seal import fault
from prunelib.results.storage.store import Store
from prunelib.results.storage.verify import verify

RESULT = Path(__file__).parent / "results" / "integrity.json"
#: What became of a flip: an error, the right rows, or other rows with no error.
OUTCOMES = ("error", "same rows", "other rows")


def made_run(folder: Path) -> Path:
    """Results of a small run of a tiny random model."""
    info = tiny_model(folder / "model")
    prunelib.run(Recipe.model_validate({
        "name": "flips", "models": [info.path], "engine": "transformers",
        "attribution": {"prompts": 8, "shots": 2, "block": 4, "max_nodes": 9},
        "search": {"rates": [0.1, 0.2, 0.4], "examples": 16, "shots": 2},
        "evaluate": {"tasks": ["to_upper", "en_fr"], "shots": [1, 2], "examples": 16}}),
        folder / "run")
    return folder / "run"


def rows_of(content: bytes, checked: bool = False) -> pa.Table:
    """Rows of the bytes of a Parquet file."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=checked)
    return file.read(use_threads=False)


def outcome(content: bytes, whole: pa.Table, checked: bool) -> str:
    """What pyarrow makes of the bytes of a file whose rows should be ``whole``."""
    try:
        rows = rows_of(content, checked)
        return OUTCOMES[1 if rows.equals(whole) else 2]
    except (OSError, pa.ArrowException, ValueError, UnicodeDecodeError):
        return OUTCOMES[0]


def flips(results: Path, count: int) -> list[dict[str, object]]:
    """Per table: flips, and how many of them each reader noticed or took for other rows."""
    files = {table: sorted((results / table).glob("*.parquet")) for table in TABLES}
    files = {table: paths for table, paths in files.items() if paths}
    chance = random.Random(0)
    lines = []
    for table, paths in files.items():
        line: dict[str, object] = {"table": table, "flips": count // len(files)}
        found: dict[str, int] = defaultdict(int)
        wholes = {path: (kept := path.read_bytes(), rows_of(kept)) for path in paths}
        for _ in range(count // len(files)):
            path = chance.choice(list(wholes))
            before, whole = wholes[path]
            content = bytearray(before)
            bit = chance.randrange(len(content) * 8)
            content[bit // 8] ^= 1 << bit % 8
            found["plain: " + outcome(bytes(content), whole, False)] += 1
            found["pages: " + outcome(bytes(content), whole, True)] += 1
            found["store: noticed"] += fault(f"{table}/{path.name}", bytes(content)) is not None
        lines.append(line | {key: found[key] for key in (
            "plain: error", "plain: other rows", "pages: error", "pages: other rows",
            "store: noticed")})
    return lines


def many_units(folder: Path, source: Path, units: int) -> Path:
    """A folder with so many copies of a unit of predictions, each under an id of its own."""
    store = Store.open(folder)
    unit = next(iter(Store.open(source, create=False).current("predictions")))
    rows = Store.open(source, create=False).read("predictions", [unit])
    at = rows.column_names.index("unit_id")
    for i in range(units):
        name = pa.array([f"u{i}"] * len(rows))
        store.write("predictions", f"u{i}", rows.set_column(at, rows.schema.field(at), name))
    return folder


def seconds(results: Path) -> dict[str, float]:
    """Seconds to count predictions by SQL, to look at all checksums alone, and to verify."""
    began = time.perf_counter()
    query(results, "SELECT count(*) FROM predictions")
    opened = time.perf_counter()
    Store.open(results, create=False).damage()
    looked = time.perf_counter()
    verify(results)
    return {"query": opened - began, "checksums": looked - opened,
            "verify": time.perf_counter() - looked}


def main() -> None:
    """Print the tables and write them to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=15_290)
    parser.add_argument("--units", type=int, default=5_000)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = options.results or made_run(Path(name))
        lines = flips(results, options.flips)
        many = many_units(Path(name) / "many", results, options.units)
        cost = {f"{results.name}": seconds(results), f"{options.units} units": seconds(many)}
    table = Table(*lines[0])
    for line in lines:
        table.add_row(*map(str, line.values()))
    Console(width=160).print(table)
    Console().print(cost)
    RESULT.write_text(json.dumps({"flips": lines, "seconds": cost}, indent=1) + "\n")


if __name__ == "__main__":
    main()
