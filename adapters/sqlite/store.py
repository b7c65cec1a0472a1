"""A store in one SQLite file: found by its URL, owned by one process at a time, readable by all.

Invariants: nothing is created or changed before `acquire`; the owner is who holds the lock on `<path>.lock` (the
system frees it when the process dies, however it dies), never who wrote its name there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

from eventsourcing.persistence import PersistenceError

from statewright.adapters.sqlite import reencryption, schema
from statewright.adapters.sqlite.datastore import connect
from statewright.adapters.sqlite.factory import Factory
from statewright.engine.errors import InvalidError, NotFoundError, UnavailableError

SCHEME = "sqlite:///"
SQLITE_MIN = (3, 35, 0)
"""The first SQLite with all that the statements use (RETURNING came last). Python brings its own or the system's."""


class SQLiteStore:
    """`sqlite:///relative.db` or `sqlite:////absolute/path.db`.

    Raises `InvalidError` for other URLs, for a file that is another application's or of a newer version, and
    `UnavailableError` for one that can't be opened; with `read_only`, `NotFoundError` if there is no store yet.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = url
        self.read_only = read_only
        self.path = _path_of(url)
        if sqlite3.sqlite_version_info < SQLITE_MIN:
            least = ".".join(map(str, SQLITE_MIN))
            raise UnavailableError(f"expected SQLite {least} or newer, but this Python has {sqlite3.sqlite_version}")
        self._lock: int | None = None
        self._mode = self._checked_mode()

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings with which an `eventsourcing` application uses this file."""
        return {
            "PERSISTENCE_MODULE": "statewright.adapters.sqlite.factory",
            "SQLITE_DBNAME": self.path,
            "SQLITE_MODE": self._mode,
            "CREATE_TABLE": "n" if self.read_only else "y",
            "ORIGINATOR_ID_TYPE": "text",
        }

    @property
    def is_shared(self) -> bool:
        return False

    @property
    def identity(self) -> str:
        return f"{socket.gethostname()}:{os.path.realpath(self.path)}"

    @property
    def endpoint_path(self) -> str:
        """Where the owner writes how it is reached."""
        return f"{self.path}.endpoint"

    def acquire(self) -> None:
        """Take the lock and make the tables if the file is new. A second call is a no-op.

        Raises `UnavailableError` naming the owner when there is one, or when the file can't be written.
        """
        if self.read_only:
            raise InvalidError(f"the store '{self.path}' was opened read-only; open it for writing to own it")
        if self._lock is not None:
            return
        self._lock = self._take_lock()
        try:
            self._create_tables()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def rewriting(self) -> Iterator[reencryption.Rewriting]:
        """See `engine.reencryption.Rewritable`."""
        self.acquire()
        with reencryption.rewriting(self.path) as rewriting:
            yield rewriting

    def close(self) -> None:
        """Give up ownership. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            # The file stays: removing it would let a third process lock a new one while a second waits on this.
            os.ftruncate(lock, 0)
            os.close(lock)

    def _checked_mode(self) -> str:
        """The mode in which the file is to be opened; raises what the class says."""
        if not os.path.exists(self.path):
            if self.read_only:
                raise NotFoundError(f"expected a store at '{self.path}', but there is no such file")
            return "rwc"
        for mode in ("ro", "immutable"):
            try:
                self._check_file(mode)
                return mode if self.read_only else "rwc"
            except sqlite3.OperationalError as error:
                # A store that was closed cleanly opens only as immutable where its folder can't be written. That is
                # right while nobody writes, and without a WAL nobody does.
                if mode == "immutable" or os.path.exists(f"{self.path}-wal"):
                    raise UnavailableError(f"the store '{self.path}' can't be opened: {error}") from error
            except sqlite3.DatabaseError as error:
                raise InvalidError(f"expected a SQLite database, but '{self.path}' can't be read: {error}") from error
        raise AssertionError("unreachable")

    def _check_file(self, mode: str) -> None:
        connection = connect(self.path, mode)
        try:
            if self.read_only:
                schema.check_exists(connection, self.path)
            else:
                schema.check(connection, self.path)
        finally:
            connection.close()

    def _take_lock(self) -> int:
        path = f"{self.path}.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UnavailableError(f"the store '{self.path}' can't be locked: {error.strerror} ('{path}')") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise UnavailableError(f"the store '{self.path}' is owned by the process with pid {owner}") from error
            raise UnavailableError(f"the store '{self.path}' can't be locked: {error.strerror}") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _create_tables(self) -> None:
        factory = Factory(self.environment)
        try:
            factory.application_recorder()
        except PersistenceError as error:
            raise UnavailableError(f"the store '{self.path}' can't be written: {error}") from error
        finally:
            factory.close()


def _path_of(url: str) -> str:
    """The file a URL names. Raises `InvalidError`."""
    path = unquote(url[len(SCHEME) :]) if url.startswith(SCHEME) and "?" not in url else ""
    if not path or "\0" in path:
        raise InvalidError(f"expected a store URL like sqlite:///app.db or sqlite:////var/lib/app.db, got '{url}'")
    if ":memory:" in path:
        raise InvalidError(f"expected a file, got '{url}': a store outlives its process, memory does not")
    return path
