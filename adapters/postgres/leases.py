"""Leases in PostgreSQL: by the server's clock, which is one for all workers; a worker's own is not asked."""

from __future__ import annotations

from collections.abc import Collection

from statewright.adapters.postgres.arrays import Texts
from statewright.adapters.postgres.datastore import Datastore
from statewright.adapters.postgres.schema import columns
from statewright.engine.recorder import Lease

_COLUMNS = columns(Lease)
_OURS = ", ".join(f"leases.{name}" for name in Lease._fields)

# In the order of their names, so that workers wait for each other and don't block each other.
_ACQUIRE = f"""INSERT INTO leases ({_COLUMNS})
    SELECT name, %s, 1, server_time() + %s FROM unnest(%s) AS given(name) ORDER BY name
    ON CONFLICT (name) DO UPDATE SET
        owner = excluded.owner, epoch = leases.epoch + (leases.owner <> excluded.owner)::int,
        expires_at = excluded.expires_at
    WHERE leases.owner = excluded.owner OR leases.expires_at <= server_time()
    RETURNING {_OURS}"""
_HELD = """WITH held AS MATERIALIZED (
    SELECT name FROM leases WHERE name = ANY(%s) AND owner = %s ORDER BY name FOR UPDATE)"""
_RENEW = f"""{_HELD} UPDATE leases SET expires_at = server_time() + %s FROM held WHERE leases.name = held.name
    RETURNING {_OURS}"""
_RELEASE = f"{_HELD} UPDATE leases SET owner = '', expires_at = 0 FROM held WHERE leases.name = held.name"


def acquire(datastore: Datastore, owner: str, names: Collection[str], ttl_ns: int) -> list[Lease]:
    with datastore.write() as cursor:
        cursor.execute(_ACQUIRE.encode(), (owner, ttl_ns, Texts(sorted(set(names)))))
        return sorted(map(Lease._make, cursor.fetchall()))


def renew(datastore: Datastore, owner: str, names: Collection[str], ttl_ns: int) -> list[Lease]:
    with datastore.write() as cursor:
        cursor.execute(_RENEW.encode(), (Texts(names), owner, ttl_ns))
        return sorted(map(Lease._make, cursor.fetchall()))


def release(datastore: Datastore, owner: str, names: Collection[str]) -> None:
    with datastore.write() as cursor:
        cursor.execute(_RELEASE.encode(), (Texts(names), owner))


def select(datastore: Datastore) -> list[Lease]:
    with datastore.read() as connection:
        return [Lease._make(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM leases ORDER BY name".encode())]
