"""What a reader of a table of results has to know about the choices behind it, in sentences."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb


def choices(connection: duckdb.DuckDBPyConnection, run: str) -> dict[str, list[dict[str, Any]]]:
    """Model → its lines of the view ``chosen``."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.sql("SELECT * FROM chosen WHERE run = $1",
                              params=[run]).to_arrow_table().to_pylist():
        found[row["model"]].append(row)
    return found


def switching_nothing_off(connection: duckdb.DuckDBPyConnection, run: str
                          ) -> set[tuple[str, str]]:
    """Models with those methods of theirs of whose searches none switched anything off."""
    return set(connection.sql("""
        SELECT model, method FROM _labels
        WHERE run = $1 AND role IN ('chosen', 'control') AND places IS NOT NULL
        GROUP BY model, method HAVING max("count") = 0""", params=[run]).fetchall())


def notes(chosen: list[dict[str, Any]]) -> tuple[str, ...]:
    """One sentence for each warning, with the methods that it is about.

    Of a method with several choices (seeds, tasks) it says of how many. Where a search could not
    show a small gain, it says from which difference on it could.
    """
    total: dict[str, int] = defaultdict(int)
    warned: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in chosen:
        total[row["method"]] += 1
        for warning in filter(None, row["warnings"].split("; ")):
            warned[warning].append(row)
    return tuple(f"{_who(rows, total)}: {warning}{_how_small(warning, rows)}"
                 for warning, rows in warned.items())


def _who(rows: list[dict[str, Any]], total: dict[str, int]) -> str:
    count: dict[str, int] = defaultdict(int)
    for row in rows:
        count[row["method"]] += 1
    return ", ".join(
        method if total[method] == 1 else f"{method} ({n} of {total[method]} choices)"
        for method, n in count.items())


def _how_small(warning: str, rows: list[dict[str, Any]]) -> str:
    """The difference that a search can show, where the warning is about that."""
    if not warning.startswith(("nothing is switched off", "too few")):
        return ""
    found = sorted(100 * row["detectable"] for row in rows)
    examples = sorted({row["search_n"] for row in rows})
    ends = [f"{value:.1f}" for value in dict.fromkeys((found[0], found[-1]))]
    return (f" ({'–'.join(map(str, dict.fromkeys((examples[0], examples[-1]))))} examples show "
            f"{'–'.join(dict.fromkeys(ends))} points or more)")
