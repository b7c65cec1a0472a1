"""Connections to one PostgreSQL database: one that writes, a few that read.

Invariants: a write is one transaction, sent in one go (pipeline mode) and durable when `write` returns
(`synchronous_commit` is on, whatever the server's default). Readers see what was committed when their statement
began. A connection that has broken while writing may still be at work on the server, which has the whole transaction
already: its session is ended before anything is read or written again, so that what is read after an unknown outcome
is the outcome. A connection that the server has closed meanwhile is noticed before it is used, and replaced. Every
`psycopg` error leaves as the `eventsourcing` error that stands for it.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from eventsourcing import persistence
from eventsourcing.postgres import PostgresDatastore
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import DictRow, dict_row

from statewright.adapters.postgres import arrays, batch, writers
from statewright.adapters.postgres.errors import translated_errors
from statewright.adapters.postgres.location import parameters_of

READERS_MAX = 4
"""Idle read connections that are kept."""
SERVER_MIN = 140_000
"""PostgreSQL 14: the first whose `pg_terminate_backend` waits."""
_SETTLE_MS = 5_000
"""How long a session that was lost may take to end."""

Connection = psycopg.Connection[tuple[Any, ...]]

_SESSION = """SELECT
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
    set_config('idle_in_transaction_session_timeout', '10s', false),
    set_config('lock_timeout', '30s', false),
    set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false),
    set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    pg_backend_pid(), (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    coalesce(current_schema(), 'public')"""
# Plans are made once and kept. Made while a table is small they would read it whole, and do so until it is analyzed
# again, when it may have grown a thousand times: so every plan is one that uses indexes.

_PATIENCE = "SELECT set_config('idle_in_transaction_session_timeout', '10min', true)"


class _Session(NamedTuple):
    """A backend of the server; its start tells it from a later one with the same pid."""

    pid: int
    started: str


class Datastore(PostgresDatastore):
    """The library's datastore with connections of its own (the library's pool is never opened).

    Raises `InvalidError` for a URL that can't be read.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._parameters = parameters_of(url)
        self._schema: str | None = None
        self._times_rewritten: int | None = None
        super().__init__("", "", "", "", "", originator_id_type="text")
        self.read_only = read_only
        self._writer: Connection | None = None
        self._writing = threading.RLock()
        self._readers: deque[Connection] = deque()
        self._sessions: dict[Connection, _Session] = {}
        self._lost: list[_Session] = []
        self._settling = threading.Lock()
        self._held = threading.local()
        self._closed = False

    @property
    def schema(self) -> str:
        """Where the tables are: the first schema of the search path."""
        if self._schema is None:
            with self.read():
                pass
        return self._schema or "public"

    @schema.setter
    def schema(self, value: str) -> None:
        """The library's default, which is not asked for."""

    @contextmanager
    def statement(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        """The writing connection for one statement, which is a transaction of its own and durable when executed."""
        with self._writing, translated_errors():
            connection = self._ready_writer()
            try:
                yield connection.cursor(binary=True)
            except BaseException:
                self._clean(connection)
                raise

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        """A transaction on the writing connection, committed when the block ends, rolled back if it raises. What it
        executes is on its way at once, and is answered when it fetches or when the block ends.

        One that is not `durable` survives this process's death but may be lost, whole, when the server crashes.
        """
        with self.statement() as cursor, cursor.connection.pipeline() as pipeline:
            cursor.execute("BEGIN")
            if not durable:
                cursor.execute("SET LOCAL synchronous_commit = off")
            yield cursor  # Not closed here: what it has fetched is read after the block.
            cursor.connection.execute("COMMIT")
            pipeline.sync()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction of its own, unless `consistent` holds one."""
        with translated_errors():
            held: Connection | None = getattr(self._held, "connection", None)
            if held is not None:
                yield held
                return
            connection = self._ready_reader()
            try:
                yield connection
            finally:
                idle = connection.info.transaction_status == TransactionStatus.IDLE
                if not idle or self._closed or len(self._readers) >= READERS_MAX:
                    self._drop(connection)
                else:
                    self._readers.append(connection)

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """Inside the block, what this thread reads is as of its beginning. It holds up nobody, but nothing that is
        deleted or overwritten meanwhile can be vacuumed for as long as it lasts."""
        with self.read() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # A query makes the moment. Between two there is work to be done here, such as folding what was read.
            connection.execute(_PATIENCE)
            self._held.connection = connection
            try:
                yield
            finally:
                self._held.connection = None
                with contextlib.suppress(psycopg.Error):  # `read` gives up one that is not idle then.
                    connection.execute("ROLLBACK")

    @contextmanager
    def get_connection(self) -> Iterator[psycopg.Connection[DictRow]]:
        """What the library's own recorders use."""
        with self.read() as connection:
            connection.row_factory = dict_row  # type: ignore[assignment]
            try:
                yield connection  # type: ignore[misc]
            finally:
                connection.row_factory = psycopg.rows.tuple_row

    @contextmanager
    def library_cursor(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> Iterator[psycopg.Cursor[DictRow]]:
        """Another cursor in the transaction of `cursor`, with rows as the library's recorders expect them."""
        with cursor.connection.cursor(row_factory=dict_row) as theirs:
            yield theirs

    def register_type_adapters(self) -> None:
        """The library's composite types are not used."""

    def close(self) -> None:
        """Close all connections. Idempotent."""
        super().close()
        if getattr(self, "_closed", True):
            return
        with self._writing:
            self._closed = True
            while self._readers:
                self._drop(self._readers.pop())
            if self._writer is not None:
                self._drop(self._writer)
                self._writer = None

    def connect(self) -> Connection:
        """A new connection. Raises `psycopg.OperationalError` when there is no server or it lets nobody in."""
        if self._closed:
            raise persistence.ConnectionPoolClosedError("the store is closed")
        connection = psycopg.connect(**self._parameters, autocommit=True)  # type: ignore[arg-type]
        try:
            if connection.info.server_version < SERVER_MIN:
                least, got = SERVER_MIN // 10_000, connection.info.server_version // 10_000
                raise persistence.OperationalError(f"expected PostgreSQL {least} or newer, got {got}")
            arrays.register(connection.adapters)
            row = connection.execute(_SESSION).fetchone()
            assert row is not None
            *_, pid, started, self._schema = row
            connection.read_only = self.read_only
            if self.read_only:
                connection.execute("SET default_transaction_read_only = on")
            elif self._times_rewritten is None:
                self._times_rewritten = writers.times_rewritten(connection)
        except BaseException:
            connection.close()
            raise
        self._sessions[connection] = _Session(pid, started)
        return connection

    def _ready_writer(self) -> Connection:
        if self.read_only:
            raise persistence.OperationalError("the store was opened read-only")
        connection = self._writer
        if connection is None or not _is_alive(connection):
            if connection is not None:
                self._drop(connection)
            self._writer = None
            connection = self.connect()
            try:
                writers.enter(connection, self._times_rewritten or 0)
                batch.prepare(connection)
            except BaseException:
                self._drop(connection)
                raise
            self._writer = connection
        self._settle(connection)
        return connection

    def _ready_reader(self) -> Connection:
        while True:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self.connect()
                break
            if _is_alive(connection):
                break
            self._drop(connection)
        try:
            self._settle(connection)
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _clean(self, connection: Connection) -> None:
        """After a write has failed: roll back, or give up the connection, whose outcome may be unknown."""
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.rollback()
            if connection.info.status == ConnStatus.OK:
                return
        except psycopg.Error:
            pass
        self._writer = None
        with self._settling:
            self._lost.append(self._sessions[connection])
        self._drop(connection)

    def _settle(self, connection: Connection) -> None:
        """End the sessions that were lost, and wait until they have: what they have not committed, they never will."""
        if not self._lost:
            return
        with self._settling:
            while self._lost:
                row = connection.execute(
                    "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
                    " WHERE pid = %s AND backend_start::text = %s",
                    (_SETTLE_MS, *self._lost[-1]),
                ).fetchone()
                if row is not None and not row[0]:
                    raise persistence.OperationalError(
                        f"a session that was lost (pid {self._lost[-1].pid}) has not ended yet"
                    )
                self._lost.pop()

    def _drop(self, connection: Connection) -> None:
        self._sessions.pop(connection, None)
        with contextlib.suppress(psycopg.Error):
            connection.close()


def _is_alive(connection: Connection) -> bool:
    """Whether an idle connection is good, as far as is known here. A server has nothing to say on one but farewell (or
    that its settings have changed, which costs no more than a new connection)."""
    try:
        return not connection.closed and not select.select([connection.fileno()], [], [], 0)[0]
    except (psycopg.Error, OSError, ValueError):
        return False
