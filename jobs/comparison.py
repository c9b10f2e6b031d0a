"""How a comparison of two runs or models is printed: what differs in them, and in their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobs.watch import clock
from prunelib.errors import printable
from prunelib.results.compare.changes import (
    Change,
    recipe_changes,
    version_changes,
    weight_changes,
)
from prunelib.results.compare.pairs import Paired
from prunelib.results.compare.sides import Side

#: Characters of a value that differs, and of a query or an answer, that are shown.
_VALUE, _TEXT = 200, 60
_ARM = ("model_a", "model_b", "role", "method_a", "method_b")


def comparison(a: Side, b: Side, found: Paired) -> Group:
    """Everything, for 80 columns."""
    parts: list[RenderableType] = [_side("A", a), _side("B", b), Text()]
    parts += _changed("recipe", recipe_changes(a, b))
    parts += _changed("versions", version_changes(a, b))
    for models, changes in weight_changes(a, b).items():
        parts += _changed(f"files of {models}", changes)
    flips = found.flips.to_pylist()
    for arm, lines in groupby(found.lines.to_pylist(), _arm):
        parts += [Text(), *_differences(list(lines)),
                  *_flips([flip for flip in flips if _arm(flip) == arm])]
    if not found.lines.num_rows:
        parts.append(Text("No prompt was asked on both sides: there is nothing to compare."))
    if found.alone:
        parts += [Text("\nNot compared", style="bold"),
                  *(Text(printable(text)) for text in found.alone)]
    return Group(*parts)


def _arm(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _ARM)


def _side(name: str, side: Side) -> Text:
    models = ", ".join(side.models) or "no models"
    return Text.assemble((f"{name}  ", "bold"), printable(
        f"{side.name} in {side.place}: {side.run['status']}, {clock(side.run['started'])}; "
        f"{models}"))


def _changed(title: str, changes: list[Change]) -> Iterable[RenderableType]:
    if not changes:
        return [Text(f"{title}: no difference")]
    table = _table(title, "left", "A", "B")
    for change in changes:
        table.add_row(Text(change.what), *map(_value, (change.a, change.b)))
    return [table]


def _value(value: Any) -> Text:
    if value is None:
        return Text("-", style="dim")
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return Text(text if len(text) <= _VALUE else f"{text[:_VALUE]}…")


def _differences(lines: list[dict[str, Any]]) -> Iterable[RenderableType]:
    """The answers of two interventions: a line for each task and number of shots, and the mean."""
    first = lines[0]
    yield Text(printable(" against ".join(dict.fromkeys((_called(first, "a"), _called(first, "b"))))
                         ), style="bold")
    table = _table("accuracy in % on the same prompts; flips: only B right / only A right", "right",
                   "shots", "A", "B", "B - A", "95% interval", "q", "flips", first="task")
    shown = None
    for line in lines[1:] + lines[:1]:
        mean = line["task"] is None
        table.add_row(
            Text(f"mean of {line['tasks']}" if mean else
                 printable(line["task"]) if line["task"] != shown else ""),
            "" if mean else str(line["shots"]),
            *(f"{100 * line[name]:.1f}" for name in ("accuracy_a", "accuracy_b")),
            *(f"{100 * line['difference']:+.1f}", f"{100 * line['difference_low']:+.1f} to "
              f"{100 * line['difference_high']:+.1f}"),
            "<.001" if line["q_value"] < 5e-4 else f"{line['q_value']:.3f}",
            f"{line['gained']}/{line['lost']}", style="bold" if mean else None)
        shown = line["task"]
    yield table


def _called(line: dict[str, Any], side: str) -> str:
    method, layer, rate = (line[f"{name}_{side}"] for name in ("method", "layer", "rate"))
    name = f"{line[f'model_{side}']}: {'untouched' if method == 'none' else method}"
    return name if layer is None or rate is None else f"{name} (layer {layer}, {100 * rate:.3g}%)"


def _flips(flips: list[dict[str, Any]]) -> Iterable[RenderableType]:
    """Examples that one side alone has right, in each direction."""
    for gained, some in groupby(flips, lambda flip: flip["gained"]):
        yield Text(f"right in {'B' if gained else 'A'} alone, such as:")
        for flip in some:
            said = ", ".join(
                f"{side.upper()} says {_short(flip[f'prediction_{side}'])}"
                f"{' (copied)' * flip[f'copied_{side}']}" for side in "ab")
            yield Text(f"  {printable(flip['task'])}, {flip['shots']}-shot: "
                       f"{_short(flip['query'])}, right is {_short(flip['gold'])}; {said}")


def _short(text: str | None) -> str:
    if text is None:
        return "nothing (an error)"
    shown = printable(text)
    return f"'{shown if len(shown) <= _TEXT else shown[:_TEXT] + '…'}'"


def _table(title: str, justify: Any, *columns: str, first: str = "") -> Table:
    table = Table(title=title, title_justify="left", title_style="italic", box=SIMPLE_HEAD,
                  padding=0, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify=justify, overflow="fold", no_wrap=justify == "right")
    return table
