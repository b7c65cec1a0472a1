"""What is to be recorded: decisions as pure functions from facts known to facts new.

    decide(instance, step, trigger, now) -> fact

Nothing here performs anything. `now` is what the clock says, nanoseconds UTC, and clocks are set back: so a fact of an
instance is never older than the one before it, whatever the clock says, while timers are due by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statewright.engine.events import (
    ENDED,
    EventDeferred,
    EventDiscarded,
    EventRefused,
    EventSent,
    Fact,
    InstanceCancelled,
    InstanceFailed,
    InstancePaused,
    InstanceResumed,
    InstanceStarted,
    ParentLink,
    PendingTimer,
    TransitionTaken,
    Trigger,
)
from statewright.engine.instance import Instance, effect_of
from statewright.engine.relatives import asked_while_stopping, at_the_end, effects_of, sent_on, with_relatives
from statewright.statecharts.facts import Step, TimerCancelled, TimerSet
from statewright.statecharts.splices import Splice

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
    parent: ParentLink | None = None,
    bound: tuple[str, ...] = (),
) -> InstanceStarted:
    """The first fact. `definition` is (name, version, digest), `given` the caller's context, `step` the entry, `bound`
    the states whose late data was bound in it."""
    name, version, digest = definition
    timers_set, timers_cancelled = timer_changes(step, now, {})
    fact = InstanceStarted(
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
        effects=effects_of(instance_id, 1, step),
        raised=step.raised,
        logs=step.logs,
        steps=step.records,
        serial=step.snapshot.serial,
        parent=parent,
        status=step.status,
        output=step.output,
        error=step.error,
    )
    if step.requests or parent is not None or bound:
        return with_relatives(fact, step, parent, {}, bound)
    return fact


def decide(
    instance: Instance,
    step: Step,
    configuration: tuple[str, ...],
    trigger: Trigger,
    *,
    now: int,
    bound: tuple[str, ...] = (),
    configuration_changes: tuple[Splice, ...] | None = None,
) -> TransitionTaken | EventRefused | EventDiscarded:
    """One macrostep is one fact. `configuration` names the active states of `step.snapshot` (or is empty and
    `configuration_changes` says how they differ from those before), `bound` those whose late data was bound in it."""
    sequence = instance.sequence + 1
    if step.reason:
        return _unchanged(instance, trigger, step, sequence, now)
    timers_set, timers_cancelled = timer_changes(step, now, instance.timers) if step.timers else _NO_TIMERS
    fact = TransitionTaken(
        instance_id=instance.id,
        sequence=sequence,
        time=next_time(instance, now),
        trigger=trigger,
        configuration=configuration,
        configuration_changes=configuration_changes,
        taken=step.taken,
        exited=step.exited,
        entered=step.entered,
        guards=step.guards,
        context=step.context,
        history=step.history,
        timers_set=timers_set,
        timers_cancelled=timers_cancelled,
        effects=effects_of(instance.id, sequence, step) if step.effects else (),
        raised=step.raised,
        logs=step.logs,
        steps=step.records,
        serial=step.snapshot.serial,
        status=step.status,
        output=step.output,
        error=step.error,
        effects_cancelled=cancelled_effects(instance, trigger, step.exited, step.status)
        if instance.cancellable
        else (),
    )
    if step.requests or instance.children or instance.parent is not None or bound:
        return with_relatives(fact, step, instance.parent, instance.children, bound)
    return fact


def decide_without_step(instance: Instance, trigger: Trigger, *, now: int) -> Fact | None:
    """The fact when the chart needn't be asked: the instance has ended, or is paused. None when it must be."""
    if instance.status == "active":
        return None
    sequence = instance.sequence + 1
    if instance.status == "paused":
        return EventDeferred(instance_id=instance.id, sequence=sequence, time=next_time(instance, now), trigger=trigger)
    reason = f"instance '{instance.id}' is {instance.status}"
    fact = EventRefused if trigger.kind == "event" else EventDiscarded
    return fact(
        instance_id=instance.id, sequence=sequence, time=next_time(instance, now), trigger=trigger, reason=reason
    )


def decide_sent(instance: Instance, trigger: Trigger, *, now: int) -> EventSent:
    """A delayed event is due that goes to another instance."""
    effects = sent_on(instance, trigger)
    sequence = instance.sequence + 1
    return EventSent(
        instance_id=instance.id, sequence=sequence, time=next_time(instance, now), trigger=trigger, effects=effects
    )


def decide_discarded(instance: Instance, trigger: Trigger, reason: str, *, now: int) -> EventDiscarded:
    """Something arrived that the instance no longer waits for."""
    sequence = instance.sequence + 1
    return EventDiscarded(
        instance_id=instance.id, sequence=sequence, time=next_time(instance, now), trigger=trigger, reason=reason
    )


def decide_control(instance: Instance, action: str, *, reason: str, actor: str, now: int) -> Fact | str:
    """The fact of a lifecycle request ("pause", "resume", "cancel"), or why it is refused."""
    sequence = instance.sequence + 1
    status = instance.status
    if status in ENDED:
        return f"instance '{instance.id}' is {status}"
    if action == "pause":
        if status == "paused":
            return f"instance '{instance.id}' is paused already"
        return InstancePaused(
            instance_id=instance.id, sequence=sequence, time=next_time(instance, now), reason=reason, actor=actor
        )
    if action == "resume":
        if status != "paused":
            return f"instance '{instance.id}' is not paused, it is {status}"
        return InstanceResumed(
            instance_id=instance.id, sequence=sequence, time=next_time(instance, now), reason=reason, actor=actor
        )
    if action == "cancel":
        told = f"instance '{instance.id}' was cancelled" + (f": {reason}" if reason else "")
        return InstanceCancelled(
            instance_id=instance.id,
            sequence=sequence,
            time=next_time(instance, now),
            reason=reason,
            actor=actor,
            effects=at_the_end(instance, told),
        )
    return f"expected action 'pause', 'resume' or 'cancel', got {action!r}"


def decide_failure(instance: Instance, trigger: Trigger, error: str, *, now: int) -> InstanceFailed:
    """An error that nothing in the chart handles ends the instance."""
    effects = at_the_end(instance, error)
    return InstanceFailed(
        instance_id=instance.id,
        sequence=instance.sequence + 1,
        time=next_time(instance, now),
        error=error,
        trigger=trigger,
        effects=effects,
        effects_cancelled=cancelled_effects(instance, trigger, (), "failed"),
    )


def decide_stopped(instance: Instance, step: Step, *, now: int) -> InstanceCancelled:
    """The parent has left the state that invoked `instance`; `step` is what its exit actions did."""
    return InstanceCancelled(
        instance_id=instance.id,
        sequence=instance.sequence + 1,
        time=next_time(instance, now),
        reason="its parent no longer needs it",
        context=step.context,
        effects=asked_while_stopping(instance, step),
        logs=step.logs,
    )


def next_time(instance: Instance, now: int) -> int:
    """The time of the instance's next fact."""
    return now if now > instance.updated_at else instance.updated_at


def _unchanged(
    instance: Instance, trigger: Trigger, step: Step, sequence: int, now: int
) -> EventRefused | EventDiscarded:
    fact = EventRefused if trigger.kind == "event" else EventDiscarded
    return fact(
        instance_id=instance.id,
        sequence=sequence,
        time=next_time(instance, now),
        trigger=trigger,
        reason=step.reason,
        guards=step.guards,
    )


def cancelled_effects(
    instance: Instance, trigger: Trigger | None, exited: tuple[str, ...], status: str
) -> tuple[str, ...]:
    """The effects that are no longer waited for: the state that they were asked for in is left, at the end all are.
    One whose result is here, or waits to be applied, has been performed."""
    cancellable = instance.cancellable
    left = cancellable if status in ENDED else dict.fromkeys(state for state in exited if state in cancellable)
    if not left:
        return ()
    results = instance.deferred if trigger is None else (trigger, *instance.deferred)
    performed = {effect_of(result) for result in results if result.kind == "effect"}
    return tuple(effect_id for state in left for effect_id in cancellable[state] if effect_id not in performed)


def timer_changes(
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
    due_at = now + timer.delay_ns
    return PendingTimer(timer.timer_id, timer.event, due_at, timer.data, timer.sendid, timer.origintype, timer.target)
