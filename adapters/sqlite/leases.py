"""Leases in a SQLite file: one process owns the file, so they matter only to those who run several engines on it in
turn, and to tests of what many workers do. The clock is the caller's."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from statewright.adapters.sqlite.schema import columns
from statewright.engine.errors import LeaseLostError
from statewright.engine.recorder import Lease


def acquire(connection: sqlite3.Connection, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
    """In the transaction that is open, as `renew` and `release`."""
    take = (
        f"INSERT INTO leases ({columns(Lease)}) VALUES (?, ?, 1, ?) ON CONFLICT (name) DO UPDATE SET"
        " epoch = epoch + (owner <> excluded.owner), owner = excluded.owner, expires_at = excluded.expires_at"
        f" WHERE owner = excluded.owner OR expires_at <= ? RETURNING {columns(Lease)}"
    )
    taken = [connection.execute(take, (name, owner, now + ttl_ns, now)).fetchone() for name in sorted(set(names))]
    return [Lease._make(row) for row in taken if row is not None]


def renew(connection: sqlite3.Connection, owner: str, names: Collection[str], now: int, ttl_ns: int) -> list[Lease]:
    extend = f"UPDATE leases SET expires_at = ? WHERE name = ? AND owner = ? RETURNING {columns(Lease)}"
    kept = [connection.execute(extend, (now + ttl_ns, name, owner)).fetchone() for name in sorted(set(names))]
    return [Lease._make(row) for row in kept if row is not None]


def release(connection: sqlite3.Connection, owner: str, names: Collection[str]) -> None:
    free = "UPDATE leases SET owner = '', expires_at = 0 WHERE name = ? AND owner = ?"
    connection.executemany(free, [(name, owner) for name in names])


def select(connection: sqlite3.Connection) -> list[Lease]:
    return [Lease._make(row) for row in connection.execute(f"SELECT {columns(Lease)} FROM leases ORDER BY name")]


def require(connection: sqlite3.Connection, leases: Sequence[Lease]) -> None:
    """Raise `LeaseLostError` unless all are still what they were, but for when they expire."""
    query = "SELECT owner, epoch FROM leases WHERE name = ?"
    for lease in leases:
        found = connection.execute(query, (lease.name,)).fetchone()
        if found is None or tuple(found) != (lease.owner, lease.epoch):
            now = f"'{found[0]}' with epoch {found[1]}" if found else "nobody"
            raise LeaseLostError(
                f"expected lease '{lease.name}' to be held by '{lease.owner}' with epoch {lease.epoch}, it is {now}"
            )
