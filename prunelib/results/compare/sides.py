"""What is compared: a run, one model of it, or the latest run of a folder, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prunelib.errors import UserError, unknown_name
from prunelib.results.query import open_results
from prunelib.results.report.run import find_run

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

_MODELS = "SELECT DISTINCT model FROM run_units WHERE run = $1 AND model IS NOT NULL ORDER BY model"
_RUN_OF = """
SELECT r.run FROM runs r JOIN run_units u USING (run) WHERE u.model = $1
ORDER BY r.started DESC, r.run LIMIT 1
"""


@dataclass(frozen=True)
class Side:
    """A run, with those of its models that are compared.

    Attributes:
        place: the results that it is in.
        run: its row of table ``runs``.
    """

    place: str
    run: dict[str, Any]
    models: tuple[str, ...]
    connection: duckdb.DuckDBPyConnection

    @property
    def name(self) -> str:
        """The run."""
        return str(self.run["run"])


class Sides(AbstractContextManager["Sides"]):
    """Results that are open for a comparison."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = list(places)
        self._stack = ExitStack()
        self._open: dict[str, duckdb.DuckDBPyConnection] = {}

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def two(self, a: str, b: str) -> tuple[Side, Side]:
        """The two that ``a`` and ``b`` name: a folder of results, a run or a model.

        A run that several places have is taken from the first of them for ``a`` and from the
        last for ``b``.

        Raises:
            UserError: there is no such thing, or a place holds no results.
        """
        return self._find(a, self._places), self._find(b, self._places[::-1])

    def _find(self, called: str, places: list[str]) -> Side:
        names: set[str] = set()
        for place in places:
            connection = self._connection(place)
            runs = _column(connection, "SELECT run FROM runs")
            if called in runs:
                return self._side(place, called)
            if run := _column(connection, _RUN_OF, called):
                return self._side(place, run[0], called)
            names.update(runs, _column(connection, "SELECT DISTINCT model FROM run_units "
                                                   "WHERE model IS NOT NULL"))
        if "://" in called or Path(called).is_dir():
            return self._side(called, None)
        if not places:
            raise UserError(f"{called} is no folder: give --results PLACE for a run or a model")
        raise unknown_name("run, model or folder", called, names)

    def _side(self, place: str, run: str | None, model: str | None = None) -> Side:
        connection = self._connection(place)
        row = find_run(connection, place, run)
        models = [model] if model else _column(connection, _MODELS, row["run"])
        return Side(place, row, tuple(models), connection)

    def _connection(self, place: str) -> duckdb.DuckDBPyConnection:
        if place not in self._open:
            self._open[place] = self._stack.enter_context(open_results(place))
        return self._open[place]


def matched(ours: Iterable[T], theirs: Iterable[T], *keys: Callable[[T], object]
            ) -> tuple[list[tuple[T, T]], list[T], list[T]]:
    """Pairs of things that are alike, and what is left on each side.

    Two are a pair if they alone have a key in common, by the first of ``keys`` where that is so.
    Last, if there is one left on each side, these two are.
    """
    left, right, pairs = list(ours), list(theirs), []
    every: tuple[Callable[[T], object], ...] = (*keys, lambda _: None)
    for key in every:
        for one in list(left):
            mine = [some for some in left if key(some) == key(one)]
            other = [some for some in right if key(some) == key(one)]
            if len(mine) == len(other) == 1:
                pairs.append((one, other[0]))
                left.remove(one)
                right.remove(other[0])
    return pairs, left, right


def _column(connection: duckdb.DuckDBPyConnection, sql: str, *values: object) -> list[str]:
    return [row[0] for row in connection.execute(sql, values).fetchall()]
