"""A user's own function: found by its name, identified by the source that it comes from."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from pathlib import Path
from types import FunctionType

from prunelib.errors import UnitError, UserError
from prunelib.identity import files_digest


def check_form(kind: str, name: str) -> None:
    """Raise :class:`UserError` unless a name is of the form ``package.module:function``."""
    module, colon, function = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise UserError(f"{kind} '{name}' is not of the form package.module:function")


def import_function(kind: str, name: str) -> FunctionType:
    """The function that ``package.module:function`` names.

    Messages call it a ``kind``.

    The current folder counts too, as the very last place: a console script does not have it on
    its path, and last it hides nothing that is installed. It is added only here, so that a recipe
    that names no function runs nothing of the folder it is used in.

    Raises:
        UserError: it cannot be imported, is no Python function, or has no source.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # whatever a module does as it is imported
        raise UserError(f"{kind} '{name}' cannot be imported: {said(error)}") from error
    if not isinstance(found, FunctionType):
        raise UserError(f"{kind} '{name}' is no Python function, but of type "
                        f"{type(found).__name__}")
    _sources(kind, found, module)
    return found


def source_digest(kind: str, name: str) -> str:
    """Digest of the whole files of a function, so that an edited helper beside it is noticed.

    Raises :class:`UserError` as :func:`import_function` does.
    """
    return _sources(kind, import_function(kind, name), name.partition(":")[0])


@functools.cache
def _sources(kind: str, function: FunctionType, module: str) -> str:
    """Digest of the files of the module and the function, as they were when first asked for.

    What is imported stays as it is when its file is edited, so its digest has to.
    """
    known = sys.modules[module].__dict__.get("__file__")
    # It may have been imported there, or have a wrapper from elsewhere.
    code = getattr(inspect.unwrap(function), "__code__", function.__code__)
    files = {Path(known or "").resolve(), Path(code.co_filename).resolve()}
    if not all(file.is_file() for file in files):
        raise UserError(f"{kind} '{module}:{function.__name__}' has no source file, by which "
                        "to notice when it is edited")
    return files_digest(list(files))


def another(kind: str, name: str) -> UnitError:
    """The error of a worker that finds another function than the one a run was started with."""
    return UnitError(f"{kind} '{name}' is another one here "
                     f"({import_function(kind, name).__code__.co_filename}) than where the run was "
                     "started")


def said(error: BaseException) -> str:
    """An exception on one line; what imports say needs no name before it."""
    text = " ".join(str(error).split())
    plain = isinstance(error, ImportError | AttributeError | SyntaxError) and text
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")
