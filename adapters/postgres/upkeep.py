"""What happens to a store beside its daily work, as SQL: parking, pruning, restoring.

Each function works in the transaction that is open on the cursor it is given. Invariants: rows are locked in the order
in which a batch does (an instance before what belongs to it, instances by their ids), so that workers wait for each
other rather than block each other; a tombstone's position is drawn under the lock on positions, like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent

from statewright.adapters.postgres.arrays import Integers, Texts, columns_of
from statewright.adapters.postgres.batch import POSITIONS_LOCK, event_columns
from statewright.adapters.postgres.schema import OPEN, TRANSIENT, columns
from statewright.engine.ids import instance_of
from statewright.engine.recorder import EffectRow, EndedFilter, InboxRow, InstanceRow, ParkedRow, TimerRow
from statewright.engine.steps import StepRow

Cursor = psycopg.Cursor[tuple[Any, ...]]

_BUSY = (
    "EXISTS (SELECT 1 FROM effects WHERE instance_id = {0}.id AND state = ANY(ARRAY['pending', 'running', 'parked']))"
)
_NEEDED = f"({{0}}.ended_at IS NULL OR {_BUSY})"
_ENDED = f"""SELECT {columns(InstanceRow)} FROM instances AS own
    WHERE status = %s AND id > %s AND ended_at < %s AND (%s::text IS NULL OR definition = %s)
    AND NOT {_BUSY.format("own")}
    AND NOT EXISTS (SELECT 1 FROM instances AS parent WHERE parent.id = own.parent AND {_NEEDED.format("parent")})
    AND NOT EXISTS (SELECT 1 FROM instances AS child WHERE child.parent = own.id AND {_NEEDED.format("child")})
    ORDER BY id LIMIT %s"""

_PRUNED = """WITH gone AS MATERIALIZED (
        SELECT instances.id FROM unnest(%s, %s) AS given(id, sequence)
        JOIN instances ON instances.id = given.id AND instances.sequence = given.sequence
        WHERE instances.ended_at IS NOT NULL ORDER BY instances.id FOR UPDATE OF instances)
    DELETE FROM instances USING gone WHERE instances.id = gone.id RETURNING instances.id"""
_OWNED = (
    ("inbox", "instance_id"),
    ("timers", "instance_id"),
    ("effects", "instance_id"),
    ("steps", "instance_id"),
    ("stored_snapshots", "originator_id"),
    ("stored_events", "originator_id"),
)
_EVENT = "originator_id, originator_version, topic, state"
_TOMBSTONES = f"""INSERT INTO stored_events ({_EVENT}) SELECT {_EVENT}
    FROM unnest(%s, %s, %s, %s) WITH ORDINALITY AS given({_EVENT}, place) ORDER BY place"""
_RESTORED = f"INSERT INTO stored_events ({_EVENT}, notification_id) SELECT * FROM unnest(%s, %s, %s, %s, %s)"


def park(cursor: Cursor, row: ParkedRow, timer: tuple[str, str] | None, effect_id: str | None) -> None:
    _insert(cursor, "parked", ParkedRow, [row], "ON CONFLICT (parked_id) DO NOTHING")
    if timer is not None:
        cursor.execute("DELETE FROM timers WHERE instance_id = %s AND timer_id = %s", timer)
    if effect_id is not None:
        cursor.execute(
            f"UPDATE effects SET state = 'parked', error = %s WHERE instance_id = %s AND effect_id = %s AND {OPEN}",
            (row.reason, instance_of(effect_id), effect_id),
        )


def unpark(cursor: Cursor, parked_id: str, timer: TimerRow | None, effect_id: str | None, effect_state: str) -> bool:
    cursor.execute("DELETE FROM parked WHERE parked_id = %s RETURNING parked_id", (parked_id,))
    if not cursor.fetchall():
        return False
    if timer is not None:
        _insert(cursor, "timers", TimerRow, [timer], "ON CONFLICT (instance_id, timer_id) DO NOTHING")
    if effect_id is not None:
        _unpark_effect(cursor, effect_id, effect_state)
    return True


def _unpark_effect(cursor: Cursor, effect_id: str, state: str) -> None:
    instance_id = instance_of(effect_id)
    # A worker that is just cancelling the instance spares what is parked, so that is waited for.
    cursor.execute("SELECT status FROM instances WHERE id = %s FOR SHARE", (instance_id,))
    over = cursor.fetchall() == [("cancelled",)]
    anew = state == "pending"
    cursor.execute(
        f"UPDATE effects SET state = CASE WHEN %s AND {TRANSIENT} THEN 'cancelled' ELSE %s END,"
        " attempt = CASE WHEN %s THEN 0 ELSE attempt END, due_at = 0"
        " WHERE instance_id = %s AND effect_id = %s AND state = 'parked'",
        (anew and over, state, anew, instance_id, effect_id),
    )


def select_ended(connection: psycopg.Connection[tuple[Any, ...]], where: EndedFilter) -> list[InstanceRow]:
    values = (where.status, where.after or "", where.ended_before, where.definition, where.definition, where.limit)
    return [InstanceRow._make(row) for row in connection.execute(_ENDED.encode(), values)]


def prune(cursor: Cursor, tombstones: Sequence[StoredEvent]) -> list[str]:
    wanted = {str(tombstone.originator_id): tombstone for tombstone in tombstones}
    sequences = [tombstone.originator_version - 1 for tombstone in wanted.values()]
    # Instances first: who is about to record something about one either has done so when this returns, and it is left,
    # or finds the tombstone in its way.
    cursor.execute(_PRUNED, (Texts(wanted), Integers(sequences)))
    gone = {row[0] for row in cursor.fetchall()}
    pruned = [instance_id for instance_id in wanted if instance_id in gone]
    if pruned:
        for table, column in _OWNED:
            cursor.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)".encode(), (Texts(pruned),))
        cursor.execute(f"SELECT {POSITIONS_LOCK}".encode())
        cursor.execute(_TOMBSTONES.encode(), event_columns([wanted[instance_id] for instance_id in pruned]))
    return pruned


def restore(
    cursor: Cursor,
    row: InstanceRow,
    events: Sequence[Notification],
    inbox: Sequence[InboxRow],
    effects: Sequence[EffectRow],
    steps: Sequence[StepRow],
) -> None:
    cursor.execute(
        "DELETE FROM stored_events WHERE originator_id = %s AND originator_version = %s AND topic = 'instance_pruned'"
        " RETURNING notification_id",
        (row.id, row.sequence + 1),
    )
    if not cursor.fetchall():
        raise IntegrityError(f"expected instance '{row.id}' to have been pruned from this store at {row.sequence}")
    for table, kind, rows in (("inbox", InboxRow, inbox), ("instances", InstanceRow, [row])):
        _insert(cursor, table, kind, rows)
    _insert(cursor, "effects", EffectRow, effects, "ORDER BY place")  # Which number them as they were asked for.
    _insert(cursor, "steps", StepRow, steps)
    cursor.execute(_RESTORED.encode(), (*event_columns(events), Integers([event.id for event in events])))


def _insert(cursor: Cursor, table: str, kind: type[Any], rows: Sequence[tuple[Any, ...]], clause: str = "") -> None:
    if not rows:
        return
    names = columns(kind)
    arrays = ", ".join(["%s"] * len(kind._fields))
    insert = (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM unnest({arrays}) WITH ORDINALITY AS given({names}, place)"
    )
    cursor.execute(f"{insert} {clause}".encode(), columns_of(kind, rows))
