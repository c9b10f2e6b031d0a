"""The summary of a run in words: what was found, what was not, and what to be careful about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import duckdb

Kind = Literal["found", "not found", "caution", "state"]
#: Methods of a model that get sentences of their own; the leaderboard has all.
_MOST_METHODS = 3
#: A ranking counts as unstable if two halves of the queries share less than this of what is
#: switched off, and a task as small if it has fewer queries.
_STABLE, _FEW = 0.5, 30
#: Views that are read, for whoever computes them first.
SUMMARISED = ("comparisons", "leaderboard", "evaluations", "chosen", "grid", "score_errors",
              "in_context", "importance_agreement", "removal_means", "failed_units")

_LINES = """
SELECT l.*, c."count", c.warnings, c.proxy, c.control_seed, c.chosen_layer, c.chosen_rate,
       g.steers
FROM leaderboard l
JOIN (SELECT model, method, any_value("count") AS "count", any_value(warnings) AS warnings,
             any_value(proxy) AS proxy, any_value(control_seed) AS control_seed,
             any_value(layer) AS chosen_layer, any_value(rate) AS chosen_rate,
             count(*) AS choices
      FROM chosen GROUP BY ALL) c USING (model, method)
-- Steering is searched over settings of its own, not over shares.
LEFT JOIN (SELECT DISTINCT model, method, true AS steers FROM grid WHERE rate IS NULL) g
    USING (model, method)
ORDER BY l.model, l.accuracy DESC, l.method
"""
_BASELINES = "SELECT * FROM leaderboard WHERE method = 'none'"
_STABILITY = """
SELECT layer, share, "count", shared, shared_by_chance, relative_error, queries FROM score_errors
WHERE model = $1 AND method = $2 AND proxy = $3 AND layer = $4 AND shared IS NOT NULL
ORDER BY abs(share - $5) LIMIT 1
"""
_TESTS = """
SELECT count(*), count(*) FILTER (q_value < 0.05 AND difference > 0),
       count(*) FILTER (q_value < 0.05 AND difference < 0)
FROM comparisons WHERE model = $1 AND method = $2 AND reference = 'baseline' AND role = 'chosen'
"""
_SMALL = """
SELECT count(DISTINCT task), min(queries) FROM evaluations
WHERE purpose = 'report' AND role = 'baseline' AND queries < $1 AND model = $2
"""
_REMOVED = """
SELECT r.*, o.accuracy AS other FROM removal_means r
LEFT JOIN removal_means o ON o.model = r.model AND o.shots = r.shots AND o.heads = r.heads
 AND o.ffns = r.ffns AND o."order" = 'random'
WHERE r."order" = 'own' AND (r.heads > 0) <> (r.ffns > 0) AND r.accuracy IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY r.model, r.heads > 0
                           ORDER BY r.shots DESC, greatest(r.heads, r.ffns)) = 1
ORDER BY r.model, r.heads = 0
"""
_AGREED = """
SELECT model, site, other_score, avg(spearman) AS spearman, count(*) AS pairs
FROM importance_agreement WHERE score <> other_score AND 'oracle' IN (score, other_score)
  AND 'gradient_gate' IN (score, other_score) AND task IS NOT DISTINCT FROM other_task
GROUP BY ALL ORDER BY ALL
"""
_IN_CONTEXT = """
SELECT * FROM in_context WHERE removed = 'both' AND gold IS NULL ORDER BY model, task
"""


@dataclass(frozen=True)
class Sentence:
    """A sentence of the summary, of one model or (model empty) of the run, and what kind it is.

    ``look``: it is a reason to look closer at what was found.
    """

    kind: Kind
    model: str
    text: str
    look: bool = False


def best_choices(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Each model with the choice that does best on the reported tasks, in a line; best first."""
    best: dict[str, dict[str, Any]] = {}
    for row in _records(connection, _LINES):
        best.setdefault(row["model"], row)
    rows = sorted(best.values(), key=lambda row: -(row["difference"] or 0))
    return [(row["model"], _brief(row)) for row in rows]


def _brief(row: dict[str, Any]) -> str:
    if not row["count"]:
        return f"{row['method']}: {_nothing(row)}"
    beaten: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for name, called in (("difference_to_random", "random sets"),
                         ("difference_to_random_search", "random searches")):
        beaten[_beats(row, name)].append(called)
    chance = [told.format(" and ".join(beaten[known])) for known, told in (
        (True, "better than {}"), (False, "not surely better than {}"),
        (None, "too few {} to compare with")) if beaten[known]]
    return f"{row['method']}, {_where(row)}: {_points(row, 'difference')}; {', '.join(chance)}"


def _where(row: dict[str, Any]) -> str:
    if row["layer"] is None:
        return "several layers"
    return f"layer {row['layer']}" + ("" if row["rate"] is None else f" ({_share(row['rate'])})")


def _nothing(row: dict[str, Any]) -> str:
    return "steers nothing" if row["steers"] else "switches nothing off"


def _beats(row: dict[str, Any], name: str) -> bool | None:
    """Whether a choice is surely better than what was drawn; None if that cannot be said."""
    low = row[f"{name}_low"]
    return None if low is None else low > 0


def summary(connection: duckdb.DuckDBPyConnection, run: str) -> list[Sentence]:
    """What the views of a run say, in words."""
    lines = _records(connection, _LINES)
    baselines = {row["model"]: row for row in _records(connection, _BASELINES)}
    said = _state(connection, run)
    for model, baseline in baselines.items():
        of_model = [row for row in lines if row["model"] == model]
        for row in of_model[:_MOST_METHODS]:
            said += _choice(connection, row, baseline)
        if len(of_model) > _MOST_METHODS:
            said.append(Sentence("state", model, f"{len(of_model) - _MOST_METHODS} more methods "
                                 "did less well: see the leaderboard."))
        said += _few(connection, model)
    return said + _heads(connection)


def _records(connection: duckdb.DuckDBPyConnection, sql: str, *values: Any
             ) -> list[dict[str, Any]]:
    return connection.sql(sql, params=list(values)).to_arrow_table().to_pylist()  # type: ignore[no-any-return]


def _state(connection: duckdb.DuckDBPyConnection, run: str) -> list[Sentence]:
    """How the run ended, and what is missing."""
    (row,) = _records(connection, "SELECT * FROM runs WHERE run = $1", run)
    said = []
    if row["status"] != "done":
        said.append(Sentence("caution", "", {
            "running": "The run has not ended: what follows is what it has so far.",
            "failed": "Units of the run failed: what needs them is missing.",
        }.get(row["status"], f"The run was not finished ({row['status']}): what follows is what it "
              "had by then.")))
    (failed,) = _records(connection, "SELECT count(*) AS n FROM failed_units")
    if failed["n"]:
        said.append(Sentence("caution", "", f"{failed['n']} units of work failed and are not in "
                             "any number here: see Failures."))
    (errors,) = _records(connection, "SELECT sum(errors)::BIGINT AS n FROM evaluations "
                                     "WHERE purpose = 'report'")
    if errors["n"]:
        said.append(Sentence("caution", "", f"{errors['n']} answers are missing because of an "
                             "error; they count as wrong.", look=True))
    return said


def _choice(connection: duckdb.DuckDBPyConnection, row: dict[str, Any], baseline: dict[str, Any]
            ) -> list[Sentence]:
    """What a method chose and did, on the prompts that both answered, and how sure that is."""
    model, method = row["model"], row["method"]
    if not row["count"]:
        return [Sentence("not found", model, f"{method}: the search {_nothing(row)}; no "
                         f"{'candidate' if row['steers'] else 'cell'} beat the untouched model.")]
    done = "steered" if row["steers"] else "off"
    what = (f"{method}: with {row['count']} components of {_where(row)} {done}, accuracy goes from "
            f"{_share(row['accuracy'] - row['difference'])} to {_share(row['accuracy'])} "
            f"({_points(row, 'difference')}) and copying errors from "
            f"{_share(baseline['copying_error'])} to {_share(row['copying_error'])}.")
    low, high = row["difference_low"], row["difference_high"]
    said = [Sentence("found", model, what)]
    if low is None or low <= 0 <= high:
        said = [Sentence("not found", model, f"{what} The interval holds zero: no sure change.")]
    elif high < 0:
        said = [Sentence("not found", model, f"{what} The model gets worse.")]
    if row["missing_cells"]:
        said.append(Sentence("caution", model, f"{method}: {row['missing_cells']} cells (task, "
                             "shots, seed) of the baseline are not answered yet, or failed.",
                             look=True))
    said += [_control(row, model, method, *names) for names in (
        ("difference_to_random", "random_rank", "random_sets",
         "random sets of the same layer and size"),
        ("difference_to_random_search", "random_search_rank", "random_searches",
         "random rankings that went through the same search"))]
    said += _tests(connection, model, method) + _stability(connection, row)
    return said + [Sentence("caution", model, f"{method}: {warning}.", look=True)
                   for warning in (row["warnings"] or "").split("; ") if warning]


def _control(row: dict[str, Any], model: str, method: str, name: str, rank: str, sets: str,
             called: str) -> Sentence:
    """Whether a choice is better than what was drawn at random."""
    if row[name] is None:
        return Sentence("caution", model, f"{method}: not compared with {called}; there are none.")
    told = (f"{method}: {_points(row, name)} against {called}, place {row[rank]} of "
            f"{row[sets] + 1}")
    if _beats(row, name) is None:
        return Sentence("caution", model, f"{told}; a single one says little.")
    if _beats(row, name):
        return Sentence("found", model, f"{told}: better than chance.")
    return Sentence("not found", model, f"{told}: not surely better than chance.")


def _tests(connection: duckdb.DuckDBPyConnection, model: str, method: str) -> list[Sentence]:
    ((count, better, worse),) = connection.execute(_TESTS, [model, method]).fetchall()
    if not count:
        return []
    return [Sentence("found" if better else "not found", model,
                     f"{method}: on {better} of {count} pairs of task and shots it is surely "
                     f"better than the baseline, on {worse} surely worse (q < 0.05).")]


def _stability(connection: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> list[Sentence]:
    """Whether two halves of the queries would switch off the same components."""
    if row["chosen_layer"] is None:
        return []
    found = _records(connection, _STABILITY, row["model"], row["method"], row["proxy"],
                     row["chosen_layer"], row["chosen_rate"])
    for errors in found:
        told = (f"{row['method']}: two halves of the {errors['queries']} attributed queries have "
                f"{errors['shared']} of {errors['count']} components in common "
                f"({errors['shared_by_chance']:.1f} by chance)")
        if errors["shared"] < _STABLE * errors["count"]:
            return [Sentence("not found", row["model"], f"{told}: the ranking is not stable.",
                             look=True)]
        return [Sentence("found", row["model"], f"{told}: the ranking is fairly stable.")]
    return [Sentence("caution", row["model"],
                     f"{row['method']}: it is not known how stable the ranking is.",
                     look=True)]


def _few(connection: duckdb.DuckDBPyConnection, model: str) -> list[Sentence]:
    ((tasks, least),) = connection.execute(_SMALL, [_FEW, model]).fetchall()
    if not tasks:
        return []
    have = "task has" if tasks == 1 else "tasks have"
    return [Sentence("caution", model, f"few queries: {tasks} {have} fewer than {_FEW} different "
                     f"ones (least: {least}); intervals of single tasks are wide.", look=True)]


def _heads(connection: duckdb.DuckDBPyConnection) -> list[Sentence]:
    """What studies of heads and FFNs say."""
    said = []
    for row in _records(connection, _REMOVED):
        called, share = ("heads", row["heads"]) if row["heads"] else ("FFNs", row["ffns"])
        told = (f"without the least important {_share(share)} of {called}, accuracy goes from "
                f"{_share(row['baseline_accuracy'])} to {_share(row['accuracy'])} "
                f"({_points(row, 'difference')}; {row['shots']} shots)")
        kind: Kind = "found"
        if row["other"] is not None:
            told += f"; random orders leave {_share(row['other'])}"
            kind = "found" if row["accuracy"] > row["other"] else "not found"
        said.append(Sentence(kind, row["model"], f"{told}."))
    said += [Sentence("found" if row["spearman"] > _STABLE else "not found", row["model"],
                      f"gradient scores of {row['site']}s and what accuracy loses without each "
                      f"have a rank correlation of {row['spearman']:.2f}, mean of {row['pairs']}.")
             for row in _records(connection, _AGREED) if row["spearman"] is not None]
    for row in _records(connection, _IN_CONTEXT):
        said.append(Sentence(
            "found" if (row["difference_to_random_high"] or 0) < 0 else "not found", row["model"],
            f"{row['task']}: without {row['heads']} in-context heads accuracy changes by "
            f"{_points(row, 'difference')}, against random heads by "
            f"{_points(row, 'difference_to_random')}."))
    return said


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def _points(row: dict[str, Any], name: str) -> str:
    """A difference in points with its interval."""
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if value is None:
        return "nothing known"
    ends = "" if low is None else f", 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    return f"{100 * value:+.1f} points{ends}"
