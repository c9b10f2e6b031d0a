"""Results of a run with hostile texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_folder import HOSTILE, add_choice
from results_folder import Folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose texts and task are hostile."""
    folder = Folder(tmp_path_factory.mktemp("hostile") / "out")
    add_choice(folder, [22, 18, 21], gold=HOSTILE, prediction=HOSTILE,
               demonstrations=[HOSTILE, "y"], answers=[HOSTILE, "b"], task=HOSTILE)
    for row in folder.rows["predictions", "eval-ig"] + folder.rows["predictions", "eval-base"]:
        row["query"] += HOSTILE
    folder.attempt("eval-ig", "done", 1)
    folder.attempt("broken", "failed", 2, error_text=HOSTILE)
    folder.write()
    return folder.root
