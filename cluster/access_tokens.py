"""Ray's token: who has it may run any code on the cluster, so nobody else may read it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import uuid
from pathlib import Path

from prunelib.errors import UserError

logger = logging.getLogger(__name__)

#: How a head is started with a token, for messages and help.
START_HEAD = "RAY_AUTH_MODE=token ray start --head"


def saved_token() -> Path:
    """Where Ray looks for a token last: ``~/.ray/auth_token``."""
    return Path.home() / ".ray" / "auth_token"


def wanted() -> bool:
    """Whether tokens are used: always, unless the user has switched them off."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower() != "disabled"


def read_token() -> str | None:
    """This user's token, from where Ray itself takes it, in its order; None if there is none.

    A saved token that others can read becomes readable by its owner alone. Ray itself writes
    it for everyone to read, so refusing such a file would stop most people.

    Raises:
        UserError: ``RAY_AUTH_TOKEN_PATH`` names a file that cannot be read.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise UserError(f"cannot read the token file {path} that RAY_AUTH_TOKEN_PATH names: "
                            f"{error.strerror}") from error
    saved = saved_token()
    if not saved.is_file():
        return None
    if saved.stat().st_mode & 0o077:
        saved.chmod(0o600)
        logger.warning("%s could be read by others, and now by you alone; if others use this "
                       "machine, make a new token", saved)
    return saved.read_text().strip() or None


def make_token() -> Path:
    """Save a new token, readable by its owner alone, unless there is one; return its file.

    It appears whole or not at all, and two that make one at the same time end with the same.
    """
    saved = saved_token()
    saved.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temp = saved.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(secrets.token_hex(32))
            handle.flush()
            os.fsync(handle.fileno())
        with contextlib.suppress(FileExistsError):  # a link never replaces what is there
            os.link(temp, saved)
    finally:
        temp.unlink(missing_ok=True)
    return saved


def missing_token(address: str) -> UserError:
    """What to tell somebody who has no token for the cluster at ``address``."""
    return UserError(f"no Ray token for {address}: copy ~/.ray/auth_token of the machine that "
                     "started the cluster here, or set RAY_AUTH_TOKEN (RAY_AUTH_MODE=disabled for "
                     "a cluster without tokens)")


def wrong_token(address: str) -> UserError:
    """What to tell somebody whose token the cluster at ``address`` does not take."""
    return UserError(f"the cluster at {address} has another Ray token: copy its ~/.ray/auth_token "
                     "here, or set RAY_AUTH_TOKEN")
