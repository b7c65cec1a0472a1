"""The `eventsourcing` library's SQLite recorder, which also writes inbox, instances, timers and effects.

Invariants: `insert_events` is one transaction. Facts are kept as JSON text that SQL can read; bytes that are no
UTF-8 (a cipher is set) are kept as they are. Positions are given out by the one writer and are never used twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.sqlite import SQLiteCursor, SQLiteProcessRecorder
from statewright.adapters.sqlite import schema
from statewright.adapters.sqlite.datastore import Datastore
from statewright.engine.recorder import (
    PARTITIONS_DEFAULT,
    Changes,
    DefinitionRow,
    EffectRow,
    InboxRow,
    InstanceFilter,
    InstanceRecorder,
    InstanceRow,
    ParkedRow,
    TimerRow,
)

_OPEN = "state IN ('pending', 'running')"
_QUEUE = "kind = ? AND iif(kind = 'perform', name, '') = ?"


class SQLiteInstanceRecorder(SQLiteProcessRecorder, InstanceRecorder):
    """`InstanceRecorder` on one SQLite file. `partitions` counts only when the file is made."""

    datastore: Datastore

    def __init__(self, datastore: Datastore, *, partitions: int = PARTITIONS_DEFAULT) -> None:
        super().__init__(datastore)
        self._partitions_wanted = partitions
        self._partitions: int | None = None

    def create_table(self) -> None:
        """Make the tables if the file is new. Raises `InvalidError` if it is not ours or of a newer version."""
        with self.datastore.write() as connection:
            if not schema.check(connection, self.datastore.path):
                schema.create(connection, self._partitions_wanted)
                super()._create_table(SQLiteCursor(connection.cursor()))

    def construct_create_table_statements(self) -> list[str]:
        return [statement for statement in super().construct_create_table_statements() if "tracking" in statement]

    # Facts
    def insert_events(
        self, stored_events: Sequence[StoredEvent], *, changes: Changes | None = None, **kwargs: Any
    ) -> Sequence[int] | None:
        tracking = kwargs.get("tracking")
        with self.datastore.write() as connection:
            positions: list[int] = []
            for event in stored_events:
                cursor = connection.execute(
                    "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?,?,?,?)",
                    (event.originator_id, event.originator_version, event.topic, _as_text(event.state)),
                )
                assert cursor.lastrowid is not None
                positions.append(cursor.lastrowid)
            if changes is not None:
                _write_changes(connection, changes)
            if tracking is not None:
                self._insert_tracking(SQLiteCursor(connection.cursor()), tracking)
        return positions

    def select_events(
        self,
        originator_id: Any,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        query = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB) FROM stored_events"
            " WHERE originator_id = ? AND originator_version > ? AND originator_version <= ?"
            f" ORDER BY originator_version {'DESC' if desc else 'ASC'} LIMIT ?"
        )
        bounds = (-1 if gt is None else gt, _MAX if lte is None else lte, -1 if limit is None else limit)
        with self.datastore.read() as connection:
            return [StoredEvent(*row) for row in connection.execute(query, (originator_id, *bounds))]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = 0 if start is None else start if inclusive_of_start else start + 1
        query = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB), id FROM stored_events"
            f" WHERE id >= ? AND id <= ? {_among('topic', topics)} ORDER BY id LIMIT ?"
        )
        with self.datastore.read() as connection:
            rows = connection.execute(query, (first, _MAX if stop is None else stop, *topics, limit))
            return [Notification(*row) for row in rows]

    def max_notification_id(self) -> int:
        with self.datastore.read() as connection:
            # None for an empty log, as the library's recorders say it.
            return connection.execute("SELECT max(id) FROM stored_events").fetchone()[0]  # type: ignore[no-any-return]

    # The inbox
    def select_inbox(self, instance_id: str, limit: int) -> Sequence[InboxRow]:
        query = f"SELECT {_columns(InboxRow)} FROM inbox WHERE instance_id = ? ORDER BY sequence DESC LIMIT ?"
        with self.datastore.read() as connection:
            return [InboxRow._make(row) for row in connection.execute(query, (instance_id, limit))]

    def find_inbox(self, instance_id: str, source: str, event_id: str) -> InboxRow | None:
        query = f"SELECT {_columns(InboxRow)} FROM inbox WHERE instance_id = ? AND source = ? AND event_id = ?"
        with self.datastore.read() as connection:
            row = connection.execute(query, (instance_id, source, event_id)).fetchone()
        return InboxRow._make(row) if row else None

    # Instances
    def select_instance(self, instance_id: str) -> InstanceRow | None:
        with self.datastore.read() as connection:
            query = f"SELECT {_columns(InstanceRow)} FROM instances WHERE id = ?"
            row = connection.execute(query, (instance_id,)).fetchone()
        return InstanceRow._make(row) if row else None

    def select_instances(self, where: InstanceFilter) -> Sequence[InstanceRow]:
        conditions, values = ["id > ?"], [where.after or ""]
        if where.definition is not None:
            conditions.append("definition = ?")
            values.append(where.definition)
        if where.status is not None:
            conditions.append("status = ?")
            values.append(where.status)
        if where.state is not None:
            conditions.append("EXISTS (SELECT 1 FROM json_each(configuration) WHERE value = ?)")
            values.append(where.state)
        query = f"SELECT {_columns(InstanceRow)} FROM instances WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?"
        with self.datastore.read() as connection:
            return [InstanceRow._make(row) for row in connection.execute(query, (*values, where.limit))]

    # Timers
    def due_timers(self, now: int, limit: int) -> Sequence[TimerRow]:
        query = f"SELECT {_columns(TimerRow)} FROM timers WHERE due_at <= ? ORDER BY due_at LIMIT ?"
        with self.datastore.read() as connection:
            return [TimerRow._make(row) for row in connection.execute(query, (now, limit))]

    def next_timer_at(self) -> int | None:
        with self.datastore.read() as connection:
            return connection.execute("SELECT min(due_at) FROM timers").fetchone()[0]  # type: ignore[no-any-return]

    def select_timers(self, instance_id: str) -> Sequence[TimerRow]:
        query = f"SELECT {_columns(TimerRow)} FROM timers WHERE instance_id = ? ORDER BY due_at"
        with self.datastore.read() as connection:
            return [TimerRow._make(row) for row in connection.execute(query, (instance_id,))]

    # Effects
    def claim_effects(
        self, now: int, limit: int, *, names: Sequence[str], kinds: Sequence[str], lease_ns: int
    ) -> Sequence[EffectRow]:
        queues = _queues(names, kinds)
        if not queues:
            return ()
        due = " UNION ALL ".join(
            f"SELECT * FROM (SELECT rowid AS number, due_at FROM effects WHERE {_OPEN} AND {_QUEUE} AND due_at <= ?"
            f" ORDER BY due_at LIMIT ?)"
            for _ in queues
        )
        claim = (
            "UPDATE effects SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, due_at = ?"
            f" WHERE rowid IN (SELECT number FROM ({due}) ORDER BY due_at LIMIT ?)"
            f" RETURNING {_columns(EffectRow)}"
        )
        values = [value for queue in queues for value in (*queue, now, limit)]
        with self.datastore.write() as connection:
            rows = connection.execute(claim, (now + lease_ns, *values, limit)).fetchall()
        return [EffectRow._make(row) for row in rows]

    def retry_effect(self, effect_id: str, lease_epoch: int, due_at: int, error: str) -> bool:
        retry = (
            "UPDATE effects SET state = 'pending', due_at = ?, error = ?"
            " WHERE instance_id = ? AND effect_id = ? AND lease_epoch = ? AND state = 'running'"
        )
        with self.datastore.write() as connection:
            key = (_instance_of(effect_id), effect_id, lease_epoch)
            return connection.execute(retry, (due_at, error, *key)).rowcount == 1

    def release_effects(self) -> int:
        # due_at of a running effect is the end of its lease; 0 is past by any clock.
        with self.datastore.write() as connection:
            release = "UPDATE effects SET state = 'pending', due_at = 0 WHERE state = 'running' AND " + _OPEN
            return connection.execute(release).rowcount

    def next_effect_at(self, *, names: Sequence[str], kinds: Sequence[str]) -> int | None:
        queues = _queues(names, kinds)
        if not queues:
            return None
        query = " UNION ALL ".join(f"SELECT min(due_at) FROM effects WHERE {_OPEN} AND {_QUEUE}" for _ in queues)
        with self.datastore.read() as connection:
            rows = connection.execute(query, [value for queue in queues for value in queue]).fetchall()
        return min((row[0] for row in rows if row[0] is not None), default=None)

    def select_effects(self, instance_id: str) -> Sequence[EffectRow]:
        query = f"SELECT {_columns(EffectRow)} FROM effects WHERE instance_id = ? ORDER BY rowid"
        with self.datastore.read() as connection:
            return [EffectRow._make(row) for row in connection.execute(query, (instance_id,))]

    # Definitions
    def insert_definition(self, row: DefinitionRow) -> None:
        with self.datastore.write() as connection:
            query = "SELECT digest FROM definitions WHERE name = ? AND version = ?"
            known = connection.execute(query, (row.name, row.version)).fetchone()
            if known is None:
                insert = f"INSERT INTO definitions ({_columns(DefinitionRow)}) VALUES (?, ?, ?, ?)"
                connection.execute(insert, row)
            elif known[0] != row.digest:
                raise IntegrityError(
                    f"definition '{row.name}' version '{row.version}' is stored with digest {known[0]}, "
                    f"expected the same, got {row.digest}"
                )

    def select_definition(self, name: str, version: str) -> DefinitionRow | None:
        query = f"SELECT {_columns(DefinitionRow)} FROM definitions WHERE name = ? AND version = ?"
        with self.datastore.read() as connection:
            row = connection.execute(query, (name, version)).fetchone()
        return DefinitionRow._make(row) if row else None

    def select_definitions(self) -> Sequence[DefinitionRow]:
        with self.datastore.read() as connection:
            rows = connection.execute(f"SELECT {_columns(DefinitionRow)} FROM definitions ORDER BY number")
            return [DefinitionRow._make(row) for row in rows]

    # Parked messages
    def park(self, row: ParkedRow) -> None:
        with self.datastore.write() as connection:
            insert = f"INSERT OR IGNORE INTO parked ({_columns(ParkedRow)}) VALUES (?, ?, ?, ?, ?, ?)"
            connection.execute(insert, row)

    def select_parked(self, limit: int) -> Sequence[ParkedRow]:
        with self.datastore.read() as connection:
            rows = connection.execute(f"SELECT {_columns(ParkedRow)} FROM parked ORDER BY number LIMIT ?", (limit,))
            return [ParkedRow._make(row) for row in rows]

    @property
    def partitions(self) -> int:
        if self._partitions is None:
            with self.datastore.read() as connection:
                query = "SELECT value FROM meta WHERE key = 'partitions'"
                self._partitions = int(connection.execute(query).fetchone()[0])
        return self._partitions


_MAX = 2**63 - 1


def _write_changes(connection: sqlite3.Connection, changes: Changes) -> None:
    many = connection.executemany
    many(_insert("inbox", InboxRow), changes.inbox)
    many(_UPSERT_INSTANCE, changes.instances)
    many("DELETE FROM timers WHERE instance_id = ? AND timer_id = ?", changes.timers_cleared)
    many(_insert("timers", TimerRow).replace("INSERT", "INSERT OR REPLACE"), changes.timers_set)
    many(_insert("effects", EffectRow), changes.effects_requested)
    many(
        "UPDATE effects SET state = ?, error = ? WHERE instance_id = ? AND effect_id = ?",
        [(state, error, _instance_of(effect_id), effect_id) for state, error, effect_id in changes.effects_ended],
    )
    closed = [(instance_id,) for instance_id in changes.instances_closed]
    many("DELETE FROM timers WHERE instance_id = ?", closed)
    many(f"UPDATE effects SET state = 'cancelled' WHERE instance_id = ? AND {_OPEN}", closed)


def _columns(row: type[Any]) -> str:
    return ", ".join(row._fields)


def _insert(table: str, row: type[Any]) -> str:
    return f"INSERT INTO {table} ({_columns(row)}) VALUES ({', '.join('?' * len(row._fields))})"


_UPSERT_INSTANCE = (
    _insert("instances", InstanceRow)
    + " ON CONFLICT (id) DO UPDATE SET status = excluded.status, configuration = excluded.configuration,"
    " context = excluded.context, sequence = excluded.sequence, updated_at = excluded.updated_at,"
    " ended_at = excluded.ended_at, error = excluded.error"
)


def _queues(names: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, str]]:
    return [("perform", name) for name in names] + [(kind, "") for kind in kinds if kind != "perform"]


def _instance_of(effect_id: str) -> str:
    """An effect's id is instance-sequence-index."""
    return effect_id.rsplit("-", 2)[0]


def _among(column: str, values: Sequence[str]) -> str:
    return f"AND {column} IN ({', '.join('?' * len(values))})" if values else ""


def _as_text(state: bytes) -> str | bytes:
    try:
        return state.decode()
    except UnicodeDecodeError:
        return state
