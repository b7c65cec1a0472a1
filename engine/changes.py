"""The rows that facts change, derived from facts and their fold alone: so rows always equal the fold."""

from __future__ import annotations

import msgspec

from statewright.engine.events import Fact, InstanceCancelled, RequestedEffect
from statewright.engine.instance import Instance
from statewright.engine.partitions import partition_of
from statewright.engine.recorder import Changes, EffectRow, InstanceRow, TimerRow
from statewright.engine.relatives import LASTING
from statewright.engine.steps import step_rows

_encode = msgspec.json.Encoder().encode


def instance_row(instance: Instance) -> InstanceRow:
    """The `instances` row of a folded instance."""
    return InstanceRow(
        instance.id,
        instance.definition,
        instance.version,
        instance.status,
        _encode(instance.configuration).decode(),
        _encode(instance.context).decode(),
        instance.sequence,
        instance.started_at,
        instance.updated_at,
        instance.ended_at,
        instance.digest,
        instance.error,
        instance.parent.instance_id if instance.parent is not None else None,
    )


def add_fact(changes: Changes, fact: Fact, partitions: int, now: int) -> None:
    """Add what one fact asks to be performed, or that nothing more is. `now` is what the clock says."""
    if isinstance(fact, InstanceCancelled):
        _close(changes, fact.instance_id)
    if getattr(fact, "effects", ()):
        changes.effects_requested.extend(effect_rows(fact, partitions, now))
    if getattr(fact, "steps", ()) or getattr(fact, "steps_restored", ()):
        changes.steps.extend(step_rows(fact))
    if cancelled := getattr(fact, "effects_cancelled", ()):
        changes.effects_ended.extend(("cancelled", "its state was left", effect_id) for effect_id in cancelled)


def _close(changes: Changes, instance_id: str) -> None:
    """What was asked for before is not to be performed any more; some of it may be in the same transaction."""
    changes.instances_closed.append(instance_id)
    changes.effects_requested = [
        row._replace(state="cancelled") if row.instance_id == instance_id and row.kind not in LASTING else row
        for row in changes.effects_requested
    ]


def effect_rows(fact: Fact, partitions: int, now: int) -> list[EffectRow]:
    """The rows of the effects that `fact` requests, due at once: by the clock, which may have been set back."""
    effects: tuple[RequestedEffect, ...] = getattr(fact, "effects", ())
    partition = partition_of(fact.instance_id, partitions)
    return [
        EffectRow(
            effect.effect_id,
            fact.instance_id,
            partition,
            effect.name,
            effect.kind,
            "pending",
            0,
            now,
            0,
            _encode(effect.data).decode(),
            "",
            _encode(effect.policy).decode() if effect.policy is not None else "",
        )
        for effect in effects
    ]


def add_instance(changes: Changes, before: Instance | None, after: Instance, partitions: int) -> None:
    """Add the instance's row and how its pending timers differ: once per instance and transaction, whatever the
    number of its facts."""
    changes.instances.append(instance_row(after))
    if before is not None and before.status == after.status:
        changes.statuses_kept.add(after.id)
    old = before.timers if before is not None else {}
    new = after.timers
    if old is new:
        return
    changes.timers_cleared.extend((after.id, timer_id) for timer_id in old if timer_id not in new)
    partition = partition_of(after.id, partitions)
    changes.timers_set.extend(
        TimerRow(after.id, timer.timer_id, timer.due_at, timer.event, partition)
        for timer in new.values()
        if old.get(timer.timer_id) is not timer
    )
