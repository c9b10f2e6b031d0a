"""Starting a local Ray, or connecting to a cluster."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from prunelib.errors import UserError


def connect(address: str | None = None) -> None:
    """Connect to the cluster at ``address`` (or ``RAY_ADDRESS``), else start Ray on this machine.

    A local Ray listens on 127.0.0.1 alone, without a dashboard; token authentication is on and
    telemetry off. Does nothing when this process is connected already.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A worker is started with this interpreter, whatever started the driver.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address:
        _check_reachable(address)
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"cannot reach the Ray cluster at {address}: {reason}") from error
        return
    _give_token()
    # Ray replaces every form of localhost by the machine's outside address, and then listens on
    # all interfaces, except where this constant says that no cluster is possible.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    # It says at every start that token authentication is on, which is what was asked for.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, **options)


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes before it says that nobody listens at an address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"cannot reach the Ray cluster at {address}: {error.strerror or error}"
                        ) from error


def _give_token() -> None:
    """Unless the user has a token, give this process and its children one that nobody else sees.

    Ray would write one to the home folder, readable by everyone on the machine.
    """
    saved = Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN_PATH" not in os.environ and not saved.is_file():
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def disconnect() -> None:
    """Leave the cluster; a Ray that this process started ends."""
    import ray

    ray.shutdown()
