"""Starting a local Ray, or connecting to a cluster."""

from __future__ import annotations

import logging
import os
from typing import Any

from prunelib.errors import UserError


def connect(address: str | None = None) -> None:
    """Connect to the cluster at ``address`` (or ``RAY_ADDRESS``), else start Ray on this machine.

    A local Ray listens on 127.0.0.1 alone, without a dashboard; token authentication is on and
    telemetry off. Does nothing when this process is connected already.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # A worker is started with this interpreter, whatever started the driver.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address:
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"cannot reach the Ray cluster at {address}: {reason}") from error
        return
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        **options,
    )


def disconnect() -> None:
    """Leave the cluster; a Ray that this process started ends."""
    import ray

    ray.shutdown()
