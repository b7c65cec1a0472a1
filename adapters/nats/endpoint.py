"""The endpoint: how the owner of a store is reached, and the file beside the store that says so.

Invariants: the file is written whole or not at all, only its user can read it, and it is a hint, never the truth: who
owns a store is decided by the store's lock. So a stale file (its process is dead, or nobody answers) means "no owner".
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from statewright.engine.errors import InvalidError, UnavailableError

DEFAULT_PORT = 4222
PROBE_TIMEOUT_S = 0.5
SCHEMES = ("nats", "tls")

_LOG = logging.getLogger("statewright.nats")


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A nats-server and how to log in there. `url` is scheme://host:port without credentials; `token` alone, or
    `user` and `password`; `pid` is the owner's process (0: not known, as for a URL that somebody typed)."""

    url: str
    user: str = ""
    password: str = ""
    token: str = ""
    pid: int = 0

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """`nats://[user:password@ | token@]host[:port]` (or `tls://`, or just `host:port`). Raises `InvalidError`."""
        parts, port = _split(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if user and not password:
            return cls(f"{parts.scheme}://{host}:{port}", token=user)
        return cls(f"{parts.scheme}://{host}:{port}", user, password)

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, pid={self.pid})"  # Without what must not reach a log.


def write_endpoint(path: str | Path, endpoint: Endpoint) -> None:
    """Publish `endpoint` at `path`, readable by this user alone. Raises `UnavailableError`."""
    target = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(endpoint))
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UnavailableError(f"the endpoint file '{target}' can't be written: {error.strerror}") from error


def remove_endpoint(path: str | Path, pid: int) -> None:
    """Remove the file, unless another process has written its own there."""
    if (endpoint := _read(Path(path))) is not None and endpoint.pid == pid:
        with suppress(OSError):
            os.unlink(path)


def find_endpoint(path: str | Path) -> Endpoint | None:
    """The endpoint of the live owner, or None when there is no owner that can be reached (no file, a file that can't
    be read, a dead process, nobody listening). Takes at most `PROBE_TIMEOUT_S`."""
    endpoint = _read(Path(path))
    if endpoint is None or not _is_alive(endpoint.pid) or not _answers(endpoint.url):
        return None
    return endpoint


def _read(path: Path) -> Endpoint | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoint)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _LOG.warning("the endpoint file '%s' can't be read and is passed over: %s", path, error)
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or DEFAULT_PORT), PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise InvalidError(f"expected a NATS URL such as nats://localhost:4222: {error}") from error
    if parts.scheme not in SCHEMES or not parts.hostname or parts.path.strip("/") or any(map(str.isspace, url)):
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise InvalidError(f"expected a NATS URL such as nats://localhost:4222, got '{shown}'")
    return parts, port
