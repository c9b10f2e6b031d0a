"""``prunelib compact``: few large files instead of many small ones."""

from __future__ import annotations

from jobs.commands.options import Results
from jobs.console import console, listing


def compact(results: Results) -> None:
    """Merge the many small files of the results into few.

    Runs and queries may go on meanwhile. Files that are no longer needed are removed by a
    compaction a day later: run it again.

    Example: `prunelib compact --results results/demo`
    """
    from prunelib.results.storage.compaction import compact as merge
    from prunelib.results.storage.store import Store

    table = listing("table", "units merged", "files made", "old files removed", "kept for a day")
    for line in merge(Store.open(results, create=False)):
        table.add_row(line.table, str(line.units), str(line.made), str(line.removed),
                      str(line.kept))
    console.print(table)
