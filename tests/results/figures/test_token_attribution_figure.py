"""The picture of a prompt, read back from its SVG."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest

from prunelib.attribution.explanation import Explanation, View
from prunelib.attribution.token_attribution import TokenScores
from prunelib.errors import UserError
from prunelib.results.figures.token_attribution import draw_tokens

TOKENS = ("<s>", "a b", "\n", "$x^$", "y")
#: Ends of matplotlib's colour map RdBu_r, and its middle.
RED, BLUE, WHITE = "#67001f", "#053061", "#f7f6f6"


def view(name: str, *scores: float) -> View:
    return View(name, "y", TokenScores(np.array(scores), 0.0, 9, 0.0, 1.0))


def test_every_token_is_there_with_its_colour(tmp_path: Path) -> None:
    views = (view("before", 0, 1, 0, -2, 2), view("after", 0, 0, 0, 0, -1))
    out = tmp_path / "why.svg"
    draw_tokens(Explanation("logit of $y$", TOKENS, views), "some_$model_$", out)
    svg = html.unescape(out.read_text())
    shown = ["<s>", "a␣b", "↵", "$x^$", "y"]
    texts = [text for text in re.findall("<!-- (.*) -->", svg) if text in set(shown)]
    assert texts == shown * 2
    fills = re.findall(r'style="fill: (#\w+); stroke: #ffffff', svg)
    assert len(fills) == 10
    assert fills[3] == BLUE and fills[4] == RED
    assert fills[0] == fills[2] == fills[5] == fills[8] == WHITE
    assert fills[9] not in (BLUE, RED, WHITE)  # one scale for both


def test_a_picture_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        draw_tokens(Explanation("F", TOKENS, (view("before", *range(5)),)), "m",
                    tmp_path / "file" / "why.png")
