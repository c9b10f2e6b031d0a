"""Rows of data sets on the Hugging Face hub or in a local folder, by the ``datasets`` library.

Data are read, code is never run: a repository that makes its rows by a script has no rows here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from prunelib.errors import UserError, unknown_name
from prunelib.hub import snapshot
from prunelib.tasks.text_files import Row as Row  # also for those who read data sets
from prunelib.tasks.text_files import json_rows, table

if TYPE_CHECKING:
    from datasets import DatasetBuilder

_CARD = "README.md"
#: Where a name on the hub was looked for before.
_ELSE = "not a folder"


def is_local(path: str) -> bool:
    """Whether a path is a folder here. Raises :class:`UserError` if it should be and is not."""
    if os.path.isdir(path):  # noqa: PTH112 - whatever the name, no error
        return True
    if path.startswith((".", "/")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise UserError(f"data set folder '{path}' does not exist")
    return False


def resolve_revision(path: str, revision: str | None = None) -> str:
    """The commit that a revision of a data set on the hub is now; ``local`` for a folder.

    Fetches the card alone. Raises :class:`UserError` if the data set is nowhere.
    """
    if is_local(path):
        return "local"
    return snapshot("dataset", path, revision, [_CARD], _ELSE).name


def find(path: str, revision: str | None, config: str | None, splits: Sequence[str]
         ) -> DatasetBuilder:
    """What reads some splits of a data set; from the hub no other files are fetched.

    Args:
        path: a local folder in the hub's layout, or a name on the hub.
        revision: of a data set on the hub; ``None`` is its main branch.
        config: which configuration; ``None`` is the only or default one. Where no card lists
            any, it is the folder of that name.
        splits: names of splits as the data set has them.

    Raises:
        UserError: it is nowhere, or lacks the configuration, a split, or any data files.
    """
    from datasets import load_dataset_builder

    local = is_local(path)
    root = Path(path).resolve() if local else snapshot("dataset", path, revision, [_CARD], _ELSE)
    with _one_line(path):
        patterns, folder = _choice(path, root, config)
        for split in splits if patterns else ():
            if split not in patterns:
                raise unknown_name(f"split of data set '{path}'", split, patterns)
        if not local:
            commit = root.name
            wanted = ([p for split in splits for p in patterns[split]] if patterns
                      else _named(path, commit, folder, splits))
            root = snapshot("dataset", path, commit, [_CARD, *wanted], _ELSE)
        if patterns:
            return load_dataset_builder(str(root), data_files={s: patterns[s] for s in splits})
        return load_dataset_builder(str(root), data_dir=folder)


def _choice(path: str, root: Path, config: str | None
            ) -> tuple[dict[str, list[str]], str | None]:
    """Split → patterns of files where the card lists them; else the folder where names decide."""
    from datasets.data_files import sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    card = root / _CARD
    listed: Any = (MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
                   if card.is_file() else {})
    if not listed:
        return {}, None if config is None else _inside(path, config)
    name = config or listed.get_default_config_name()
    if name is None:
        raise UserError(f"data set '{path}' has several configurations, say which: "
                        f"config: {' | '.join(listed)}")
    if name not in listed:
        raise unknown_name(f"configuration of data set '{path}'", name, listed)
    files, folder = listed[name].get("data_files"), listed[name].get("data_dir")
    if files is None:
        return {}, None if folder is None else _inside(path, folder)
    return {str(split): [_inside(path, pattern) for pattern in patterns]
            for split, patterns in sanitize_patterns(files).items()}, None


def _named(path: str, commit: str, folder: str | None, splits: Sequence[str]) -> list[str]:
    """Files on the hub that belong to some splits by their names; none without the hub."""
    from datasets import load_dataset_builder

    try:
        found = load_dataset_builder(path, data_dir=folder, revision=commit).config.data_files
    except ConnectionError:
        found = None
    # Without the hub those that were fetched before are there, or it is known that none is.
    start = f"hf://datasets/{path}@{commit}/"
    return [file.removeprefix(start) for split in splits for file in (found or {}).get(split, ())]


def read(path: str, found: DatasetBuilder, split: str, columns: Sequence[str]) -> list[Row]:
    """The rows of a split, in the order of the files, with these columns alone.

    Args:
        path: how the user calls the data set, for messages.
        found: what reads it.
        split: name of the split as the data set has it.
        columns: which columns.

    Raises:
        UserError: there is no such split or column, or a file cannot be read.
    """
    there = [str(name) for name in found.config.data_files]
    if split not in there:
        raise unknown_name(f"split of data set '{path}'", split, there)
    with _one_line(path):
        rows, have = _rows(path, found, split, columns)
        if not have:
            raise UserError(f"data set '{path}', split '{split}' is empty")
        for column in columns:
            if column not in have:
                raise unknown_name(f"column of data set '{path}', split '{split}',", column, have)
        return [{column: row.get(column) for column in columns} for row in rows]


def _rows(path: str, found: DatasetBuilder, split: str, columns: Sequence[str]
          ) -> tuple[Iterable[Row], list[str]]:
    """Rows and the names of their columns; what is text in a file is read by this project."""
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json

    if not isinstance(found, Csv | Json):
        rows = found.as_streaming_dataset(split)
        have = rows.column_names or list(next(iter(rows), {}))
        return rows.select_columns([c for c in dict.fromkeys(columns) if c in have]), have
    texts: list[Row] = []
    for name, file in _text_files(found, split):
        where = f"data set '{path}', {name}"
        texts += (json_rows(file.read(), where) if isinstance(found, Json)
                  else table(file, where, found.config.sep))
    return texts, list(dict.fromkeys(column for row in texts for column in row))


def _text_files(found: DatasetBuilder, split: str) -> Iterator[tuple[str, IO[str]]]:
    """The open files of a split with their names, unpacked where they are packed."""
    from datasets import StreamingDownloadManager
    from datasets.utils.file_utils import xopen

    manager = StreamingDownloadManager(base_path=found.base_path)
    for file in found.config.data_files[split]:
        for part in manager.iter_files(manager.download_and_extract([file])):
            with xopen(part, "r", encoding="utf-8-sig", newline="") as opened:
                yield PurePosixPath(str(part).partition("::")[0]).name, opened


def _inside(path: str, below: str) -> str:
    """A place, if it stays in the data set's folder. Raises :class:`UserError`."""
    if PurePosixPath(below).is_absolute() or ".." in PurePosixPath(below).parts:
        raise UserError(f"data set '{path}': '{below}' leads out of its folder")
    return below


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """What a data set lacks, or what ``datasets`` cannot read, in one line."""
    import datasets
    import yaml

    datasets.disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise UserError(f"data set '{path}': its {_CARD} has no readable list of configs"
                        ) from error
    except (FileNotFoundError, RuntimeError) as error:
        raise UserError(f"data set '{path}' has no data files ({_first_line(error)}); one that is "
                        "made by a script may have them at revision: refs/convert/parquet"
                        ) from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"data set '{path}' cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    # What a file may be called instead goes on for a page.
    text = str(error).partition(" with any supported extension")[0].strip()
    return next(iter(text.splitlines()), type(error).__name__)
