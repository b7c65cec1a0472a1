"""One transaction as one call: a function of the session's own takes the rows of all tables, as arrays of columns.

Why: eight statements cost eight times psycopg's and the server's handling of a statement, with one event more than the
work itself. The function is made when the writing connection is, in its temporary schema, and goes with it: so it is
always that of the version that calls it, and no migration has to replace it under workers of another.

Invariants: positions in the log become visible in their order. The last statement takes an advisory lock, which is held
until the transaction has ended, and only then draws positions: so who sees a position sees all before it. Rows that two
writers might both want are written in the order of their keys, so that writers wait for each other rather than block
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from eventsourcing.persistence import StoredEvent

from statewright.adapters.postgres.arrays import Blobs, Column, Integers, Texts, columns_of, kinds_of
from statewright.adapters.postgres.schema import OPEN, TRANSIENT, columns
from statewright.engine.ids import instance_of
from statewright.engine.recorder import Changes, EffectRow, InboxRow, InstanceRow, Lease, TimerRow, last_ends
from statewright.engine.steps import StepRow, last_rows

_CONSTANT = frozenset({"id", "started_at", "parent"})
"""What an instance keeps for life."""

_LOCK_SPACE = 0x53547772
"""The space of our advisory locks; the key in it is the event table's oid: stores in one database don't meet."""

POSITIONS_LOCK = f"pg_advisory_xact_lock({_LOCK_SPACE}::bigint << 32 | 'stored_events'::regclass::oid::bigint)"
"""To be called by whoever adds to the log, before the statement that draws positions, and as late as can be."""


class _Cleared(NamedTuple):
    instance_id: str
    timer_id: str


class _Closed(NamedTuple):
    instance_id: str


class _Ended(NamedTuple):
    state: str
    error: str
    effect_id: str
    instance_id: str


class _Begun(NamedTuple):
    instance_id: str
    step: str


class _Event(NamedTuple):
    originator_id: str
    originator_version: int
    topic: str
    state: bytes


_INPUTS: dict[str, type[Any]] = {
    "held": Lease,
    "inbox": InboxRow,
    "instances": InstanceRow,
    "cleared": _Cleared,
    "timers": TimerRow,
    "closed": _Closed,
    "effects": EffectRow,
    "ended": _Ended,
    "begun": _Begun,
    "steps": StepRow,
    "events": _Event,
}
"""The rows that the function takes, by a name for their parameters: `inbox_source` is the array of that column."""


def _set(row: type[Any], but: frozenset[str]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in row._fields if name not in but)


def _given(what: str) -> str:
    """The rows of one table, as a FROM clause."""
    fields = _INPUTS[what]._fields
    arrays = ", ".join(f"{what}_{field}" for field in fields)
    return f"unnest({arrays}) WITH ORDINALITY AS given({', '.join(fields)}, place)"


def _insert(what: str, order: str) -> str:
    row = _INPUTS[what]
    given = ", ".join(f"given.{name}" for name in row._fields)
    return f"INSERT INTO {what} ({columns(row)}) SELECT {given} FROM {_given(what)} ORDER BY {order}"


def _if_any(what: str, *statements: str) -> str:
    return f"IF {what}_{_INPUTS[what]._fields[0]} IS NOT NULL THEN {'; '.join(statements)}; END IF;"


_STEPS_REPLACED = (
    "ON CONFLICT (instance_id, step) DO UPDATE SET status = excluded.status, sequence = excluded.sequence,"
    " started_at = coalesce(excluded.started_at, steps.started_at),"
    " ended_at = coalesce(excluded.ended_at, steps.ended_at)"
)
_TIMER_KEY = frozenset({"instance_id", "timer_id"})

_SAME_EFFECT = "effects.instance_id = given.instance_id AND effects.effect_id = given.effect_id"

_BODY = "\n".join(
    (
        _if_any("held", "PERFORM require_leases(held_name, held_owner, held_epoch)"),
        _if_any("inbox", _insert("inbox", "given.instance_id, given.source, given.event_id")),
        _if_any(
            "instances",
            f"{_insert('instances', 'given.id')} ON CONFLICT (id) DO UPDATE SET {_set(InstanceRow, _CONSTANT)}",
        ),
        _if_any(
            "cleared",
            f"DELETE FROM timers USING {_given('cleared')}"
            " WHERE timers.instance_id = given.instance_id AND timers.timer_id = given.timer_id",
        ),
        _if_any(
            "timers",
            f"{_insert('timers', 'given.instance_id, given.timer_id')}"
            f" ON CONFLICT (instance_id, timer_id) DO UPDATE SET {_set(TimerRow, _TIMER_KEY)}",
        ),
        _if_any(
            "closed",
            "DELETE FROM timers WHERE instance_id = ANY(closed_instance_id)",
            f"UPDATE effects SET state = 'cancelled' WHERE {OPEN} AND {TRANSIENT}"
            " AND instance_id = ANY(closed_instance_id)",
        ),
        _if_any("effects", _insert("effects", "given.place")),
        _if_any(
            "ended",
            f"UPDATE effects SET state = given.state, error = given.error FROM {_given('ended')}"
            f" WHERE {_SAME_EFFECT} AND effects.state <> ALL(ARRAY['done', 'failed'])",
            # After the UPDATE, which has waited for whoever was ending the same: this statement sees what became of it.
            f"IF EXISTS (SELECT 1 FROM effects, {_given('ended')} WHERE {_SAME_EFFECT}"
            " AND given.state = ANY(ARRAY['done', 'failed']) AND effects.state <> given.state)"
            " THEN RAISE EXCEPTION 'expected an effect that has not ended, or has ended so'"
            " USING ERRCODE = 'integrity_constraint_violation'; END IF",
        ),
        # A step that begins is another row: nothing of the one before is kept.
        _if_any(
            "begun",
            f"DELETE FROM steps USING {_given('begun')}"
            " WHERE steps.instance_id = given.instance_id AND steps.step = given.step",
        ),
        _if_any("steps", f"{_insert('steps', 'given.instance_id, given.step')} {_STEPS_REPLACED}"),
        _if_any(
            "events",
            f"PERFORM {POSITIONS_LOCK}",
            "RETURN QUERY INSERT INTO stored_events (originator_id, originator_version, topic, state)"
            " SELECT given.originator_id, given.originator_version, given.topic, given.state"
            f" FROM {_given('events')} ORDER BY given.place RETURNING notification_id",
        ),
    )
)
_SQL_TYPES = {Texts: "text[]", Integers: "bigint[]", Blobs: "bytea[]"}
_PARAMETERS = [
    f"{what}_{field} {_SQL_TYPES[kind]}"
    for what, row in _INPUTS.items()
    for field, kind in zip(row._fields, kinds_of(row), strict=True)
]
_FUNCTION = f"""CREATE FUNCTION pg_temp.write_batch({", ".join(_PARAMETERS)}) RETURNS SETOF bigint
    LANGUAGE plpgsql AS $$
    #variable_conflict use_column
    BEGIN
    {_BODY}
    END $$"""
_CALL = f"SELECT * FROM pg_temp.write_batch({', '.join(['%s'] * len(_PARAMETERS))})".encode()
_NOTHING: dict[type[Any], list[None]] = {row: [None] * len(row._fields) for row in _INPUTS.values()}


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make the function, which only `connection` sees and which goes when it closes."""
    connection.execute(_FUNCTION.encode())


def write(
    cursor: psycopg.Cursor[tuple[Any, ...]], events: Sequence[StoredEvent], changes: Changes, leases: Sequence[Lease]
) -> None:
    """Write all rows in one call; afterwards `cursor` has the positions of `events`."""
    values: list[Column | None] = []
    begun, going_on = last_rows(changes.steps)
    for row, rows in (
        (Lease, leases),
        (InboxRow, changes.inbox),
        (InstanceRow, changes.instances),
        (_Cleared, changes.timers_cleared),
        (TimerRow, changes.timers_set),
        (_Closed, [(instance_id,) for instance_id in changes.instances_closed]),
        (EffectRow, changes.effects_requested),
        (_Ended, [(*ended, instance_of(ended[2])) for ended in last_ends(changes.effects_ended)]),
        (_Begun, [row[:2] for row in begun]),
        (StepRow, [*begun, *going_on]),
    ):
        values += columns_of(row, rows) if rows else _NOTHING[row]
    values += event_columns(events) if events else _NOTHING[_Event]
    cursor.execute(_CALL, values, prepare=True)


def event_columns(events: Sequence[StoredEvent]) -> tuple[Texts, Integers, Texts, Blobs]:
    """The columns of stored events or snapshots."""
    return (
        Texts([event.originator_id for event in events]),
        Integers([event.originator_version for event in events]),
        Texts([event.topic for event in events]),
        Blobs([event.state for event in events]),
    )
