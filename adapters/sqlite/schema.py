"""The tables of a SQLite store, and what makes a file one: its application id and its schema version.

Invariants: a file is changed only if it is new (empty) or ours; a file of a newer version is refused, never
guessed at. All times are integer nanoseconds UTC; configuration, context, data and headers are JSON text.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from statewright.engine.errors import InvalidError, NotFoundError
from statewright.engine.partitions import partition_of

SCHEMA_VERSION = 3
"""Written into `PRAGMA user_version`. Grows with every change of the tables that an older version can't read."""

APPLICATION_ID = 0x53547772
"""Written into `PRAGMA application_id` ("STwr"): tells a store from somebody else's database."""

OPEN = "state IN ('pending', 'running')"
"""Of an effect: still to be performed. Queries say it in these words, so that SQLite finds the partial index."""

TRANSIENT = "kind NOT IN ('start', 'cancel', 'done')"
"""Of an effect: not performed any more once the instance that asked for it is cancelled."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS stored_events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        originator_id TEXT NOT NULL,
        originator_version INTEGER NOT NULL,
        topic TEXT NOT NULL,
        state TEXT NOT NULL,
        UNIQUE (originator_id, originator_version))""",
    """CREATE TABLE IF NOT EXISTS inbox (
        instance_id TEXT NOT NULL,
        source TEXT NOT NULL,
        event_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (instance_id, source, event_id)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS instances (
        id TEXT NOT NULL UNIQUE,
        definition TEXT NOT NULL,
        version TEXT NOT NULL,
        status TEXT NOT NULL,
        configuration TEXT NOT NULL,
        context TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        ended_at INTEGER,
        digest TEXT NOT NULL,
        failure TEXT NOT NULL,
        parent TEXT)""",
    "CREATE INDEX IF NOT EXISTS instances_by_status ON instances (status, id)",
    "CREATE INDEX IF NOT EXISTS instances_by_parent ON instances (parent) WHERE parent IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS timers (
        instance_id TEXT NOT NULL,
        timer_id TEXT NOT NULL,
        due_at INTEGER NOT NULL,
        event TEXT NOT NULL,
        partition INTEGER NOT NULL,
        PRIMARY KEY (instance_id, timer_id)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS timers_due ON timers (due_at, partition)",
    """CREATE TABLE IF NOT EXISTS effects (
        effect_id TEXT NOT NULL,
        instance_id TEXT NOT NULL,
        partition INTEGER NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        lease_epoch INTEGER NOT NULL,
        data TEXT NOT NULL,
        error TEXT NOT NULL,
        policy TEXT NOT NULL,
        details TEXT NOT NULL,
        UNIQUE (instance_id, effect_id))""",
    # Only what is still to be performed is indexed by when; each name that has a handler is a queue of its own, so
    # that a backlog of effects that nobody here performs costs nothing.
    f"""CREATE INDEX IF NOT EXISTS effects_waiting ON effects (kind, iif(kind = 'perform', name, ''), due_at, partition)
        WHERE {OPEN}""",
    # The fence of an effect's end: two processes may perform it, one of them given up for dead, but they can't both
    # record what came of it if they disagree. (The WHERE of an UPDATE would only skip the row, and record the rest.)
    """CREATE TRIGGER IF NOT EXISTS effects_end_once BEFORE UPDATE OF state ON effects
        WHEN OLD.state IN ('done', 'failed') AND NEW.state IN ('done', 'failed') AND OLD.state <> NEW.state
        BEGIN SELECT RAISE(ABORT, 'expected an effect that has not ended, or has ended so'); END""",
    """CREATE TABLE IF NOT EXISTS steps (
        instance_id TEXT NOT NULL,
        step TEXT NOT NULL,
        status TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        started_at INTEGER,
        ended_at INTEGER,
        PRIMARY KEY (instance_id, step)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS definitions (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        digest TEXT NOT NULL,
        json TEXT NOT NULL,
        UNIQUE (name, version))""",
    """CREATE TABLE IF NOT EXISTS parked (
        number INTEGER PRIMARY KEY,
        parked_id TEXT NOT NULL UNIQUE,
        received_at INTEGER NOT NULL,
        subject TEXT NOT NULL,
        reason TEXT NOT NULL,
        headers TEXT NOT NULL,
        payload BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS leases (
        name TEXT NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        expires_at INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS schedules (
        id TEXT NOT NULL PRIMARY KEY,
        definition TEXT NOT NULL,
        version TEXT,
        cron TEXT NOT NULL,
        tz TEXT NOT NULL,
        context TEXT NOT NULL,
        catch_up TEXT NOT NULL,
        overlap TEXT NOT NULL,
        end_at INTEGER,
        status TEXT NOT NULL,
        next_at INTEGER,
        last_at INTEGER,
        note TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS schedules_by_next ON schedules (next_at) WHERE status = 'active'",
)


def columns(row: type[Any]) -> str:
    """The columns of the table whose rows are `row`s, a NamedTuple, in its order."""
    return ", ".join(row._fields)


def check(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the open file is a store that this version can use; False if it is empty (a new file).

    Raises `InvalidError` for another application's database and for a newer version's store,
    `sqlite3.DatabaseError` for a file that is no database.
    """
    application_id, version, tables = (
        connection.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")
    )
    if application_id == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise InvalidError(
                f"expected a store of schema version {SCHEMA_VERSION} or older, but '{path}' has version {version}: "
                f"a newer Statewright has written it; upgrade this one"
            )
        return True
    if application_id == 0 and version == 0 and tables == 0:
        return False
    raise InvalidError(f"expected a Statewright store or an empty file, but '{path}' is another application's database")


def check_exists(connection: sqlite3.Connection, path: str) -> None:
    """Like `check`, for a reader: a file without tables is a store that nobody has made yet, and one of an older
    version must be opened for writing once, which migrates it."""
    if not check(connection, path):
        raise NotFoundError(f"expected a Statewright store, but '{path}' is an empty database")
    version = _version(connection)
    if version < SCHEMA_VERSION:
        raise InvalidError(
            f"expected a store of schema version {SCHEMA_VERSION}, but '{path}' has version {version}: open it for "
            "writing once, which migrates it"
        )


def create(connection: sqlite3.Connection, partitions: int) -> None:
    """Make the tables in an empty file, in the transaction that is open. Idempotent."""
    stamp(connection)
    complete(connection)
    connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('partitions', ?)", (partitions,))


def complete(connection: sqlite3.Connection) -> None:
    """Make the tables that an earlier version of the same schema did not have; idempotent. (Added tables are no new
    schema version: older ones can use the file.)"""
    for statement in TABLES:
        connection.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an older version's tables to this one's, in the transaction that is open. Idempotent. (Version 3 adds table
    `steps`: no fact of before says anything about steps, but an older version would not write its rows.)"""
    if _version(connection) < 2:
        _to_2(connection)
    complete(connection)
    stamp(connection)


def _to_2(connection: sqlite3.Connection) -> None:
    """Timers know their partition; effects have a policy, and details of their last heartbeat."""
    partitions = int(connection.execute("SELECT value FROM meta WHERE key = 'partitions'").fetchone()[0])
    connection.create_function("partition_of", 1, lambda one: partition_of(one, partitions), deterministic=True)
    connection.execute("ALTER TABLE timers ADD COLUMN partition INTEGER NOT NULL DEFAULT 0")
    connection.execute("UPDATE timers SET partition = partition_of(instance_id)")
    connection.execute("DROP INDEX IF EXISTS timers_by_due")
    connection.execute("DROP INDEX IF EXISTS effects_open")
    for column in ("policy", "details"):
        connection.execute(f"ALTER TABLE effects ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def stamp(connection: sqlite3.Connection) -> None:
    """Write whose file it is and of which version. On a file that is, it shows that it can be written: on one that
    can't, SQLite makes of BEGIN IMMEDIATE a reading transaction, which says nothing."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
