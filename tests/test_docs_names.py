"""What documents and docstrings name is there: files, modules, classes, functions, tables."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from test_docs import PAGES, ROOT
from test_docs_commands import blocks, name_of

from jobs.reference_pages.recipe import every_section
from prunelib.results.query import _connect, describe_tables, run_query

FOLDERS = ("prunelib", "cluster", "jobs", "benchmarks")
_FILE = re.compile(
    r"(?<![\w/.])(?:prunelib|cluster|jobs|tests|benchmarks|docs)/[\w./-]*\.(?:py|yaml|md|json|png)\b")
#: Files that a page tells its reader to make.
MADE_BY_THE_READER = {f"prunelib/attribution/scorers/{name}.py" for name in ("NAME", "peak")}
_ROLE = re.compile(r":(?:mod|class|func|data|meth|attr):`~?([\w.]+)`")
_KEY = re.compile(r"`(attribution|search|controls|evaluate|removal)\.([a-z_]+)`")
_TABLES = re.compile(r"\b[Vv]iews? ((?:`[a-z_]+`(?:, | and )?)+)|\b[Tt]able (`[a-z_]+`)")
_SHOWN = re.compile(r"^```sql\n(.*?)^```$|`(select [^`]+)`", re.M | re.S)


def texts() -> Iterator[tuple[str, str]]:
    """Pages, recipes and code that cite files of the repository."""
    for page in PAGES:
        yield name_of(page), page.read_text("utf-8")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".md"):
                yield name_of(path), path.read_text("utf-8")
    for name in ("pyproject.toml", "ray_config.yaml", "Makefile"):
        yield name, (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize(("name", "text"), [pytest.param(*each, id=each[0]) for each in texts()
                                            if _FILE.search(each[1])])
def test_every_file_that_is_named_is_there(name: str, text: str) -> None:
    missing = {file for file in _FILE.findall(text) if not (ROOT / file).exists()}
    assert missing <= MADE_BY_THE_READER


def source(module: str) -> Path | None:
    """The file of a module or package of the repository."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py")
                 if file.is_file()), None)


@cache
def names(module: str) -> dict[str, object]:
    """What a module defines or imports: name → its members, or module and name it comes from."""
    file = source(module)
    assert file, module
    tree = ast.parse(file.read_text("utf-8"))
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return found | defined(tree.body)


def defined(body: list[ast.stmt]) -> dict[str, object]:
    """What statements define; of classes their members too."""
    found: dict[str, object] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = defined(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = {}
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: {} for target in targets for name in ast.walk(target)
                      if isinstance(name, ast.Name)}
    return found


def leads_somewhere(module: str, path: list[str]) -> bool:
    """Whether a module has ``path``: a name and, of a class, a member."""
    if not path:
        return True
    if source(f"{module}.{path[0]}"):
        return True
    place = names(module).get(path[0])
    if isinstance(place, tuple):
        origin, name = place
        if origin.partition(".")[0] not in FOLDERS:
            return True
        return leads_somewhere(origin, [name, *path[1:]])
    return isinstance(place, dict) and (len(path) == 1 or path[1] in place)


def is_known(cited: str, module: str) -> bool:
    """Whether a name leads somewhere, from the root, or from within a module."""
    parts = cited.split(".")
    if parts[0] in FOLDERS:
        ends = [end for end in range(len(parts), 0, -1) if source(".".join(parts[:end]))]
        return leads_somewhere(".".join(parts[:ends[0]]), parts[ends[0]:])
    members = {name for place in names(module).values() if isinstance(place, dict)
               for name in place}
    return (leads_somewhere(module, parts) or hasattr(builtins, cited)
            or cited in members or cited in sys.stdlib_module_names)


def modules() -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = path.parent if path.name == "__init__.py" else path.with_suffix("")
            yield name_of(module).replace("/", "."), path


def test_everything_that_docstrings_refer_to_is_there() -> None:
    cited = [(module, name) for module, path in modules()
             for name in _ROLE.findall(path.read_text("utf-8"))]
    assert len(cited) > 100
    assert [each for each in cited if not is_known(each[1], each[0])] == []


def test_a_reference_that_leads_nowhere_is_seen() -> None:
    home = "prunelib.results.storage.store"
    for known in ("Store", "done", "UserError", "Store.done", "KeyError",
                  "prunelib.errors.UserError", "prunelib.results.views", f"{home}.Store.done"):
        assert is_known(known, home), known
    for unknown in ("Stores", "Store.finished", "prunelib.errors.Nothing", "prunelib.nowhere",
                    f"{home}.Store.finished"):
        assert not is_known(unknown, home), unknown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_python_on_a_page_imports_is_there(page: Path) -> None:
    for text in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(FOLDERS):
                for alias in node.names:
                    assert is_known(f"{node.module}.{alias.name}", "prunelib"), alias.name


def questions(page: Path) -> list[str]:
    """The SQL on a page: in blocks and lines of its own, and in commands."""
    shown = [block or line for block, line in _SHOWN.findall(page.read_text("utf-8"))]
    commands = [words[1] for block in blocks(page) for words in block.commands
                if words[0] == "query" and not words[1].startswith("-")]
    return shown + commands


@pytest.mark.parametrize("page", [page for page in PAGES if questions(page)], ids=name_of)
def test_sql_on_a_page_names_tables_and_columns_that_there_are(page: Path) -> None:
    with _connect({}) as con:
        for sql in questions(page):
            run_query(con, sql)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_of_a_recipe_that_a_page_names_are_there(page: Path) -> None:
    for section, key in _KEY.findall(page.read_text("utf-8")):
        place = "importance.removal" if section == "removal" else section
        assert key in every_section()[place].model_fields, f"{section}.{key}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"],
                         ids=name_of)
def test_tables_and_views_that_a_page_names_are_there(page: Path) -> None:
    known = {info.name for info in describe_tables()}
    named = {name for found in _TABLES.findall(page.read_text("utf-8"))
             for name in re.findall(r"`(\w+)`", "".join(found))}
    assert named - known == set()
