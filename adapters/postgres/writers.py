"""Who writes a store: any number of connections beside each other, or one alone, which rewrites all of it.

Each connection that writes holds an advisory lock, shared, from when it is opened to when its session ends, however it
does: so who has the lock alone knows that nobody writes, not even a worker that was stopped and will wake up. A store
that was rewritten counts that, so that an engine which was without a connection meanwhile notices when it has one
again: it may write with a key, or with none, that is not the store's any more.
"""

from __future__ import annotations

from typing import Any

import psycopg
from eventsourcing.persistence import OperationalError

from statewright.engine.errors import UnavailableError

Connection = psycopg.Connection[tuple[Any, ...]]

_SPACE = 0x53547773
"""The space of these locks; the key in it is the event table's oid: stores in one database don't meet."""
_KEY = f"({_SPACE}::bigint << 32 | to_regclass('stored_events')::oid::bigint)"
_BUSY = "the store is being re-encrypted, and can't be written until that is done"
_TRIES, _PAUSE_S = 10, 0.1
_COUNT = "rewritten"
"""The key in `meta`."""

_HOLDERS = f"""SELECT pid, application_name, host(client_addr)
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pg_locks.database = pg_stat_activity.datid
    AND pg_stat_activity.datname = current_database() AND pid <> pg_backend_pid()
    AND classid = {_SPACE}::bigint::oid AND objid = to_regclass('stored_events')::oid ORDER BY pid"""

_WORKERS = "SELECT DISTINCT owner FROM leases WHERE owner <> '' AND expires_at > server_time() ORDER BY owner"


def times_rewritten(connection: Connection) -> int:
    """How often the store was; 0 if there is none yet."""
    there = "SELECT to_regclass(quote_ident(current_schema()) || '.statewright_migrations') IS NOT NULL"
    if connection.execute(there).fetchone() != (True,):
        return 0
    row = connection.execute("SELECT value FROM meta WHERE key = %s", (_COUNT,)).fetchone()
    return int(row[0]) if row else 0


def enter(connection: Connection, known: int) -> None:
    """Be one of those who write for as long as the connection is open. known: how often the store was rewritten when
    it was looked at first. Raises `OperationalError` if it has been again, or is just being."""
    if connection.execute(f"SELECT pg_try_advisory_lock_shared({_KEY})").fetchone() == (False,):
        raise OperationalError(_BUSY)
    if times_rewritten(connection) != known:
        raise OperationalError("the store was re-encrypted while it was open here: open it anew")


def check(connection: Connection) -> None:
    """Raise `UnavailableError` if the store is being rewritten."""
    if connection.execute(f"SELECT pg_try_advisory_lock_shared({_KEY})").fetchone() == (False,):
        raise UnavailableError(_BUSY)
    connection.execute(f"SELECT pg_advisory_unlock_shared({_KEY})")


def exclude(connection: Connection) -> None:
    """Be the only one for as long as the connection is open. Raises `UnavailableError` naming the others."""
    alone = _is_alone(connection)
    # Leases tell what a session's engine is called. An engine of an older version takes no lock; those of one that was
    # killed end in a moment.
    found = [f"worker {owner}" for (owner,) in connection.execute(_WORKERS)]
    if not alone:
        sessions = connection.execute(_HOLDERS).fetchall()
        found += [f"session {pid} ('{name}'{f' at {host}' if host else ''})" for pid, name, host in sessions]
        raise UnavailableError(f"expected nobody to have the store open for writing, but so have {', '.join(found)}")
    if found:
        raise UnavailableError(f"expected nobody to hold leases on the store, but so does {', '.join(found)}")


def _is_alone(connection: Connection) -> bool:
    """Whether it could get the lock. A session that was closed just now may take a moment to end."""
    for _ in range(_TRIES):
        if connection.execute(f"SELECT pg_try_advisory_lock({_KEY})").fetchone() != (False,):
            return True
        connection.execute("SELECT pg_sleep(%s)", (_PAUSE_S,))
    return False


def count(connection: Connection) -> None:
    """Say that the store was rewritten, in the transaction that is open."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (%s, '1')"
        " ON CONFLICT (key) DO UPDATE SET value = (meta.value::bigint + 1)::text",
        (_COUNT,),
    )
