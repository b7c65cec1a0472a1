"""Connections to one SQLite file: one that writes, a few that read.

Invariants: writes go through one connection, one thread at a time, each in a transaction that took the write lock
when it began (so it can't fail half way for want of it). Readers see what was committed when their statement began
and never wait for the writer (WAL). Every `sqlite3` error leaves as the `eventsourcing` error of the same name.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from eventsourcing import persistence
from eventsourcing.sqlite import SQLiteCursor, SQLiteDatastore

from statewright.adapters.sqlite import schema

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for a lock that another process holds."""
READERS_MAX = 4
"""Idle read connections that are kept."""
_WAL_PAGES = 4_000
"""Pages in the WAL after which a commit copies them into the database (16 MB)."""
_CACHE_KIB = 8_192
"""What is not in it comes from the system's cache. With a million events stored, 64 MiB instead of 16 saved at most 4 %
of the CPU time, and broke the bound on memory."""

_ERRORS: tuple[tuple[type[sqlite3.Error], type[persistence.PersistenceError]], ...] = (
    (sqlite3.InterfaceError, persistence.InterfaceError),
    (sqlite3.DataError, persistence.DataError),
    (sqlite3.OperationalError, persistence.OperationalError),
    (sqlite3.IntegrityError, persistence.IntegrityError),
    (sqlite3.InternalError, persistence.InternalError),
    (sqlite3.ProgrammingError, persistence.ProgrammingError),
    (sqlite3.NotSupportedError, persistence.NotSupportedError),
    (sqlite3.DatabaseError, persistence.DatabaseError),
    (sqlite3.Error, persistence.PersistenceError),
)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise `sqlite3` errors as the `eventsourcing.persistence` errors that stand for them."""
    try:
        yield
    except sqlite3.Error as error:
        raise next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))(str(error)) from error


def connect(path: str, mode: str) -> sqlite3.Connection:
    """Open `path`; mode is "rwc" (created if missing), "rw", "ro" or "immutable" (see SQLite's URI file names).

    Raises `sqlite3.Error`.
    """
    option = "immutable=1" if mode == "immutable" else f"mode={mode}"
    connection = sqlite3.connect(
        f"file:{quote(path)}?{option}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.row_factory = sqlite3.Row
    return connection


class Datastore(SQLiteDatastore):
    """The library's datastore with one writer of its own. `path` is a file; `mode` as of `connect`."""

    def __init__(self, path: str, *, mode: str = "rwc") -> None:
        super().__init__(path, single_row_tracking=True, originator_id_type="text")
        self.path = path
        self.mode = mode
        self._writer: sqlite3.Connection | None = None
        self._writing = threading.RLock()
        self._readers: deque[sqlite3.Connection] = deque()
        self._held = threading.local()
        self._closed = False

    @contextmanager
    def statement(self) -> Iterator[sqlite3.Connection]:
        """The writing connection for one statement, which is a transaction of its own and durable when it returns."""
        with self._writing, translated_errors():
            yield self._writer or self._open_writer()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction on the writing connection: committed when the block ends, rolled back if it raises.

        One that is not `durable` survives the process's death but may be lost, whole, when the machine stops before
        the next durable one. (A WAL is synced as far as it goes, so a durable one covers those before it.)
        """
        with self.statement() as connection:
            if not durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if not durable:
                    connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for one SELECT (each statement sees the newest commit, or what `consistent` holds)."""
        held: sqlite3.Connection | None = getattr(self._held, "connection", None)
        if held is not None:
            with translated_errors():
                yield held
            return
        with translated_errors():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._open_reader()
            try:
                yield connection
            finally:
                if self._closed or len(self._readers) >= READERS_MAX:
                    connection.close()
                else:
                    self._readers.append(connection)

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """Inside the block, what this thread reads is as of its beginning. The WAL grows for as long as it lasts."""
        with self.read() as connection:
            with translated_errors():
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema")  # A read makes the moment.
            self._held.connection = connection
            try:
                yield
            finally:
                self._held.connection = None
                connection.execute("ROLLBACK")

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        """What the library's own recorders (tracking, snapshots) use."""
        with self.write() if commit else self.read() as connection, SQLiteCursor(connection.cursor()) as cursor:
            yield SQLiteCursor(cursor)

    def close(self) -> None:
        """Close all connections. Idempotent. The last writer to close folds the WAL into the file."""
        super().close()
        if getattr(self, "_closed", True):
            return
        with self._writing:
            self._closed = True
            while self._readers:
                self._readers.pop().close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _open_writer(self) -> sqlite3.Connection:
        self._refuse_if_closed()
        if self.mode not in ("rw", "rwc"):
            raise persistence.OperationalError(f"'{self.path}' was opened read-only")
        connection = connect(self.path, self.mode)
        try:
            schema.check(connection, self.path)
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"wal_autocheckpoint = {_WAL_PAGES}",
                f"cache_size = -{_CACHE_KIB}",
                "secure_delete = FAST",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        self._writer = connection
        return connection

    def _open_reader(self) -> sqlite3.Connection:
        self._refuse_if_closed()
        connection = connect(self.path, "rw" if self.mode == "rwc" else self.mode)
        connection.execute("PRAGMA query_only = 1")
        return connection

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise persistence.ConnectionPoolClosedError(f"the store '{self.path}' is closed")
