"""Starting a local Ray, or connecting to a cluster."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.access_tokens import missing_token, read_token, wanted, wrong_token
from prunelib.errors import UserError

#: Seconds until an address that does not answer counts as not there.
_PATIENCE = 10.0


def connect(address: str | None = None) -> None:
    """Connect to the cluster at ``address`` (or ``RAY_ADDRESS``), else start Ray on this machine.

    A local Ray listens on 127.0.0.1 alone, without a dashboard; token authentication is on and
    telemetry off. Does nothing when this process is connected already.

    Raises:
        UserError: nobody answers at the address, or the token is missing or wrong.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A worker is started with this interpreter, whatever started the driver.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    if ray.is_initialized():
        return
    # It says at every start that token authentication is on, which is what was asked for.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address:
        check_reachable(address)
        # The driver of a job has got what its cluster asks for.
        if wanted() and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
            _use_token(address)
        try:
            with _keeping_sigterm():
                ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"cannot reach the Ray cluster at {address}: {reason}") from error
        return
    _give_token()
    # Ray replaces every form of localhost by the machine's outside address, and then listens on
    # all interfaces, except where this constant says that no cluster is possible.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    # "local": else Ray joins whatever `ray start` began on this machine, or what is left of it.
    with _keeping_sigterm():
        ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, **options)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Let a handler of SIGTERM stay that was there before Ray.

    Ray's own ones print where native code was, and end the process in the middle of things.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def check_reachable(address: str) -> None:
    """Raise :class:`UserError` if nobody listens at ``address`` (``host:port``, also as a URL).

    Ray itself tries for minutes before it says so.
    """
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise UserError(f"cannot reach the Ray cluster at {address}: {error.strerror or error}"
                        ) from error


def _use_token(address: str) -> None:
    """Try the token, then switch it on, which Ray does by itself for a local cluster only."""
    token = read_token()
    if token is None:
        raise missing_token(address)
    if "://" not in address and ":" in address:  # not Ray Client, not "auto"
        _try_token(address, token)
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available()


def _try_token(address: str, token: str) -> None:
    """Ask the cluster for its id. With a wrong token Ray asks for 20 s, and does not say why."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2  # made at import, so without types
    with grpc.insecure_channel(address) as channel:
        try:
            gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetClusterId(
                messages.GetClusterIdRequest(), timeout=_PATIENCE,
                metadata=[("authorization", f"Bearer {token}")])
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise wrong_token(address) from error


def _give_token() -> None:
    """Unless the user has a token, give this process and its children one that nobody else sees.

    Ray would write one to the home folder, readable by everyone on the machine.
    """
    if wanted() and read_token() is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def disconnect() -> None:
    """Leave the cluster; a Ray that this process started ends."""
    import ray

    ray.shutdown()
