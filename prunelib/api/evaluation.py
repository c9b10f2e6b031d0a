"""What a model answered, beside what the untouched model answers to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunelib.pipeline.units.unit import Row
from prunelib.scoring.statistics import (
    difference_intervals,
    pair_sums,
    share_intervals,
    share_sums,
    sign_flip_p,
)

if TYPE_CHECKING:
    import pandas as pd

#: Columns that tell a prompt from the others of an evaluation.
PROMPT = ["task", "shots", "seed", "example"]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Answers of a model, and of the untouched one to the same prompts.

    Attributes:
        name: of the model and what was done to it.
        answers: rows of the table ``predictions``.
        untouched: those of the untouched model, prompt by prompt; empty where ``answers`` are it.
    """

    name: str
    answers: Sequence[Row]
    untouched: Sequence[Row]

    def predictions(self) -> pd.DataFrame:
        """One line per prompt: what was asked and answered, and what the untouched model said.

        The columns of the table ``predictions``; those of the untouched model end in
        ``_untouched``.
        """
        import pandas as pd

        kept = [*PROMPT, "query", "gold", "prediction", "correct", "copied", "copied_position",
                "demonstrations", "answers", "error"]
        found = pd.DataFrame(list(self.answers))[kept]
        if not self.untouched:
            return found
        other = pd.DataFrame(list(self.untouched))[
            [*PROMPT, "prediction", "correct", "copied", "copied_position"]]
        return found.merge(other, on=PROMPT, suffixes=("", "_untouched"), validate="one_to_one")

    def frame(self) -> pd.DataFrame:
        """One line per task and number of shots; numbers as in the view ``comparisons``."""
        import pandas as pd

        lines = [dict(zip(("task", "shots"), key, strict=True)) | self._line(some)
                 for key, some in self.predictions().groupby(["task", "shots"], sort=False)]
        return pd.DataFrame(lines)

    def total(self) -> dict[str, Any]:
        """Means over the tasks, each with all its numbers of shots, as in ``leaderboard``.

        ``accuracy`` and ``copying_error`` with their 95% intervals over queries and, where
        something was done to the model, ``difference`` (in accuracy) with its interval and
        p-value, and ``copying_difference`` (in copying errors) with its interval.
        """
        return self._line(self.predictions())

    def _line(self, some: pd.DataFrame) -> dict[str, Any]:
        """Numbers of some answers: the plain mean over their tasks, intervals over queries."""
        tasks = [of_task for _, of_task in some.groupby("task", sort=False)]
        line: dict[str, Any] = {"n": len(some), "queries": int(sum(
            of_task["query"].nunique() for of_task in tasks))}
        rows = np.arange(len(tasks)) * 0
        for name, column in (("accuracy", "correct"), ("copying_error", "copied")):
            sums = [_sums(of_task, column) for of_task in tasks]
            low, high = share_intervals(np.stack(sums), rows)
            line |= {name: float(np.mean([one[3] / one[1] for one in sums])),
                     f"{name}_low": float(low[0]), f"{name}_high": float(high[0])}
        if "correct_untouched" not in some:
            return line
        copies = np.stack([pair_sums(*_by_query(of_task, "copied")) for of_task in tasks])
        fewer, more = difference_intervals(copies, rows)
        pairs = [_by_query(of_task, "correct") for of_task in tasks]
        low, high = difference_intervals(np.stack([pair_sums(*pair) for pair in pairs]), rows)
        flips = [np.unique(np.round(gained - lost, 9), return_counts=True)
                 for _, gained, lost in pairs]
        return line | {
            "accuracy_untouched": _mean(tasks, "correct_untouched"),
            "copying_error_untouched": _mean(tasks, "copied_untouched"),
            "difference": float(np.mean([(gained.sum() - lost.sum()) / n.sum()
                                         for n, gained, lost in pairs])),
            "difference_low": float(low[0]), "difference_high": float(high[0]),
            "copying_difference": float(np.mean((copies[:, 3] - copies[:, 6]) / copies[:, 1])),
            "copying_difference_low": float(fewer[0]), "copying_difference_high": float(more[0]),
            "p_value": sign_flip_p(
                np.concatenate([values for values, _ in flips]),
                np.concatenate([counts for _, counts in flips]),
                np.concatenate([np.full(len(values), 1 / pair[0].sum())
                                for (values, _), pair in zip(flips, pairs, strict=True)])),
        }

    def __repr__(self) -> str:
        line = self.total()
        said = (f"{self.name}: accuracy {line['accuracy']:.1%}, copying errors "
                f"{line['copying_error']:.1%}")
        if "difference" in line:
            said += (f"; untouched {line['accuracy_untouched']:.1%} and "
                     f"{line['copying_error_untouched']:.1%}; difference in accuracy "
                     f"{line['difference']:+.1%} [{line['difference_low']:+.1%}, "
                     f"{line['difference_high']:+.1%}], p = {line['p_value']:.2g}, in copying "
                     f"errors {line['copying_difference']:+.1%} "
                     f"[{line['copying_difference_low']:+.1%}, "
                     f"{line['copying_difference_high']:+.1%}]")
        return f"{said} ({line['n']} answers, {line['queries']} queries)"


def _mean(tasks: Sequence[pd.DataFrame], column: str) -> float:
    return float(np.mean([of_task[column].mean() for of_task in tasks]))


def _sums(of_task: pd.DataFrame, column: str) -> Any:
    by_query = of_task.groupby("query", sort=True)[column]
    return share_sums(by_query.size().to_numpy(), by_query.sum().to_numpy(float))


def _by_query(of_task: pd.DataFrame, column: str) -> tuple[Any, Any, Any]:
    """Of each query: pairs of answers, those that count here alone, and untouched alone."""
    here, other = of_task[column].astype(bool), of_task[f"{column}_untouched"].astype(bool)
    counted = of_task[["query"]].assign(n=1, gained=here & ~other, lost=other & ~here)
    sums = counted.groupby("query", sort=True).sum().astype(float)
    return sums["n"].to_numpy(), sums["gained"].to_numpy(), sums["lost"].to_numpy()
