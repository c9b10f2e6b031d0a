"""The package as a whole: what it offers, and what it brings along."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import prunelib

ROOT = Path(__file__).parent.parent


def test_public_names_are_listed_and_there() -> None:
    assert set(prunelib.__all__) <= set(dir(prunelib))
    for name in prunelib.__all__:
        assert getattr(prunelib, name) is not None
    assert prunelib.__version__ == metadata.version("prunelib")


def test_types_ship_with_it() -> None:
    assert resources.files("prunelib").joinpath("py.typed").is_file()
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in shipped["tool"]["setuptools"]["package-data"]["prunelib"]


def test_importing_it_imports_nothing_heavy() -> None:
    code = ("import sys, prunelib; dir(prunelib); prunelib.load_recipe; "
            "heavy = {'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules); "
            "sys.exit(str(heavy) if heavy else 0)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
