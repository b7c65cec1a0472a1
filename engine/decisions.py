"""What is to be recorded: decisions as pure functions from facts known to facts new.

    decide(instance, step, trigger, now) -> fact

Nothing here performs anything. `now` is nanoseconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statewright.engine.events import (
    ENDED,
    EventDeferred,
    EventDiscarded,
    EventRefused,
    Fact,
    InstanceCancelled,
    InstanceFailed,
    InstancePaused,
    InstanceResumed,
    InstanceStarted,
    PendingTimer,
    RequestedEffect,
    TransitionTaken,
    Trigger,
)
from statewright.engine.instance import Instance
from statewright.statecharts.facts import Effect, Step, TimerCancelled, TimerSet

_NO_TIMERS: tuple[tuple[PendingTimer, ...], tuple[str, ...]] = ((), ())


def decide_start(
    instance_id: str,
    definition: tuple[str, str, str],
    given: Mapping[str, Any],
    step: Step,
    configuration: tuple[str, ...],
    *,
    now: int,
    actor: str = "",
) -> InstanceStarted:
    """The first fact. `definition` is (name, version, digest), `given` the caller's context, `step` the entry."""
    name, version, digest = definition
    timers_set, timers_cancelled = _timers(step, now, {})
    return InstanceStarted(
        instance_id=instance_id,
        sequence=1,
        time=now,
        definition=name,
        version=version,
        digest=digest,
        input=given,
        actor=actor,
        configuration=configuration,
        taken=step.taken,
        exited=step.exited,
        entered=step.entered,
        guards=step.guards,
        context=step.context,
        history=step.history,
        timers_set=timers_set,
        timers_cancelled=timers_cancelled,
        effects=_effects(instance_id, 1, step.effects),
        raised=step.raised,
        logs=step.logs,
        serial=step.snapshot.serial,
        status=step.status,
        output=step.output,
        error=step.error,
    )


def decide(
    instance: Instance, step: Step, configuration: tuple[str, ...], trigger: Trigger, *, now: int
) -> TransitionTaken | EventRefused | EventDiscarded:
    """One macrostep is one fact. `configuration` names the active states of `step.snapshot`."""
    sequence = instance.sequence + 1
    if step.reason:
        return _unchanged(instance, trigger, step, sequence, now)
    timers_set, timers_cancelled = _timers(step, now, instance.timers) if step.timers else _NO_TIMERS
    return TransitionTaken(
        instance_id=instance.id,
        sequence=sequence,
        time=now,
        trigger=trigger,
        configuration=configuration,
        taken=step.taken,
        exited=step.exited,
        entered=step.entered,
        guards=step.guards,
        context=step.context,
        history=step.history,
        timers_set=timers_set,
        timers_cancelled=timers_cancelled,
        effects=_effects(instance.id, sequence, step.effects) if step.effects else (),
        raised=step.raised,
        logs=step.logs,
        serial=step.snapshot.serial,
        status=step.status,
        output=step.output,
        error=step.error,
    )


def decide_without_step(instance: Instance, trigger: Trigger, *, now: int) -> Fact | None:
    """The fact when the chart needn't be asked: the instance has ended, or is paused. None when it must be."""
    if instance.status == "active":
        return None
    sequence = instance.sequence + 1
    if instance.status == "paused":
        return EventDeferred(instance_id=instance.id, sequence=sequence, time=now, trigger=trigger)
    reason = f"instance '{instance.id}' is {instance.status}"
    fact = EventRefused if trigger.kind == "event" else EventDiscarded
    return fact(instance_id=instance.id, sequence=sequence, time=now, trigger=trigger, reason=reason)


def decide_control(instance: Instance, action: str, *, reason: str, actor: str, now: int) -> Fact | str:
    """The fact of a lifecycle request ("pause", "resume", "cancel"), or why it is refused."""
    sequence = instance.sequence + 1
    status = instance.status
    if status in ENDED:
        return f"instance '{instance.id}' is {status}"
    if action == "pause":
        if status == "paused":
            return f"instance '{instance.id}' is paused already"
        return InstancePaused(instance_id=instance.id, sequence=sequence, time=now, reason=reason, actor=actor)
    if action == "resume":
        if status != "paused":
            return f"instance '{instance.id}' is not paused, it is {status}"
        return InstanceResumed(instance_id=instance.id, sequence=sequence, time=now, reason=reason, actor=actor)
    if action == "cancel":
        return InstanceCancelled(instance_id=instance.id, sequence=sequence, time=now, reason=reason, actor=actor)
    return f"expected action 'pause', 'resume' or 'cancel', got {action!r}"


def decide_failure(instance: Instance, trigger: Trigger, error: str, *, now: int) -> InstanceFailed:
    """An error that nothing in the chart handles ends the instance."""
    return InstanceFailed(
        instance_id=instance.id, sequence=instance.sequence + 1, time=now, error=error, trigger=trigger
    )


def _unchanged(
    instance: Instance, trigger: Trigger, step: Step, sequence: int, now: int
) -> EventRefused | EventDiscarded:
    fact = EventRefused if trigger.kind == "event" else EventDiscarded
    return fact(
        instance_id=instance.id,
        sequence=sequence,
        time=now,
        trigger=trigger,
        reason=step.reason,
        guards=step.guards,
    )


def _timers(
    step: Step, now: int, known: Mapping[str, PendingTimer]
) -> tuple[tuple[PendingTimer, ...], tuple[str, ...]]:
    """What is pending because of this step, and what is no longer: the last word on each id counts."""
    pending: dict[str, PendingTimer] = {}
    cancelled: dict[str, None] = {}
    for change in step.timers:
        if isinstance(change, TimerCancelled):
            ids = [change.timer_id]
            if change.sendid:  # all sends of that id, however many there are
                ids = [t.timer_id for t in (*known.values(), *pending.values()) if t.sendid == change.sendid]
            for timer_id in ids:
                pending.pop(timer_id, None)
                cancelled[timer_id] = None
        else:
            pending.pop(change.timer_id, None)
            pending[change.timer_id] = _pending(change, now)
    return tuple(pending.values()), tuple(cancelled)


def _pending(timer: TimerSet, now: int) -> PendingTimer:
    return PendingTimer(timer.timer_id, timer.event, now + timer.delay_ns, timer.data, timer.sendid, timer.origintype)


def _effects(instance_id: str, sequence: int, effects: tuple[Effect, ...]) -> tuple[RequestedEffect, ...]:
    return tuple(
        RequestedEffect(f"{instance_id}-{sequence}-{index}", effect.name, effect.kind, effect.data, effect.state)
        for index, effect in enumerate(effects)
    )
