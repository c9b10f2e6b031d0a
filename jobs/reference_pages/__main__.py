"""Write the pages of ``docs/reference``."""

from __future__ import annotations

from pathlib import Path

from jobs.reference_pages.pages import pages

FOLDER = Path(__file__).parent.parent.parent / "docs" / "reference"

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for page in pages():
        (FOLDER / page.file).write_text(page.text(), "utf-8")
        print(FOLDER / page.file)
