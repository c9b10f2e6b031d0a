"""A report as HTML: one file that loads nothing, whose texts are never taken for markup.

Names of models and tasks, prompts and answers are written by others. The template engine escapes
them, the script of the page gives them to the browser as text, pictures cannot run anything, and
the page's own policy (CSP) lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from prunelib.results.figures.choices import draw_choices
from prunelib.results.figures.drawing import FORMATS, Drawing, for_page
from prunelib.results.figures.head_importance import draw_heads
from prunelib.results.report.examples import FILTERS, PAGE, Examples
from prunelib.results.report.run import blocks_computed, compute_views
from prunelib.results.report.sections import MOST_ROWS, SECTIONS, Section
from prunelib.results.report.tables import Answer, answered
from prunelib.results.report.words import summary
from prunelib.results.views.registry import VIEWS

if TYPE_CHECKING:
    import duckdb

#: What is vendored (folder ``vendor``): its files in the order in which the page has them, its
#: version and its licence.
VENDORED = (
    ("sortable-tablesort", "4.1.7", "sortable.LICENSE",
     ("sortable.min.js", "sortable.a11y.min.js")),
    ("preact", "10.29.8", "preact.LICENSE", ("preact.min.umd.js",)),
)
#: Views of which figures are made.
_DRAWN = ("leaderboard", "evaluations", "chosen", "grid", "component_importance",
          "importance_agreement", "removal_curves", "removal_means", "retention")
_HERE = files("prunelib.results.report")
_MODELS = """
SELECT DISTINCT model, revision, weights_digest, tokenizer_digest, model_type, layers, width, heads
FROM models JOIN run_units USING (unit_id, model) WHERE run = $1 ORDER BY ALL
"""


@dataclass(frozen=True)
class Picture:
    """A figure as a page has it: a data URL of an SVG that may be light or dark."""

    name: str
    title: str
    url: str


@dataclass(frozen=True)
class Part:
    """A section with what it holds."""

    section: Section
    pictures: tuple[Picture, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Report:
    """A page, the figures that it shows, and the examples that it may ask for."""

    html: str
    drawings: dict[str, Drawing]
    examples: Examples

    @property
    def files(self) -> list[str]:
        """Names of the files of all figures."""
        return [f"{name}.{kind}" for name in self.drawings for kind in FORMATS]

    def file(self, name: str) -> bytes | None:
        """What such a file holds; ``None`` if there is none of that name."""
        figure, _, kind = name.rpartition(".")
        if figure not in self.drawings or kind not in FORMATS:
            return None
        return self.drawings[figure].written(kind)


def build(connection: duckdb.DuckDBPyConnection, row: dict[str, Any], figures: str,
          version: str | None = None, processes: Executor | None = None) -> Report:
    """The report of a run.

    Args:
        connection: of :func:`~prunelib.results.query.open_results`; gets temporary tables.
        row: of the run, as :func:`~prunelib.results.report.run.find_run` gives it.
        figures: where links to files of figures lead, relative to the page.
        version: of a page that is served: it asks for examples page by page, and again for all of
            it when its version is no longer this one. ``None``: of a file that has everything.
        processes: write every file of every figure at once; without them each is written when it
            is asked for.
    """
    run = row["run"]
    with blocks_computed(connection, run):
        compute_views(connection, run, _DRAWN)  # first, so that figures are drawn meanwhile
        drawings = (*draw_choices(connection, run), *draw_heads(connection, run))
        if processes is not None:
            for one in drawings:
                one.begin(processes)
        asked = {question.view for section in SECTIONS for question in section.questions}
        compute_views(connection, run, [view.name for view in VIEWS
                                        if view.name in asked.difference(_DRAWN)])
    answers = {section.name: tuple(filter(None, (answered(connection, question, run)
                                                 for question in section.questions)))
               for section in SECTIONS}
    examples = Examples(connection, run)
    packed, count = ("", 0) if version is not None else examples.embedded()
    parts = []
    for section in SECTIONS:
        own = tuple(_picture(one) for one in drawings if one.section == section.name)
        if answers[section.name] or own:
            parts.append(Part(section, own, answers[section.name]))
    html = _page(
        row=row, version=version, figures=figures, parts=parts, sentences=summary(connection, run),
        models=connection.sql(_MODELS, params=[run]).to_arrow_table().to_pylist(),
        recipe={name: json.dumps(value, indent=1, ensure_ascii=False)
                for name, value in json.loads(row["resolved"] or "{}").items()
                if value not in (None, [], "")},
        packages=json.loads(row["packages"] or "{}"), hardware=json.loads(row["hardware"] or "{}"),
        examples=examples, embedded=packed, count=count)
    return Report(html, {one.name: one for one in drawings}, examples)


def policy(html_style: str, scripts: list[str], live: bool) -> str:
    """The page's content security policy: its own style and scripts, by their digests."""
    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    allowed = " ".join(map(digest, scripts))
    return (f"default-src 'none'; script-src {allowed}; style-src {digest(html_style)}; "
            f"img-src data:; connect-src '{'self' if live else 'none'}'; base-uri 'none'; "
            "form-action 'none'")


def _page(**content: Any) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    style = (_HERE / "page/report.css").read_text("utf-8")
    scripts = [(_HERE / "vendor" / name).read_text("utf-8")
               for *_, names in VENDORED for name in names]
    scripts.append((_HERE / "page/report.js").read_text("utf-8"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (_HERE / "page" / name).read_text("utf-8")))
    licences = [(name, version, (_HERE / "vendor" / licence).read_text("utf-8"))
                for name, version, licence, _ in VENDORED]
    return environment.get_template("report.html").render(
        style=style, scripts=scripts, licences=licences, most=MOST_ROWS, filters=FILTERS, per=PAGE,
        policy=policy(style, scripts, content["version"] is not None), **content)


def _picture(one: Drawing) -> Picture:
    svg = base64.b64encode(for_page(one.written("svg"))).decode()
    return Picture(one.name, one.title, f"data:image/svg+xml;base64,{svg}")
