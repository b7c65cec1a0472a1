"""All rows of a SQLite store replaced, and no older copy left: what `engine/reencryption.py` re-encrypts it with.

Invariants: one transaction: all of it or nothing; the store is owned meanwhile. Afterwards the file is rebuilt and
the WAL emptied, so that neither holds what was there before; who is killed between the two has it done anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints

from statewright.adapters.sqlite.datastore import Datastore, connect, translated_errors
from statewright.engine.reencryption import Table


@contextmanager
def rewriting(path: str) -> Iterator[Rewriting]:
    """See `engine.reencryption.Rewritable`; the store at `path` is owned by this process."""
    datastore = Datastore(path, mode="rw")
    try:
        with translated_errors(), datastore.read() as before, datastore.write() as now:
            yield Rewriting(before, now)
    finally:
        datastore.close()
    _compact(path)


class Rewriting:
    """`before` reads what was committed, so that what is written to `now` is not met again."""

    def __init__(self, before: sqlite3.Connection, now: sqlite3.Connection) -> None:
        self._before = before
        self._now = now

    def rewrite(self, table: Table, change: Callable[[Any], Any]) -> int:
        """See `engine.reencryption.Rewriting`."""
        fields, hints = table.kind._fields, get_type_hints(table.kind)
        # A state may be text: of a plain fact, or changed by hand.
        read = ", ".join(f"CAST({name} AS BLOB)" if hints[name] is bytes else name for name in fields)
        update = (
            f"UPDATE {table.name} SET {', '.join(f'{name} = ?' for name in fields)}"
            f" WHERE {' AND '.join(f'{name} = ?' for name in table.key)}"
        )
        count = 0
        for values in self._before.execute(f"SELECT {read} FROM {table.name}"):
            row = table.kind._make(values)
            self._now.execute(update, (*change(row), *(getattr(row, name) for name in table.key)))
            count += 1
        return count


def _compact(path: str) -> None:
    with translated_errors():
        connection = connect(path, "rw")
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
