"""The page about Python and the notebook: what they show runs."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pretrained import fetched

import prunelib

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "how-to" / "python.md"
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def cells() -> list[dict[str, Any]]:
    """The cells of the notebook."""
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return found


def sources() -> list[str]:
    """The code of the notebook, cell by cell."""
    return ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]


def executed(code: list[str]) -> tuple[dict[str, Any], str]:
    """What code leaves behind, and what it prints."""
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for text in code:
            exec(compile(text, "page", "exec"), names)
    return names, printed.getvalue()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page is read, with results in it."""
    folder = tmp_path_factory.mktemp("page")
    assert prunelib.run(prunelib.Recipe.model_validate({
        "name": "page", "models": ["reference/llama-copier"], "engine": "transformers",
        "attribution": {"prompts": 4, "shots": 1, "method": "wanda"},
        "search": {"layers": [2], "rates": [0.1], "examples": 8, "shots": 1},
        "controls": {"random": 0, "random_searches": 0},
        "evaluate": {"tasks": ["to_upper"], "shots": [1], "examples": 8},
    }), folder / "results").complete
    return folder


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    code = [block.replace("prompts=50", "prompts=8, layers=[2]") for block in blocks]
    assert code[0] != blocks[0]
    assert len([line for line in blocks[0].splitlines() if line]) <= 10
    monkeypatch.chdir(searched)
    names, printed = executed(code)
    assert len(names["off"]) == 30 and "difference in accuracy +" in printed
    for file in ("scores.pdf", "grid.pdf", "scores.svg"):
        assert (searched / file).stat().st_size > 1000
    assert all(row[0] for row in names["flips"].fetchall())


@pytest.mark.slow
def test_the_notebook_runs_on_the_reference_model() -> None:
    code = [text.replace("reference/smollm2", "reference/not-there") for text in sources()]
    names, printed = executed(code)
    assert names["model"].info.id == "reference/llama-copier" and "<- copied" in printed
    results = {name: result.total() for name, result in names["results"].items()}
    # The copying neurons are planted in layer 2.
    assert results["untouched"]["copying_error"] > 0.8
    assert results["layer 2, 2% off"]["accuracy"] > 0.5 > results["layer 2, random"]["accuracy"]
    assert len(names["flipped"]) > 0


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param("smollm2", marks=fetched("smollm2"))])
def test_the_notebook_runs_on_a_pretrained_model(name: str) -> None:
    names, _ = executed(sources())
    assert names["model"].info.id == f"reference/{name}"
    assert names["results"]["untouched"].total()["copying_error"] > 0.3


def test_the_notebook_is_a_notebook_with_its_outputs() -> None:
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells()}) == len(cells())
    for cell in cells():
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))
    assert sum(bool(cell.get("outputs")) for cell in cells()) == len(sources())
    assert NOTEBOOK.stat().st_size < 200_000


def test_links_of_the_notebook_lead_somewhere() -> None:
    text = "".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links and all((NOTEBOOK.parent / link).exists() for link in links)
