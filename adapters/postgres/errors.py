"""PostgreSQL's errors, as the `eventsourcing` errors that stand for them.

The engine asks of an error whose fault it is. So a deadlock or a serialization failure is a conflict with another
writer (`IntegrityError`: read again, decide again), and a table or a right that is missing is the store's fault
(`OperationalError`), not that of the request that met it. Messages are one line, without the connection's password:
libpq doesn't repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from eventsourcing import persistence

from statewright.engine.errors import LeaseLostError

LEASE_LOST = "SW001"
"""The SQLSTATE with which our function `require_leases` raises."""

_CLASSES: tuple[tuple[type[psycopg.Error], type[persistence.PersistenceError]], ...] = (
    (psycopg.InterfaceError, persistence.InterfaceError),
    (psycopg.OperationalError, persistence.OperationalError),
    (psycopg.DataError, persistence.DataError),
    (psycopg.IntegrityError, persistence.IntegrityError),
    (psycopg.InternalError, persistence.InternalError),
    (psycopg.ProgrammingError, persistence.ProgrammingError),
    (psycopg.NotSupportedError, persistence.NotSupportedError),
    (psycopg.DatabaseError, persistence.DatabaseError),
    (psycopg.Error, persistence.PersistenceError),
)
_TRANSACTION_ROLLBACK = "40"
_SYNTAX_OR_ACCESS = "42"


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise `psycopg` errors as `eventsourcing.persistence` errors, and a lost lease as `LeaseLostError`."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == LEASE_LOST:
            raise LeaseLostError(text_of(error)) from error
        raise kind_of(error)(text_of(error)) from error


def kind_of(error: psycopg.Error) -> type[persistence.PersistenceError]:
    """Which error stands for `error`."""
    state = error.sqlstate or ""
    if state.startswith(_TRANSACTION_ROLLBACK):
        return persistence.IntegrityError
    if state.startswith(_SYNTAX_OR_ACCESS):
        return persistence.OperationalError
    return next(ours for theirs, ours in _CLASSES if isinstance(error, theirs))


def text_of(error: psycopg.Error) -> str:
    """What the server or libpq said, in one line."""
    if error.diag.message_primary:
        return " ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
    return " ".join(str(error).split())
