"""Whole files by name, on S3 or what speaks its protocol.

Credentials, region and endpoint come from the usual environment variables and files
(``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` …).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError

if TYPE_CHECKING:
    import pyarrow.fs as fs

_CODE = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?")
_NO_BUCKET = "there is no such bucket"
_NO_ACCESS = ("access denied: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's "
              "policy")
#: Codes of pyarrow's S3 client that say whose fault it is; the rest stays as it was raised.
_ERRORS = {
    "NO_SUCH_BUCKET": (errno.ENOENT, _NO_BUCKET),
    "ACCESS_DENIED": (errno.EACCES, _NO_ACCESS),
    "INVALID_ACCESS_KEY_ID": (errno.EACCES, _NO_ACCESS),
    "INVALID_CLIENT_TOKEN_ID": (errno.EACCES, _NO_ACCESS),
    "MISSING_AUTHENTICATION_TOKEN": (errno.EACCES, _NO_ACCESS),
    "SIGNATURE_DOES_NOT_MATCH": (errno.EACCES, _NO_ACCESS),
    "UNRECOGNIZED_CLIENT": (errno.EACCES, _NO_ACCESS),
}
_PASSING = {"NETWORK_CONNECTION", "SLOW_DOWN", "THROTTLING", "SERVICE_UNAVAILABLE",
            "INTERNAL_FAILURE", "REQUEST_TIMEOUT", "REQUEST_EXPIRED"}
_PASSING_STATUS = {"429", "500", "502", "503", "504"}


class S3Files:
    """Objects below ``s3://bucket/prefix``.

    An object of up to 10 MB is written by one PUT, a larger one by a multipart upload; either
    appears whole or not at all. A killed multipart upload leaves parts that only a life-cycle
    rule of the bucket removes; they are never visible.
    """

    def __init__(self, url: str) -> None:
        place = "/".join(part for part in url.removeprefix("s3://").split("/") if part)
        if not place:
            raise UserError(f"{url} names no bucket: s3://bucket/prefix")
        self._place = place
        self.location = f"s3://{place}"

    @functools.cached_property
    def filesystem(self) -> fs.S3FileSystem:
        from pyarrow.fs import S3FileSystem

        # Opening late is what makes a small object one PUT instead of a multipart upload.
        return S3FileSystem(
            allow_delayed_open=True,
            endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL"),
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        )

    def path(self, name: str) -> str:
        return f"{self._place}/{name}"

    def list(self, folder: str) -> dict[str, str]:
        from pyarrow.fs import FileSelector, FileType

        try:
            with _translated():
                infos = self.filesystem.get_file_info(FileSelector(self.path(folder)))
        except FileNotFoundError as error:
            if error.strerror == _NO_BUCKET:
                raise
            return {}
        return {info.base_name: f"{info.size} {info.mtime_ns}" for info in infos
                if info.type == FileType.File}

    def read(self, name: str) -> bytes:
        with _translated(), self.filesystem.open_input_file(self.path(name)) as handle:
            return bytes(handle.read())

    def commit(self, name: str, content: bytes) -> None:
        # Closing a stream commits whatever was written to it. In a thread of its own no signal
        # (Ctrl-C) can come between opening and writing, and leave an empty object.
        with _translated(), ThreadPoolExecutor(1) as thread:
            thread.submit(self._put, name, content).result()

    def _put(self, name: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(self.path(name)) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), _translated():
            self.filesystem.delete_file(self.path(name))

    def move(self, name: str, new: str) -> None:
        with _translated():
            self.filesystem.move(self.path(name), self.path(new))

    def exists(self, name: str) -> bool:
        return self._info(name) is not None

    def age(self, name: str) -> float:
        info = self._info(name)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", name)
        return float((datetime.now(UTC) - info.mtime).total_seconds())

    def prepare(self) -> None:
        probe = f".probe-{uuid.uuid4().hex}"
        self.commit(probe, b"")
        self.delete(probe)

    def tidy(self, folder: str) -> None:
        """Nothing to do: a killed writer leaves no object."""

    def _info(self, name: str) -> Any:
        from pyarrow.fs import FileType

        with _translated():
            info = self.filesystem.get_file_info(self.path(name).rstrip("/"))
        return None if info.type == FileType.NotFound else info


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Gives an ``OSError`` of the S3 client the ``errno`` that a disk would have given."""
    try:
        yield
    except OSError as error:
        code = _CODE.search(str(error))
        if code is None or isinstance(error, FileNotFoundError):
            raise
        if code[1] in _ERRORS:
            raise OSError(*_ERRORS[code[1]]) from error
        if code[1] in _PASSING or code[2] in _PASSING_STATUS:
            raise OSError(errno.EAGAIN, f"no answer from S3 ({code[0]})") from error
        raise
