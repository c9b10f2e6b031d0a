"""Single examples: what the untouched model answered, and what a method changed.

An example is one prompt under one method. ``flipped`` is ``gained`` if the method alone answers
rightly, ``lost`` if the baseline alone does, else ``same``.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

#: What a reader can ask for by value.
FILTERS = ("model", "method", "task", "flipped")
#: Examples of a page.
PAGE = 20
#: Examples within a file at most, and their bytes (base64 of gzip).
_MOST, _MOST_BYTES = 4000, 1_200_000

_SQL = """
WITH units AS (SELECT DISTINCT unit_id, model FROM run_units WHERE run = '{run}'),
given AS (
    SELECT * FROM predictions JOIN units USING (unit_id, model)
    WHERE purpose = 'report' AND repeat = 0
    QUALIFY row_number() OVER (PARTITION BY model, engine, intervention, task, shots, seed,
                               example, format ORDER BY unit_id) = 1
),
methods AS (
    SELECT DISTINCT model, intervention, method, role, seed AS control_seed
    FROM interventions JOIN units USING (unit_id, model)
    WHERE role IN ('baseline', 'chosen', 'control')
)
SELECT g.model, m.method, m.control_seed, g.task, g.shots, g.seed, g.example, g.query, g.gold,
       b.prediction AS baseline_prediction, b.correct AS baseline_correct,
       b.copied_position AS baseline_copied, g.prediction, g.correct, g.copied_position AS copied,
       CASE WHEN g.correct AND NOT b.correct THEN 'gained'
            WHEN b.correct AND NOT g.correct THEN 'lost' ELSE 'same' END AS flipped,
       g.demonstrations, g.answers, g.error
FROM given g
JOIN given b ON b.model = g.model AND b.engine = g.engine AND b.task = g.task
 AND b.shots = g.shots AND b.seed = g.seed AND b.example = g.example AND b.format = g.format
JOIN methods u ON u.model = b.model AND u.intervention = b.intervention AND u.role = 'baseline'
JOIN methods m ON m.model = g.model AND m.intervention = g.intervention
"""
# Numbered in a fixed order; within a cell by the example, so that the first n are no selection.
_TABLE = """
CREATE OR REPLACE TEMP TABLE _examples AS
SELECT row_number() OVER (ORDER BY model, task, shots, seed, example, method, control_seed, query,
                          prediction) - 1 AS number,
       row_number() OVER (PARTITION BY model, method, task, shots
                          ORDER BY seed, example, control_seed) AS place, *
FROM ({sql}) ORDER BY number
"""
_COLUMNS = ("model method control_seed task shots seed example query gold baseline_prediction "
            "baseline_correct baseline_copied prediction correct copied flipped demonstrations "
            "answers error")


class Examples:
    """The examples of a run, page by page."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, run: str) -> None:
        self._connection = connection
        self.sql = _SQL.strip().format(run=run.replace("'", "''"))
        connection.execute(_TABLE.format(sql=self.sql))
        self.total = self._one("SELECT count(*) FROM _examples")
        self.choices = {name: [row[0] for row in connection.sql(
            f"SELECT DISTINCT {name} FROM _examples ORDER BY 1").fetchall()]  # noqa: S608
            for name in FILTERS}

    def page(self, wanted: dict[str, str], page: int) -> dict[str, Any]:
        """A page (from 0) of those that are as ``wanted``: how many there are, and the rows.

        ``wanted``: one of :data:`FILTERS` → its value.
        """
        names = [name for name in FILTERS if wanted.get(name)]
        where = " AND ".join(f"{name} = ${i + 1}" for i, name in enumerate(names)) or "true"
        values = [wanted[name] for name in names]
        return {
            "total": self._one(f"SELECT count(*) FROM _examples WHERE {where}", values),  # noqa: S608
            "rows": self._rows(f"WHERE {where} ORDER BY number LIMIT {PAGE} "
                               f"OFFSET {PAGE * max(page, 0)}", values),
        }

    def embedded(self) -> tuple[str, int]:
        """Examples for a file (base64 of gzipped JSON), and how many they are.

        All of them if they fit, else as many of the first of each model, method, task and number
        of shots as fit.
        """
        each = self._one("SELECT max(place) FROM _examples") or 0
        while True:
            count = self._one("SELECT count(*) FROM _examples WHERE place <= $1", [each])
            if count <= _MOST or each <= 1:
                rows = self._rows(f"WHERE place <= $1 ORDER BY number LIMIT {_MOST}", [each])
                text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
                packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
                if len(packed) <= _MOST_BYTES or not each:
                    return packed, len(rows)
            each //= 2

    def _one(self, sql: str, values: list[Any] | None = None) -> int:
        return self._connection.execute(sql, values or []).fetchall()[0][0]  # type: ignore[no-any-return]

    def _rows(self, rest: str, values: list[Any]) -> list[dict[str, Any]]:
        answer = self._connection.sql(
            f"SELECT {_COLUMNS.replace(' ', ', ')} FROM _examples {rest}", params=values)  # noqa: S608
        return answer.to_arrow_table().to_pylist()  # type: ignore[no-any-return]
