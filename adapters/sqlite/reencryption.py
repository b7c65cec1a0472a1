"""Re-encryption of a SQLite store: everything in it under the first key of the ring, and no older copy left.

Invariants: one transaction: all of it or nothing; the store is owned meanwhile. Afterwards the file is rebuilt and
the WAL emptied, so that neither holds what was there before. (What the disk itself keeps of overwritten blocks, and
backups, are not reached.)
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from statewright.adapters.sqlite.datastore import Datastore, connect, translated_errors
from statewright.adapters.sqlite.schema import columns
from statewright.adapters.sqlite.store import SQLiteStore
from statewright.engine.cipher import Ring, is_sealed
from statewright.engine.errors import InvalidError
from statewright.engine.log import InstanceLog
from statewright.engine.recorder import EffectRow, InboxRow, InstanceRow, ParkedRow, ScheduleRow, TimerRow
from statewright.engine.sealing import open_row, seal_row

_TABLES: tuple[tuple[str, type[Any], tuple[str, ...]], ...] = (
    ("instances", InstanceRow, ("id",)),
    ("effects", EffectRow, ("instance_id", "effect_id")),
    ("timers", TimerRow, ("instance_id", "timer_id")),
    ("parked", ParkedRow, ("parked_id",)),
    ("schedules", ScheduleRow, ("id",)),
)


class Reencrypted(msgspec.Struct, frozen=True):
    """What was done: the name of the key, and how many facts (with snapshots) and other rows it encrypts now."""

    key: str
    facts: int
    rows: int


def reencrypt(url: str) -> Reencrypted:
    """Encrypt the store behind `url` with the first key of the key ring in the environment; it may be plain, or
    encrypted with any of its keys. Raises `InvalidError` (no key, not SQLite, a key that is missing), and what owning
    the store raises."""
    store = SQLiteStore(url)
    store.acquire()
    try:
        log = InstanceLog(dict(store.environment))
        try:
            ring, encrypted = log.ring, bool(log.is_encrypted)
        finally:
            log.close()
        if ring is None:
            raise InvalidError("expected STATEWRIGHT_CIPHER_KEY or STATEWRIGHT_CIPHER_KEY_FILE to be set")
        datastore = Datastore(store.path, mode="rw")
        try:
            with translated_errors(), datastore.read() as before, datastore.write() as now:
                facts = sum(_states(ring, before, now, table) for table in ("stored_events", "stored_snapshots"))
                rows = sum(_rows(ring, before, now, *table) for table in _TABLES)
                if not encrypted:  # Identities keep their key for ever.
                    rows += _identities(ring, before, now)
        finally:
            datastore.close()
        _compact(store.path)
        return Reencrypted(ring.first, facts, rows)
    finally:
        store.close()


def _states(ring: Ring, before: sqlite3.Connection, now: sqlite3.Connection, table: str) -> int:
    """Facts or snapshots. `before` reads what was committed, so updating is not met again."""
    found = before.execute(f"SELECT originator_id, originator_version, topic, CAST(state AS BLOB) FROM {table}")
    count = 0
    for instance_id, sequence, topic, state in found:
        place = f"{topic} {instance_id} {sequence}"
        plain = ring.decrypt(state, place) if is_sealed(state) else state
        now.execute(
            f"UPDATE {table} SET state = ? WHERE originator_id = ? AND originator_version = ?",
            (ring.encrypt(plain, place), instance_id, sequence),
        )
        count += 1
    return count


def _rows(
    ring: Ring, before: sqlite3.Connection, now: sqlite3.Connection, table: str, kind: Any, key: tuple[str, ...]
) -> int:
    update = (
        f"UPDATE {table} SET {', '.join(f'{name} = :{name}' for name in kind._fields)}"
        f" WHERE {' AND '.join(f'{name} = :{name}' for name in key)}"
    )
    count = 0
    for row in before.execute(f"SELECT {columns(kind)} FROM {table}"):
        now.execute(update, seal_row(ring, open_row(ring, kind._make(row)))._asdict())
        count += 1
    return count


def _identities(ring: Ring, before: sqlite3.Connection, now: sqlite3.Connection) -> int:
    update = (
        "UPDATE inbox SET source = ?, event_id = ?, digest = ? WHERE instance_id = ? AND source = ? AND event_id = ?"
    )
    count = 0
    for row in before.execute(f"SELECT {columns(InboxRow)} FROM inbox"):
        plain = InboxRow._make(row)
        sealed = seal_row(ring, plain)
        now.execute(update, (sealed.source, sealed.event_id, sealed.digest, *plain[:3]))
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
