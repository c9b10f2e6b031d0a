"""Answers of two sides to the same prompts: paired differences, and which examples flipped.

A prompt is the same if its query, its right answer, its demonstrations and their answers are, and
its place (task, shots, seed, example). Format and engine may differ: a task has one of each.
Intervals and tests are those of view ``comparisons``: over queries, formulas.md §7.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import duckdb
import pyarrow as pa

from prunelib.results.compare.sides import Side, matched
from prunelib.results.views.sql_functions import add_functions

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first of equal labels of an answer counts, as everywhere.
_ANSWERS = """
WITH shown AS (
    SELECT DISTINCT model, engine, task, shots, seed, example, format, demonstrations
    FROM predictions JOIN _scope USING (unit_id, model)
    WHERE run = $1 AND purpose = 'report' AND repeat = 0
)
SELECT a.model, a.role, a.method, a.intervention, a.control_seed, a.layer, a.rate, a.task,
       a.shots, a.seed, a.example, a.query, a.gold, a.answers, s.demonstrations, a.prediction,
       a.correct, a.copied
FROM _answers a
JOIN shown s USING (model, engine, task, shots, seed, example, format)
WHERE a.run = $1 AND a.purpose = 'report' AND a.repeat = 0 AND a.role IN ('baseline', 'chosen')
  AND list_contains($2, a.model)
"""
_ARMS = """
SELECT DISTINCT model, role, method, intervention, control_seed, task FROM {side} ORDER BY ALL
"""
_PAIRS = """
CREATE TABLE pairs AS
SELECT m.*, a.layer AS layer_a, b.layer AS layer_b, a.rate AS rate_a, b.rate AS rate_b, shots,
       seed, example, query, gold, demonstrations, answers, a.prediction AS prediction_a,
       b.prediction AS prediction_b, a.correct AS right_a, b.correct AS right_b,
       a.copied AS copied_a, b.copied AS copied_b
FROM matches m
JOIN a ON a.model = m.model_a AND a.role = m.role AND a.method = m.method_a AND a.task = m.task
 AND a.intervention = m.intervention_a AND a.control_seed IS NOT DISTINCT FROM m.seed_a
JOIN b USING (shots, seed, example, query, gold, demonstrations, answers)
WHERE b.model = m.model_b AND b.role = m.role AND b.method = m.method_b AND b.task = m.task
  AND b.intervention = m.intervention_b AND b.control_seed IS NOT DISTINCT FROM m.seed_b
"""
_ARM = "model_a, model_b, role, method_a, method_b"
# A line for each task and number of shots, and one (task is null) for the mean over tasks.
_LINES = f"""
WITH queries AS (
    SELECT {_ARM}, task, shots, query, count(*) AS n, sum(right_a) AS rights_a,
           sum(right_b) AS rights_b, sum(copied_a) AS copies_a, sum(copied_b) AS copies_b,
           count(*) FILTER (right_b > right_a) AS gained,
           count(*) FILTER (right_b < right_a) AS lost
    FROM pairs GROUP BY GROUPING SETS (({_ARM}, task, shots, query), ({_ARM}, task, query))
),
tasks AS (
    SELECT {_ARM}, task, shots, sum(n)::BIGINT AS n, count(*) AS queries,
           sum(rights_a) / sum(n) AS accuracy_a, sum(rights_b) / sum(n) AS accuracy_b,
           sum(copies_a) / sum(n) AS copying_error_a, sum(copies_b) / sum(n) AS copying_error_b,
           sum(gained)::BIGINT AS gained, sum(lost)::BIGINT AS lost,
           pair_sums(n, gained, lost) AS pairs, flip_sums(n, gained - lost) AS flips
    FROM queries GROUP BY ALL
),
means AS (
    SELECT {_ARM}, CASE WHEN shots IS NOT NULL THEN task END AS task, shots,
           sum(n)::BIGINT AS n, sum(queries)::BIGINT AS queries, avg(accuracy_a) AS accuracy_a,
           avg(accuracy_b) AS accuracy_b, avg(copying_error_a) AS copying_error_a,
           avg(copying_error_b) AS copying_error_b, sum(gained)::BIGINT AS gained,
           sum(lost)::BIGINT AS lost, count(*) AS tasks, sign_flip(list(flips)) AS p_value,
           difference_interval(list(pairs)) AS ends
    FROM tasks GROUP BY ALL
),
tests AS (
    SELECT *, (shots IS NOT NULL)::INTEGER AS single, row_number() OVER (
               PARTITION BY shots IS NOT NULL ORDER BY p_value) AS place,
           count(*) OVER (PARTITION BY shots IS NOT NULL) AS family
    FROM means
),
arms AS (
    SELECT {_ARM}, min(layer_a) AS layer_a, min(rate_a) AS rate_a, min(layer_b) AS layer_b,
           min(rate_b) AS rate_b
    FROM pairs GROUP BY ALL
    HAVING count(DISTINCT (intervention_a, intervention_b)) = 1
)
SELECT {_ARM}, layer_a, rate_a, layer_b, rate_b, task, shots, tasks, n, queries, accuracy_a,
       accuracy_b, accuracy_b - accuracy_a AS difference, ends[1] AS difference_low,
       ends[2] AS difference_high, gained, lost, p_value,
       least(1, min(p_value * family / place) OVER (
           PARTITION BY single ORDER BY place DESC)) AS q_value,
       copying_error_a, copying_error_b
FROM tests LEFT JOIN arms USING ({_ARM})
ORDER BY model_a, model_b, role, method_a, method_b, task NULLS FIRST, shots
"""  # noqa: S608
# Of every task in turn, so that a few examples are of several tasks.
_FLIPS = f"""
WITH flips AS (
    SELECT *, right_b > right_a AS gained, row_number() OVER (
        PARTITION BY {_ARM}, right_b, task ORDER BY shots, seed, example) AS turn
    FROM pairs WHERE right_a <> right_b
)
SELECT {_ARM}, gained, task, shots, query, gold, prediction_a, prediction_b,
       copied_a = 1 AS copied_a, copied_b = 1 AS copied_b
FROM flips
QUALIFY row_number() OVER (PARTITION BY {_ARM}, gained ORDER BY turn, task) <= $1
ORDER BY {_ARM}, gained, turn, task
"""  # noqa: S608


class Arm(NamedTuple):
    """What a side evaluated on a task."""

    model: str
    role: str
    method: str
    intervention: str
    seed: int | None
    task: str


@dataclass(frozen=True)
class Paired:
    """What two sides answered to the same prompts.

    Attributes:
        lines: a line for each task and number of shots, and one (without task) for the mean over
            tasks, of every two models and of the interventions that have one role in both.
        flips: some examples that only one side has right.
        alone: what has no counterpart, in words.
    """

    lines: pa.Table
    flips: pa.Table
    alone: list[str]


def pair(a: Side, b: Side, flips: int) -> Paired:
    """Pair the answers of two sides on the report split.

    Baselines are paired with baselines and choices with choices: of the same method, or of the
    only one that is left on each side.

    Args:
        a: what is compared with; differences are B - A.
        b: what is compared.
        flips: examples at most in each direction, of every two interventions.
    """
    with duckdb.connect(":memory:", config={"python_enable_replacements": "false"}) as con:
        add_functions(con)
        for name, side in (("a", a), ("b", b)):
            con.register(name, side.connection.sql(
                _ANSWERS, params=[side.name, list(side.models)]).to_arrow_table())
        arms = [[Arm(*row) for row in con.execute(_ARMS.format(side=side)).fetchall()]
                for side in "ab"]
        matches, alone = _matches(*arms)
        con.register("matches", pa.Table.from_pylist(matches, _MATCH))
        con.execute(_PAIRS)
        lines = con.sql(_LINES).to_arrow_table()
        alone += _missing(con, matches)
        return Paired(lines, con.sql(_FLIPS, params=[flips]).to_arrow_table(), alone)


_MATCH = pa.schema([(name, pa.string()) for name in (
    "model_a", "model_b", "role", "method_a", "method_b", "intervention_a", "intervention_b",
    "task")] + [("seed_a", pa.int64()), ("seed_b", pa.int64())])


def _matches(ours: list[Arm], theirs: list[Arm]) -> tuple[list[dict[str, object]], list[str]]:
    """Arms that are compared, and what has no counterpart."""
    found: list[tuple[Arm, Arm]] = []
    alone: list[str] = []

    def pairs_of(kind: str, name: str, one: list[Arm], other: list[Arm]
                 ) -> Iterator[tuple[list[Arm], list[Arm], str]]:
        """The arms of each two names that are alike; the others are told."""
        ours, theirs = (sorted({str(getattr(arm, name)) for arm in side})
                        for side in (one, other))
        pairs, left, right = matched(ours, theirs, str)
        for side, rest in (("A", left), ("B", right)):
            if rest:
                alone.append(f"only {side} has {kind}: {', '.join(rest)}")
        for mine, other_name in pairs:
            yield ([arm for arm in one if getattr(arm, name) == mine],
                   [arm for arm in other if getattr(arm, name) == other_name], mine)

    for one, other, model in pairs_of("model", "model", ours, theirs):
        for role in ("baseline", "chosen"):
            of_role = [[arm for arm in side if arm.role == role] for side in (one, other)]
            for mine, their, method in pairs_of(f"of {model} the method", "method", *of_role):
                _match_tasks(f"{model}, {method}", mine, their, found, alone)
    rows: list[dict[str, object]] = [{
        "model_a": x.model, "model_b": y.model, "role": x.role, "method_a": x.method,
        "method_b": y.method, "intervention_a": x.intervention, "intervention_b": y.intervention,
        "task": x.task, "seed_a": x.seed, "seed_b": y.seed} for x, y in found]
    return rows, alone


def _match_tasks(name: str, ours: list[Arm], theirs: list[Arm], found: list[tuple[Arm, Arm]],
                 alone: list[str]) -> None:
    """Match the arms of one method, task by task."""
    missing: dict[str, list[str]] = {"A": [], "B": []}
    several: Counter[str] = Counter()
    for task in sorted({arm.task for arm in ours + theirs}):
        mine, their = ([arm for arm in side if arm.task == task] for side in (ours, theirs))
        pairs, left, right = matched(
            mine, their, lambda arm: (arm.intervention, arm.seed), lambda arm: arm.intervention,
            lambda arm: arm.seed)
        found += pairs
        for side, rest, other in (("A", left, their), ("B", right, mine)):
            if rest and not other:
                missing[side].append(task)
            elif rest:
                several[side] += len(rest)
    alone += [f"only {side} has, of {name}: {', '.join(tasks)}"
              for side, tasks in missing.items() if tasks]
    alone += [f"{name}: {count} interventions of {side} (each on a task) have no single "
              f"counterpart" for side, count in sorted(several.items())]


def _missing(con: duckdb.DuckDBPyConnection, matches: list[dict[str, object]]) -> list[str]:
    """What of the matched arms has no partner prompt."""
    said = []
    for side, other in ("ab", "ba"):
        rows = con.execute(f"""
SELECT m.model_{side}, m.method_{side}, count(*) AS n,
       count(*) FILTER (NOT EXISTS (SELECT 1 FROM pairs p
           WHERE p.model_{side} = m.model_{side} AND p.method_{side} = m.method_{side}
             AND p.role = m.role AND p.task = m.task AND p.shots = s.shots AND p.seed = s.seed
             AND p.example = s.example AND p.intervention_{side} = m.intervention_{side})) AS alone
FROM matches m JOIN {side} s
  ON s.model = m.model_{side} AND s.role = m.role AND s.method = m.method_{side}
 AND s.task = m.task AND s.intervention = m.intervention_{side}
 AND s.control_seed IS NOT DISTINCT FROM m.seed_{side}
GROUP BY ALL HAVING alone > 0 ORDER BY ALL
""").fetchall()  # noqa: S608
        said += [f"{model}, {method}: {alone} of {n} answers of {side.upper()} are to prompts that "
                 f"{other.upper()} was not asked" for model, method, n, alone in rows]
    return said
