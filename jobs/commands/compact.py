"""``prunelib compact``: few large files instead of many small ones."""

from __future__ import annotations

from pathlib import Path

from jobs.commands.options import Results
from jobs.console import console, listing
from jobs.places import check_folder


def compact(results: Results) -> None:
    """Merge the many small files of the results into few.

    Runs and queries may go on meanwhile. Files that are no longer needed are removed by a
    compaction a day later: run it again.

    Example: `prunelib compact --results results/demo`
    """
    from prunelib.results.storage.compaction import compact as merge
    from prunelib.results.storage.store import Store

    store = Store.open(results, create=False)
    if "://" not in results:
        check_folder(Path(results))
    table = listing("table", "units merged", "files made", "old files removed", "kept for a day")
    for line in merge(store):
        table.add_row(line.table, str(line.units), str(line.made), str(line.removed),
                      str(line.kept))
    console.print(table)
