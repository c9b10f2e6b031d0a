"""Verification: every file of a place is read, and what is damaged is listed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prunelib.results.schemas import OF_UNITS
from prunelib.results.storage.files import patiently
from prunelib.results.storage.intact import Damage
from prunelib.results.storage.marker import MARKER, marker_damage
from prunelib.results.storage.store import Store


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        files: how many files were read.
        damage: those that do not count.
        lost: run → units that are done according to their runs and whose rows are not there, most
            first. Without damage it is empty.
    """

    files: int
    damage: list[Damage]
    lost: dict[str, int]


def verify(location: Path | str) -> Verified:
    """Read every file of the results at a place, down to each row.

    Raises:
        UserError: there are no results, or they cannot be listed.
    """
    store = Store(Store.open(location, create=False).files, decode=True)
    damage = store.damage()
    if what := patiently(lambda: marker_damage(store.files), store.location):
        damage.insert(0, Damage(MARKER, "", None, what))
    return Verified(store.file_count, damage, _lost(store) if damage else {})


def _lost(store: Store) -> dict[str, int]:
    """Units of each run that were done, by its log, and are not there."""
    there: set[str] = set()
    for table in OF_UNITS:
        there |= store.done(table)
    worked = {row["unit_id"] for row in store.read("units").to_pylist() if row["status"] == "done"}
    ended = {row["run"] for row in store.read("runs").to_pylist() if row["status"] == "done"}
    found = Counter(row["run"] for row in store.read("run_units").to_pylist()
                    if row["unit_id"] not in there
                    and (row["run"] in ended or row["unit_id"] in worked))
    return dict(found.most_common())
