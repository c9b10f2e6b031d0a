"""Rows of data sets on the Hugging Face hub or in a local folder, by the ``datasets`` library.

Data are read, code is never run: a repository that makes its rows by a script has no rows here.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError, unknown_name
from prunelib.hub import snapshot

if TYPE_CHECKING:
    from datasets import DatasetBuilder

Row = dict[str, Any]


def is_local(path: str) -> bool:
    """Whether a path is a folder here. Raises :class:`UserError` if it should be and is not."""
    if Path(path).is_dir():
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
    return snapshot("dataset", path, revision, ["README.md"], "not a folder").name


def find(path: str, revision: str | None, config: str | None) -> DatasetBuilder:
    """What reads a data set.

    Args:
        path: a local folder in the hub's layout, or a name on the hub.
        revision: of a data set on the hub; ``None`` is its main branch.
        config: which configuration; ``None`` is the only or default one. Where no card lists
            any, it is the folder of that name.

    Raises:
        UserError: it is nowhere, has no such configuration, or no data files.
    """
    from datasets import get_dataset_config_names, load_dataset_builder

    local = is_local(path)
    place = str(Path(path).resolve()) if local else path
    commit = None if local else resolve_revision(path, revision)
    names: list[str] = []
    with _one_line(path):
        try:
            found = load_dataset_builder(place, config, revision=commit)
        except ValueError:
            names = get_dataset_config_names(place, revision=commit)
            if config is None or names != ["default"]:
                raise _which(path, config, names) from None
            found = load_dataset_builder(place, data_dir=_inside(path, config), revision=commit)
    if local:
        for file in itertools.chain(*found.config.data_files.values()):
            _inside(path, os.path.relpath(file, place))
    elif found.hash != commit:
        raise UserError(f"data set '{path}' is in the local cache, but not at commit {commit}, and "
                        "the hub cannot be reached")
    return found


def read(path: str, found: DatasetBuilder, split: str, columns: Sequence[str]) -> list[Row]:
    """The rows of a split, in the order of the files, with these columns alone.

    Args:
        path: how the user calls the data set, for messages.
        found: what reads it. A local folder is read as it lies there, a data set from the hub
            from the cache of ``datasets``.
        split: name of the split as the data set has it.
        columns: which columns.

    Raises:
        UserError: there is no such split or column, or a file cannot be read.
    """
    with _one_line(path):
        local = is_local(path)
        if not local:
            found.download_and_prepare()
        there = [str(name) for name in (found.config.data_files if local else found.info.splits)]
        if split not in there:
            raise unknown_name(f"split of data set '{path}'", split, there)
        rows = found.as_streaming_dataset(split) if local else found.as_dataset(split)
        have = rows.column_names or list(next(iter(rows), {}))
        for column in columns:
            if column not in have:
                raise unknown_name(f"column of data set '{path}', split '{split}',", column, have)
        return list(rows.select_columns(list(dict.fromkeys(columns))))


def _which(path: str, config: str | None, names: Sequence[str]) -> UserError:
    if config is None:
        return UserError(f"data set '{path}' has several configurations, say which: "
                         f"config: {' | '.join(names)}")
    return unknown_name(f"configuration of data set '{path}'", config, names)


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
        raise UserError(f"data set '{path}': its README.md has no readable list of configs"
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
