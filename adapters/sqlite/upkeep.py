"""What happens to a store beside its daily work, as SQL: parking, pruning, restoring.

Each function works in the transaction that is open on the connection it is given.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent

from statewright.adapters.sqlite.batch import is_text
from statewright.adapters.sqlite.schema import OPEN, TRANSIENT, columns
from statewright.engine.ids import instance_of
from statewright.engine.recorder import EffectRow, EndedFilter, InboxRow, InstanceRow, ParkedRow, TimerRow
from statewright.engine.steps import StepRow

_UNDONE = "('pending', 'running', 'parked')"
_BUSY = f"EXISTS (SELECT 1 FROM effects WHERE instance_id = {{0}}.id AND state IN {_UNDONE})"
_NEEDED = f"({{0}}.ended_at IS NULL OR {_BUSY})"

_ENDED = (
    f"SELECT {columns(InstanceRow)} FROM instances AS own WHERE status = ? AND id > ? AND ended_at < ?"
    " AND (?4 IS NULL OR definition = ?4)"
    f" AND NOT {_BUSY.format('own')}"
    f" AND NOT EXISTS (SELECT 1 FROM instances AS parent WHERE id = own.parent AND {_NEEDED.format('parent')})"
    f" AND NOT EXISTS (SELECT 1 FROM instances AS child WHERE parent = own.id AND {_NEEDED.format('child')})"
    " ORDER BY id LIMIT ?5"
)
_EVENT = "INSERT INTO stored_events (id, originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?, ?)"
_OWNED = (
    ("stored_events", "originator_id"),
    ("stored_snapshots", "originator_id"),
    ("inbox", "instance_id"),
    ("effects", "instance_id"),
    ("steps", "instance_id"),
    ("timers", "instance_id"),
)


def park(connection: sqlite3.Connection, row: ParkedRow, timer: tuple[str, str] | None, effect_id: str | None) -> None:
    connection.execute(f"INSERT OR IGNORE INTO parked ({columns(ParkedRow)}) VALUES (?, ?, ?, ?, ?, ?)", row)
    if timer is not None:
        connection.execute("DELETE FROM timers WHERE instance_id = ? AND timer_id = ?", timer)
    if effect_id is not None:
        connection.execute(
            f"UPDATE effects SET state = 'parked', error = ? WHERE instance_id = ? AND effect_id = ? AND {OPEN}",
            (row.reason, instance_of(effect_id), effect_id),
        )


def unpark(
    connection: sqlite3.Connection, parked_id: str, timer: TimerRow | None, effect_id: str | None, effect_state: str
) -> bool:
    if not connection.execute("DELETE FROM parked WHERE parked_id = ?", (parked_id,)).rowcount:
        return False
    if timer is not None:
        connection.execute(f"INSERT OR IGNORE INTO timers ({columns(TimerRow)}) VALUES (?, ?, ?, ?, ?)", timer)
    if effect_id is not None:
        over = "(SELECT status FROM instances WHERE id = instance_id) = 'cancelled'"
        connection.execute(
            f"UPDATE effects SET state = iif(?1 = 'pending' AND {TRANSIENT} AND {over}, 'cancelled', ?1),"
            " attempt = iif(?1 = 'pending', 0, attempt), due_at = 0"
            " WHERE instance_id = ?2 AND effect_id = ?3 AND state = 'parked'",
            (effect_state, instance_of(effect_id), effect_id),
        )
    return True


def select_ended(connection: sqlite3.Connection, where: EndedFilter) -> list[InstanceRow]:
    values = (where.status, where.after or "", where.ended_before, where.definition, where.limit)
    return [InstanceRow._make(row) for row in connection.execute(_ENDED, values)]


def prune(connection: sqlite3.Connection, position: int, tombstones: Iterable[StoredEvent]) -> list[str]:
    """The tombstones get the positions from `position` on."""
    pruned: list[str] = []
    for tombstone in tombstones:
        instance_id = str(tombstone.originator_id)
        expected = (instance_id, tombstone.originator_version - 1)
        delete = "DELETE FROM instances WHERE id = ? AND sequence = ? AND ended_at IS NOT NULL"
        if not connection.execute(delete, expected).rowcount:
            continue
        for table, column in _OWNED:
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (instance_id,))
        connection.execute(_EVENT, (position + len(pruned), *_columns(tombstone)))
        pruned.append(instance_id)
    return pruned


def restore(
    connection: sqlite3.Connection,
    row: InstanceRow,
    events: Sequence[Notification],
    inbox: Sequence[InboxRow],
    effects: Sequence[EffectRow],
    steps: Sequence[StepRow],
) -> None:
    connection.execute(
        "DELETE FROM stored_events WHERE originator_id = ? AND originator_version = ? AND topic = 'instance_pruned'",
        (row.id, row.sequence + 1),
    )
    if not connection.execute("SELECT changes()").fetchone()[0]:
        raise IntegrityError(f"expected instance '{row.id}' to have been pruned from this store at {row.sequence}")
    connection.executemany(_EVENT, [(event.id, *_columns(event)) for event in events])
    for table, kind, rows in (
        ("instances", InstanceRow, [row]),
        ("inbox", InboxRow, inbox),
        ("effects", EffectRow, effects),
        ("steps", StepRow, steps),
    ):
        places = ", ".join("?" * len(kind._fields))
        connection.executemany(f"INSERT INTO {table} ({columns(kind)}) VALUES ({places})", rows)


def _columns(event: StoredEvent) -> tuple[str, int, str, str | bytes]:
    state = event.state.decode() if is_text(event.state) else event.state
    return str(event.originator_id), event.originator_version, event.topic, state
