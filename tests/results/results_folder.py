"""A results folder made by hand: every row is written out, so that every number is known."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunelib.components import Component
from prunelib.interventions.ablation import Ablation
from prunelib.results.query import query
from prunelib.results.storage.store import Store

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
RUN = "demo-0123abcd"
#: What rows hold where a test does not say otherwise.
USUAL: dict[str, dict[str, Any]] = {
    "component_scores": {"standard_error": None, "queries": 9},
    "attributions": {"queries": 8, "standard_error": None, "first_half_rank": None,
                     "second_half_rank": None},
}
#: Purpose of answers → split that they are of; the others are of the report split.
SPLITS = {"pool": "attribute", "search": "search", "importance": "search"}


def run_row(run: str = RUN, **changes: Any) -> dict[str, Any]:
    """A row of table ``runs``."""
    return {"run": run, "started": NOON, "finished": NOON, "heartbeat": NOON, "status": "done",
            "recipe": "", "resolved": "{}", "code_version": "0", "packages": "{}",
            "hardware": "{}", "units_done": 5, "units_failed": 0, "predicted": None
            } | changes  # fmt: skip


class Folder:
    """Collects rows, one unit per table and name, and writes them all."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.store = Store.open(root)
        self.rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)

    def intervention(self, intervention: str, method: str, role: str,
                     off: Sequence[Component] | None = None, **changes: Any) -> None:
        """One use of an ablation; ``off`` are its components, by default three of its layer."""
        row = {
            "model": "m", "intervention": intervention, "kind": "ablation", "method": method,
            "role": role, "site": "mlp_hidden", "layer": 1, "rate": 0.1, "count": 3, "seed": None,
            "proxy": "t", "only_task": None, "strength": None, "samples": None, "unit_id": "choose",
        }  # fmt: skip
        if role == "baseline":
            row |= {"site": None, "layer": None, "rate": None, "count": 0}
        row |= changes
        if off is None:
            indices = (0, 4, 5) if row["count"] else ()
            off = [Component(row["layer"] or 0, row["site"], i) for i in indices]
        self.add("interventions", {"content": json.dumps(Ablation.of(off).content())} | row)

    def answers(self, intervention: str, marks: str, **changes: Any) -> None:
        """One prediction per mark: ``1`` right, ``0`` wrong, ``c`` copied, ``e`` error."""
        for example, mark in enumerate(marks):
            row = {
                "model": "m", "engine": "transformers", "intervention": intervention,
                "task": "t", "purpose": "report", "shots": 2, "seed": 0, "example": example,
                "repeat": 0, "format": "arrow", "scoring": "greedy",
                "query": f"q{example}", "gold": "a",
                "prediction": {"1": "a", "0": "z", "c": "b", "e": None}[mark],
                "correct": mark == "1", "copied": mark == "c",
                "copied_position": 1 if mark == "c" else None, "margin": None,
                "gold_in_prompt": False, "demonstrations": ["x", "y"], "answers": ["c", "b"],
                "prompt_tokens": 9, "choices": None, "right_choices": None,
                "choice_likelihoods": None, "choice_characters": None,
                "error": "too long" if mark == "e" else None, "unit_id": f"eval-{intervention}",
            }  # fmt: skip
            row |= changes
            self.add("predictions", {"split": SPLITS.get(row["purpose"], "report")} | row)

    def attempt(self, unit_id: str, status: str, minute: int, **changes: Any) -> None:
        failed = status == "failed"
        row = {
            "run": RUN, "unit_id": unit_id, "stage": "evaluate", "model": "m", "detail": "t",
            "status": status, "worker": "w0", "attempt": 1, "batch_halvings": 0, "seconds": 2.0,
            "start_seconds": None, "switch_seconds": None,
            "peak_memory_mb": 100.0, "gpus": 0, "error_kind": "UnitError" if failed else None,
            "error_text": "no" if failed else None, "started_at": None,
            "finished_at": NOON + dt.timedelta(minutes=minute),
        }  # fmt: skip
        row |= changes
        self.add("units", row, f"{unit_id}-{row['run']}-{row['attempt']}")

    def add(self, table: str, row: dict[str, Any], unit_id: str | None = None) -> None:
        self.rows[table, unit_id or row["unit_id"]].append(USUAL.get(table, {}) | row)

    def write(self, runs: dict[str, list[str]] | None = None) -> None:
        """Write everything; ``runs``: run → its units (all of them belong to RUN if not given)."""
        for (table, unit_id), rows in self.rows.items():
            self.store.write(table, unit_id, rows)
        units = sorted({unit_id for table, unit_id in self.rows if table != "units"})
        for run, members in (runs or {RUN: units}).items():
            rows = [{"run": run, "unit_id": u, "stage": "evaluate", "model": "m"} for u in members]
            self.store.write("run_units", run, rows)


def rows(place: Folder | Path, sql: str) -> list[dict[str, Any]]:
    """What a query of a results folder gives."""
    return query(place.root if isinstance(place, Folder) else place, sql).to_pylist()


def only(place: Folder | Path, sql: str) -> dict[str, Any]:
    """The one line that a query gives."""
    (row,) = rows(place, sql)
    return row
