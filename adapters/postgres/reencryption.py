"""All rows of a PostgreSQL store replaced, and no older copy left: what `engine/reencryption.py` re-encrypts it with.

Invariants: one transaction: all of it or nothing; nobody else has the store open for writing meanwhile (`writers.py`).
Each table is emptied by TRUNCATE and filled anew: so when the transaction is committed the files with the older rows
are gone, whatever other transactions in the database are still to see. (An UPDATE leaves older rows, which no VACUUM
removes while some transaction is older; and who is killed before that VACUUM leaves them, too.) What ANALYZE has kept
of the columns' values is replaced after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from statewright.adapters.postgres import writers
from statewright.adapters.postgres.arrays import Integers, columns_of
from statewright.adapters.postgres.datastore import Connection, Datastore
from statewright.adapters.postgres.errors import translated_errors
from statewright.engine.errors import UnavailableError
from statewright.engine.reencryption import TABLES, Table

_BATCH = 200
"""Rows that are held in memory at a time; one may have a few MiB."""

_SESSION = """SELECT set_config('statement_timeout', '0', false), set_config('enable_seqscan', 'on', false),
    set_config('idle_in_transaction_session_timeout', '10min', false)"""
_NAMES = [table.name for table in TABLES]
_NOT_OURS = """SELECT current_user, string_agg(relname, ', ' ORDER BY relname) FROM pg_class
    WHERE oid = ANY(%s::text[]::regclass[]) AND NOT pg_has_role(relowner, 'USAGE')"""
_IDENTITY = "SELECT attname FROM pg_attribute WHERE attrelid = %s::text::regclass AND attidentity <> ''"


@contextmanager
def rewriting(datastore: Datastore) -> Iterator[Rewriting]:
    """See `engine.reencryption.Rewritable`."""
    with translated_errors():
        connection = datastore.connect()
        try:
            connection.execute(_SESSION)
            _require_ownership(connection)
            writers.exclude(connection)
            with connection.transaction():
                # Readers wait, too: to one that has begun before, a truncated table would be empty.
                connection.execute(f"LOCK TABLE {', '.join(_NAMES)} IN ACCESS EXCLUSIVE MODE".encode())
                yield Rewriting(connection)
                writers.count(connection)
            _replace_statistics(connection)
        finally:
            connection.close()


class Rewriting:
    """In the transaction that is open on `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rewrite(self, table: Table, change: Callable[[Any], Any]) -> int:
        """See `engine.reencryption.Rewriting`."""
        execute, name = self._connection.execute, table.name
        # What the rows don't tell: positions and numbers, by which they are ordered.
        identity = [column for (column,) in execute(_IDENTITY, (name,))]
        fields = [*identity, *table.kind._fields]
        columns = ", ".join(fields)
        execute(f"CREATE TEMPORARY TABLE rows_before ON COMMIT DROP AS SELECT {columns} FROM {name}".encode())
        execute(f"TRUNCATE {name}".encode())
        insert = (
            f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE"
            f" SELECT * FROM unnest({', '.join(['%s'] * len(fields))})"
        ).encode()
        count = 0
        with self._connection.cursor("rows_before", binary=True) as cursor:
            cursor.execute("SELECT * FROM rows_before")
            while batch := cursor.fetchmany(_BATCH):
                places = [Integers(column) for column in zip(*(row[: len(identity)] for row in batch), strict=True)]
                rows = [change(table.kind._make(row[len(identity) :])) for row in batch]
                execute(insert, [*places, *columns_of(table.kind, rows)])
                count += len(batch)
        execute("DROP TABLE rows_before")
        return count


def _require_ownership(connection: Connection) -> None:
    user, tables = connection.execute(_NOT_OURS, (_NAMES,)).fetchone() or ("", None)
    if tables is not None:
        raise UnavailableError(f"expected role '{user}' to own the tables that it is to empty, but not so: {tables}")


def _replace_statistics(connection: Connection) -> None:
    """Those of the tables, which hold some of the values that were there; as far as the role may."""
    connection.execute(f"ANALYZE {', '.join(_NAMES)}".encode())
    connection.execute("VACUUM (FULL) pg_statistic")  # The database's owner may; to others it is a warning.
