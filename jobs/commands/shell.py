"""``prunelib shell``: questions in SQL, one after the other."""

from __future__ import annotations

from jobs.commands.options import ManyResults


def shell(results: ManyResults) -> None:
    """Ask questions in SQL, one after the other.

    A question ends with a semicolon. `.tables` lists tables and views, `.questions` saved
    questions, a saved question's name with a dot before it asks it. The tab key completes names,
    the arrow keys bring earlier questions back, also of earlier sessions. Ctrl-C stops an answer,
    Ctrl-D ends.

    Example: `prunelib shell --results results/demo`
    """
    from jobs.sql_shell import Shell
    from prunelib.results.query import open_results

    with open_results(*results) as connection:
        Shell(connection).run()
