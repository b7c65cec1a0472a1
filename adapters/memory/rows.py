"""What a database knows about rows: which fit a query, which it refuses, how a moment of a table is kept. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

import msgspec
from eventsourcing.persistence import DataError, Notification, StoredEvent

from statewright.engine.recorder import Backlog, EffectRow, InstanceFilter, InstanceRow, ScheduleRow


def fits(row: InstanceRow, where: InstanceFilter) -> bool:
    return (
        (where.after is None or row.id > where.after)
        and where.definition in (None, row.definition)
        and where.status in (None, row.status)
        and (where.state is None or where.state in msgspec.json.decode(row.configuration))
    )


def located(position: int, event: StoredEvent) -> Notification:
    """An event with its position in the log."""
    return Notification(event.originator_id, event.originator_version, event.topic, event.state, id=position)


def progress(row: ScheduleRow) -> tuple[object, ...]:
    """How far a schedule is: what changes in its life."""
    return row.status, row.next_at, row.last_at, row.note


def backlogs(waiting: Iterable[EffectRow], now: int, limit: int) -> dict[str, Backlog]:
    """By queue, how many of these effects could be performed now, and how many there are."""
    found: dict[str, Backlog] = {}
    for row in waiting:
        queue = f"perform.{row.name}" if row.kind == "perform" else row.kind
        before = found.get(queue, Backlog(0, 0))
        found[queue] = Backlog(min(before.due + (row.due_at <= now), limit), min(before.open + 1, limit))
    return found


def refuse_nul(rows: Iterable[tuple[object, ...]]) -> None:
    """Raise `DataError` for a text with a NUL, as databases do."""
    for row in rows:
        for cell in row:
            if isinstance(cell, str) and "\0" in cell:
                raise DataError(f"expected text without NUL characters, got {cell[:100]!r}")


def copied(table: Any) -> Any:
    """A table that no longer changes: its rows are values, but it may be a table of tables."""
    found = copy(table)
    if isinstance(found, dict):
        found.update((key, copy(one)) for key, one in table.items() if isinstance(one, dict | list))
    return found
