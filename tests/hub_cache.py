"""The hub's cache on this machine, with a model as if it had been fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunelib.models import describe


def fetched(cache: Path, name: str, commit: str, folder: Path) -> None:
    """Add a commit of a model, which its main branch is from now on.

    A snapshot is links into a folder of blobs, which the hub names by their SHA-256.
    """
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / commit
    for made in (repo / "blobs", snapshot, repo / "refs"):
        made.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    for file in folder.iterdir():
        blob = repo / "blobs" / f"{len(list((repo / 'blobs').iterdir())):064x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    describe.cache_clear()


def use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's library look there and nowhere else."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
