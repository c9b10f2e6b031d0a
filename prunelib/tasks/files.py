"""Data sets in the hub's layout: which files a split has, and their rows.

Where a ``README.md`` lists ``configs`` with their ``data_files``, that list counts; otherwise a
file belongs to the split that a word of its path names (``data/train-00000.parquet``,
``sw/validation.csv``, ``test/a.jsonl``). Data are read, code is never run: a repository that makes
its rows by a script has no rows here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from prunelib.errors import UserError, unknown_name
from prunelib.hub import snapshot

Row = dict[str, Any]
#: What a split is called in the name of a file, as on the hub.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json")
_CARD = "README.md"


@dataclass(frozen=True)
class Layout:
    """Which files belong to the splits of one configuration.

    Attributes:
        patterns: split → glob patterns, where the card lists them; empty where names decide.
        folder: where names decide, the folder below which they do (``.`` for all).
    """

    patterns: dict[str, tuple[str, ...]]
    folder: str = "."

    def wanted(self, splits: Sequence[str]) -> list[str]:
        """Patterns of what to fetch for these splits: too much rather than too little."""
        if self.patterns:
            return [p for split in splits for p in self.patterns.get(split, ())]
        below = "" if self.folder == "." else f"{self.folder}/"
        words = [w for split in splits for w in _WORDS.get(split, (split,))]
        return [f"{below}*{word}*{suffix}" for word in words for suffix in _SUFFIXES]

    def files(self, root: Path, split: str) -> list[Path]:
        """The files of a split below ``root``, in order."""
        if self.patterns:
            found = {f for p in self.patterns.get(split, ()) for f in root.glob(p)
                     if f.suffix in _SUFFIXES}
        else:
            words = _WORDS.get(split, (split,))
            below = root / self.folder
            found = {f for f in _data(below) if any(_has_word(f, below, w) for w in words)}
        return sorted(found)

    def splits(self, root: Path) -> list[str]:
        """Names of the splits that are there, for a message."""
        if self.patterns:
            return sorted(self.patterns)
        return sorted(split for split in _WORDS if self.files(root, split))


def _data(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.suffix in _SUFFIXES]


def _has_word(file: Path, below: Path, word: str) -> bool:
    """Whether a word stands by itself in a path: not ``test`` in ``latest.csv``."""
    path = file.relative_to(below).as_posix()
    return re.search(rf"(?<![^\W\d_]){re.escape(word)}(?![^\W\d_])", path) is not None


def find(path: str, revision: str | None, config: str | None, splits: Sequence[str]
         ) -> tuple[Path, Layout, str]:
    """Folder, layout and revision (``local`` or a commit) of a data set.

    Args:
        path: a local folder, or a name on the hub, of which the files of ``splits`` are fetched.
        revision: of a data set on the hub; ``None`` is its main branch.
        config: which configuration; ``None`` is the only or default one.
        splits: names of splits as the data set has them.

    Raises:
        UserError: it is nowhere, or has no such configuration.
    """
    if is_local(path):
        root = Path(path).resolve()
        return root, _layout(root, path, config), "local"
    elsewhere = "not a folder"
    card = snapshot("dataset", path, revision, [_CARD], elsewhere)
    layout = _layout(card, path, config)
    root = snapshot("dataset", path, card.name, [_CARD, *layout.wanted(splits)], elsewhere)
    return root, layout, card.name


def is_local(path: str) -> bool:
    """Whether a path is a folder here. Raises :class:`UserError` if it should be and is not."""
    if Path(path).is_dir():
        return True
    if path.startswith((".", "/")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise UserError(f"data set folder '{path}' does not exist")
    return False


def resolve_revision(path: str, revision: str | None = None) -> str:
    """The commit that a revision of a data set on the hub is now; ``local`` for a folder.

    Fetches the card alone. Raises :class:`UserError` as :func:`find` does.
    """
    if is_local(path):
        return "local"
    return snapshot("dataset", path, revision, [_CARD], "not a folder").name


def read(path: str, root: Path, layout: Layout, split: str, columns: Sequence[str]) -> list[Row]:
    """The rows of a split, in the order of the files, with these columns alone.

    Args:
        path: how the user calls the data set, for messages.
        root: its folder.
        layout: its layout.
        split: name of the split as the data set has it.
        columns: which columns.

    Raises:
        UserError: there is no such split or column, or a file cannot be read.
    """
    files = layout.files(root, split)
    if not files:
        there = layout.splits(root)
        if not there:
            where = "" if layout.folder == "." else f" in '{layout.folder}'"
            raise UserError(f"data set '{path}' has no data files of a split '{split}'{where} "
                            f"({', '.join(_SUFFIXES)}); one that is made by a script may have "
                            "them at revision: refs/convert/parquet")
        raise unknown_name(f"split of data set '{path}'", split, there)
    rows: list[Row] = []
    for file in files:
        table = _table(path, file)
        for column in columns:
            if column not in table.column_names:
                raise unknown_name(f"column of data set '{path}', split '{split}',", column,
                                   table.column_names)
        rows += table.select(list(dict.fromkeys(columns))).to_pylist()
    return rows


def _table(path: str, file: Path) -> Any:
    import pyarrow
    from pyarrow import csv, json, parquet

    try:
        if file.suffix == ".parquet":
            return parquet.read_table(file)
        if file.suffix in (".csv", ".tsv"):
            delimiter = "\t" if file.suffix == ".tsv" else ","
            return csv.read_csv(file, parse_options=csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True))
        return json.read_json(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"data set '{path}': cannot read {file.name}: "
                        f"{str(error).splitlines()[0]}") from error


def _layout(root: Path, path: str, config: str | None) -> Layout:
    configs = _configs(root, path)
    if configs:
        return _listed(path, configs, config)
    if config is None:
        return Layout({})
    # Names decide; on the hub the folder is not there yet.
    return Layout({}, _inside(path, config))


def _configs(root: Path, path: str) -> dict[str, dict[str, Any]]:
    """Configurations that the card lists, by name; none without a card."""
    file = root / _CARD
    text = file.read_text("utf-8") if file.is_file() else ""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        card = yaml.safe_load(front[1]) if front else None
        listed = card.get("configs") if isinstance(card, dict) else None
        return {str(entry["config_name"]): entry for entry in listed or []}
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"data set '{path}': its {_CARD} has no readable list of configs"
                        ) from error


def _listed(path: str, configs: dict[str, dict[str, Any]], config: str | None) -> Layout:
    if config is None:
        default = [name for name, entry in configs.items() if entry.get("default")] or [
            name for name in configs if name == "default" or len(configs) == 1]
        if not default:
            raise UserError(f"data set '{path}' has several configurations, say which: "
                            f"config: {' | '.join(configs)}")
        config = default[0]
    if config not in configs:
        raise unknown_name(f"configuration of data set '{path}'", config, configs)
    entry = configs[config]
    folder = _inside(path, str(entry.get("data_dir") or "."))
    files = entry.get("data_files")
    if files is None:
        return Layout({}, folder)
    if isinstance(files, dict):
        files = [{"split": split, "path": where} for split, where in files.items()]
    if isinstance(files, str) or not all(isinstance(part, dict) for part in files):
        files = [{"split": "train", "path": files}]
    return Layout({
        str(part["split"]): tuple(
            _inside(path, str(PurePosixPath(folder, pattern)))
            for pattern in ([part["path"]] if isinstance(part["path"], str) else part["path"])
        )
        for part in files
    })


def _inside(path: str, pattern: str) -> str:
    """The pattern, if it stays below the data set's folder. Raises :class:`UserError`."""
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise UserError(f"data set '{path}': '{pattern}' leads out of its folder")
    return pattern
