"""What happens to a store in memory beside its daily work: parking, pruning, restoring.

Invariant: an event keeps its position; where one was erased there is `GONE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from eventsourcing.persistence import Notification, StoredEvent
from eventsourcing.popo import POPOAggregateRecorder

from statewright.engine.recorder import EffectRow, EndedFilter, InstanceRow
from statewright.engine.relatives import LASTING

GONE = StoredEvent("", 0, "", b"")
"""In the place of an event that was erased: this very object."""

ENDS = frozenset({"done", "failed"})
"""The states of effects that have ended with a result; an effect takes on one of them."""

_UNDONE = frozenset({"pending", "running", "parked"})


def unparked(effect: EffectRow, state: str, instance: InstanceRow | None) -> EffectRow:
    """A parked effect as it is afterwards, if `state` is what it is to be."""
    if state != "pending":
        return effect._replace(state=state, due_at=0)
    over = instance is not None and instance.status == "cancelled" and effect.kind not in LASTING
    return effect._replace(state="cancelled" if over else "pending", attempt=0, due_at=0)


def select_ended(
    instances: Mapping[str, InstanceRow], effects: Mapping[str, Sequence[EffectRow]], where: EndedFilter
) -> list[InstanceRow]:
    """`effects` by instance."""

    def is_busy(instance_id: str) -> bool:
        return any(row.state in _UNDONE for row in effects.get(instance_id, ()))

    def is_needed(instance_id: str | None) -> bool:
        row = instances.get(instance_id) if instance_id is not None else None
        return row is not None and (row.ended_at is None or is_busy(row.id))

    def fits(row: InstanceRow) -> bool:
        return (
            row.status == where.status
            and row.id > (where.after or "")
            and row.ended_at is not None
            and row.ended_at < where.ended_before
            and where.definition in (None, row.definition)
            and not is_busy(row.id)
            and not is_needed(row.parent)
            and not any(is_needed(_child(begun)) for begun in effects.get(row.id, ()) if begun.kind == "start")
        )

    return sorted(filter(fits, instances.values()))[: where.limit]


def _child(begun: EffectRow) -> str | None:
    """The instance that a "start" begins."""
    to: str | None = msgspec.json.decode(begun.data).get("to")
    return to


def erase_events(recorder: POPOAggregateRecorder, instance_id: str) -> None:
    for index in recorder._stored_events_index.pop(instance_id, {}).values():
        recorder._stored_events[index] = GONE


def put_back_events(recorder: POPOAggregateRecorder, events: Sequence[Notification]) -> None:
    """Each at its old position."""
    for event in events:
        place = event.id - 1
        recorder._stored_events[place] = StoredEvent(
            event.originator_id, event.originator_version, event.topic, event.state
        )
        recorder._stored_events_index[str(event.originator_id)][event.originator_version] = place
