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
from msgspec.structs import replace

from statewright.engine.errors import InvalidError, UnavailableError

DEFAULT_PORT = 4222
PROBE_TIMEOUT_S = 0.5
SCHEMES = ("nats", "tls")

_LOG = logging.getLogger("statewright.nats")


class NatsOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to log in at a nats-server, or a cluster of them. `url` is scheme://host:port without credentials, several
    with commas between. `user` and `password`, or `token`, or one of the files: `creds` (a user's JWT and seed), `nkey`
    (a seed). TLS: `ca` (whom to trust, else the system's), `cert` and `key` (who we are), all PEM files."""

    url: str
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    nkey: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def servers(self) -> list[str]:
        """The URL of each."""
        return self.url.split(",")

    @property
    def wants_tls(self) -> bool:
        return bool(self.ca or self.cert) or any(url.startswith("tls:") for url in self.servers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"  # Without what must not reach a log.


class Endpoint(NatsOptions, frozen=True, omit_defaults=True):
    """Where the owner of a store is reached. `pid` is its process (0: not known, as for a URL that somebody typed)."""

    pid: int = 0

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """`nats://[user:password@ | token@]host[:port]` (or `tls://`, or just `host:port`), several with commas
        between (then those of the first log in everywhere). Raises `InvalidError`."""
        user = password = ""
        servers = []
        for number, one in enumerate(url.split(",")):
            parts, port = _split(one)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            servers.append(f"{parts.scheme}://{host}:{port}")
            if number == 0:
                user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if user and not password:
            return cls(",".join(servers), token=user)
        return cls(",".join(servers), user, password)

    @classmethod
    def of(cls, options: NatsOptions | str, *, pid: int = 0) -> Endpoint:
        """The endpoint that `options` describe; what the environment says (`STATEWRIGHT_NATS_…`) counts where a URL
        alone is given, or where they leave all credentials out. Paths become absolute. Raises `InvalidError`."""
        if isinstance(options, str):
            found = cls.from_url(options)
        else:
            given = {name: value for name in _CREDENTIALS if (value := getattr(options, name))}
            found = replace(cls.from_url(options.url), **given)
        missing = {name: os.environ.get(f"STATEWRIGHT_NATS_{name.upper()}", "") for name in _CREDENTIALS}
        if any(getattr(found, name) for name in _LOGINS):
            missing = {name: value for name, value in missing.items() if name not in _LOGINS}
        named = {name: value for name, value in missing.items() if value and not getattr(found, name)}
        return _checked(replace(found, pid=pid, **named))


_LOGINS = ("user", "password", "token", "creds", "nkey")
_FILES = ("creds", "nkey", "ca", "cert", "key")
_CREDENTIALS = (*_LOGINS, "ca", "cert", "key")


def _checked(endpoint: Endpoint) -> Endpoint:
    """Raises `InvalidError` for logins that exclude each other and files that can't be read."""
    ways = [name for name in ("user", "token", "creds", "nkey") if getattr(endpoint, name)]
    if len(ways) > 1:
        raise InvalidError(f"expected one way to log in at {endpoint.url}, got {' and '.join(ways)}")
    if endpoint.password and not endpoint.user:
        raise InvalidError(f"expected a user with the password for {endpoint.url}")
    if bool(endpoint.cert) != bool(endpoint.key):
        raise InvalidError("expected a TLS certificate and its key together, got one without the other")
    for name in _FILES:
        if (path := getattr(endpoint, name)) and not os.access(path, os.R_OK):
            raise InvalidError(f"expected the NATS {name} file '{path}' to be readable, but it is not (or not there)")
    return replace(endpoint, **{name: os.path.abspath(path) for name in _FILES if (path := getattr(endpoint, name))})


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
    if endpoint is None or not _is_alive(endpoint.pid) or not _answers(endpoint):
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


def _answers(endpoint: Endpoint) -> bool:
    for url in endpoint.servers:
        parts = urlsplit(url)
        with (
            suppress(OSError),
            socket.create_connection((parts.hostname or "", parts.port or DEFAULT_PORT), PROBE_TIMEOUT_S),
        ):
            return True
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
