"""Files of a repository on the Hugging Face hub, or in its local cache, at one commit."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prunelib.errors import UserError, shown

#: Who offers the weights of old repositories as safetensors, as pull requests of the hub.
_CONVERTER = "SFconvertbot"


def converted(name: str) -> str | None:
    """The revision at which the hub's own converter offers a model as safetensors, if there is one.

    It is a pull request that nobody merged. ``None`` too where the hub cannot be asked.
    """
    from huggingface_hub import HfApi

    with contextlib.suppress(Exception):  # of several HTTP libraries; it is only a hint
        for found in HfApi().get_repo_discussions(name, author=_CONVERTER, discussion_status="open",
                                                  discussion_type="pull_request"):
            return f"refs/pr/{found.num}"
    return None


def snapshot(
    kind: Literal["model", "dataset"],
    name: str,
    revision: str | None,
    patterns: Sequence[str],
    elsewhere: str,
) -> Path:
    """Folder with the files of a repository that match ``patterns``; its name is the commit.

    Args:
        kind: of repository.
        name: ``owner/name`` or ``name``.
        revision: commit, branch or tag; ``None`` is the main branch.
        patterns: as of :mod:`fnmatch`, where ``*`` also stands for slashes.
        elsewhere: where else the name was looked for, for the message.

    Raises:
        UserError: there is no such repository or revision, it needs a token, or the hub cannot
            be reached and the files are not in the local cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = "data set" if kind == "dataset" else kind
    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision,
                                      allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise UserError(f"unknown {what} {shown(name)}: {elsewhere}, and no name that the hub "
                        "could have") from error
    except GatedRepoError as error:
        raise UserError(f"{what} '{name}' needs access rights: accept its licence on the hub "
                        "and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{what} '{name}' has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"unknown {what} '{name}': {elsewhere}, and not on the hub (or it needs "
                        "HF_TOKEN)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(f"unknown {what} '{name}': {elsewhere}, not in the local hub cache, and "
                        "the hub cannot be reached") from error
