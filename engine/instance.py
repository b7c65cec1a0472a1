"""An instance: the state that its facts fold to.

Law: `evolve` is the only way to it, live and in replay alike. It reads no chart, no clock and no store, runs no user
code, and never fails on a fact that was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from statewright.engine.events import (
    ENDED,
    AnyFact,
    CheckpointTaken,
    ChildLink,
    EventDeferred,
    EventDiscarded,
    EventRefused,
    EventSent,
    Fact,
    InstanceCancelled,
    InstanceFailed,
    InstanceModified,
    InstancePaused,
    InstanceResumed,
    InstanceStarted,
    Macrostep,
    ParentLink,
    PendingTimer,
    RequestedEffect,
    Status,
    TransitionTaken,
    Trigger,
)
from statewright.statecharts.facts import Json
from statewright.statecharts.splices import spliced

_RESULT = "-result"


class Instance(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One workflow instance as of `sequence`.

    configuration: active states in document order (after completion, those before the final exit). timers: pending
    ones by id. deferred: triggers that wait while it is paused, in order. parent: who has invoked it. children: the
    active ones by the id of their invoke. bound: the states whose late-bound data has its values. cancellable: by
    state, the effects without a result that are cancelled when it is left. checkpoints: by name, the sequence of the
    fact that recorded each. Times are ns UTC.
    """

    id: str
    definition: str
    version: str
    digest: str
    status: Status
    configuration: tuple[str, ...]
    context: Mapping[str, Any]
    sequence: int
    started_at: int
    updated_at: int
    ended_at: int | None = None
    history: Mapping[str, tuple[str, ...]] = {}
    timers: Mapping[str, PendingTimer] = {}
    deferred: tuple[Trigger, ...] = ()
    serial: int = 0
    output: Json = None
    error: str = ""
    parent: ParentLink | None = None
    children: Mapping[str, ChildLink] = {}
    bound: tuple[str, ...] = ()
    cancellable: dict[str, tuple[str, ...]] = {}
    checkpoints: Mapping[str, int] = {}


def evolve(instance: Instance | None, fact: Fact) -> Instance:
    """The instance after `fact`. `instance` is None for the first fact only."""
    if instance is None:
        if not isinstance(fact, InstanceStarted):
            raise ValueError(f"expected the first fact to be instance_started, got {type(fact).__name__} of {fact}")
        return _started(fact)
    if isinstance(fact, TransitionTaken):
        return _moved(instance, fact)
    if isinstance(fact, EventRefused | EventDiscarded | EventSent):
        return _noted(instance, fact)
    if isinstance(fact, InstanceModified):
        return _modified(instance, fact)
    if isinstance(fact, EventDeferred):
        return replace(_noted(instance, fact), deferred=(*instance.deferred, fact.trigger))
    return _lifecycle(instance, fact)


def fold(facts: Iterable[AnyFact], instance: Instance | None = None) -> Instance | None:
    """`evolve` over `facts` in order."""
    for fact in facts:
        instance = evolve(instance, fact)
    return instance


def configuration_after(before: tuple[str, ...], fact: Macrostep) -> tuple[str, ...]:
    """All active states after `fact`, in document order; `before` are those before it."""
    changes = fact.configuration_changes
    return fact.configuration if changes is None else spliced(before, changes)


def _started(fact: InstanceStarted) -> Instance:
    ended = fact.status in ENDED
    return Instance(
        id=fact.instance_id,
        definition=fact.definition,
        version=fact.version,
        digest=fact.digest,
        status=fact.status,
        configuration=fact.configuration,
        context=fact.context,
        sequence=fact.sequence,
        started_at=fact.time,
        updated_at=fact.time,
        ended_at=fact.time if ended else None,
        history=fact.history,
        timers={} if ended else {timer.timer_id: timer for timer in fact.timers_set},
        serial=fact.serial,
        output=fact.output,
        error=fact.error,
        parent=fact.parent,
        children={child.invokeid: child for child in fact.children_started},
        bound=fact.bound,
        cancellable={} if ended else _cancellable(fact.effects),
    )


def _moved(instance: Instance, fact: TransitionTaken) -> Instance:
    ended = fact.status in ENDED
    return Instance(
        instance.id,
        instance.definition,
        instance.version,
        instance.digest,
        fact.status,
        fact.configuration if fact.configuration_changes is None else configuration_after(instance.configuration, fact),
        {**instance.context, **fact.context} if fact.context else instance.context,
        fact.sequence,
        instance.started_at,
        fact.time,
        fact.time if ended else None,
        {**instance.history, **fact.history} if fact.history else instance.history,
        {} if ended else _timers(instance, fact),
        _deferred_after(instance, fact),
        fact.serial,
        fact.output,
        fact.error,
        instance.parent,
        _children(instance, fact) if fact.children_started or fact.children_ended else instance.children,
        instance.bound + fact.bound,
        _still_cancellable(instance, fact) if instance.cancellable or fact.effects else instance.cancellable,
        instance.checkpoints,
    )


def _modified(instance: Instance, fact: InstanceModified) -> Instance:
    """Elsewhere, and if it had ended begun again: what it was asked and told before is still as it was."""
    ended = fact.status in ENDED
    moved = replace(
        instance,
        definition=fact.definition,
        version=fact.version,
        digest=fact.digest,
        status=fact.status,
        configuration=fact.configuration,
        context=fact.context,
        sequence=fact.sequence,
        updated_at=fact.time,
        ended_at=fact.time if ended else None,
        history=fact.history,
        timers={} if ended else _timers(instance, fact),
        deferred=_without_left(instance, fact, instance.deferred),
        serial=fact.serial,
        output=fact.output,
        error=fact.error,
    )
    children, cancellable = _children(instance, fact), _still_cancellable(instance, fact)
    return replace(moved, children=children, bound=fact.bound, cancellable=cancellable)


def _cancellable(effects: tuple[RequestedEffect, ...]) -> dict[str, tuple[str, ...]]:
    return _with({}, effects)


def _with(cancellable: dict[str, tuple[str, ...]], effects: tuple[RequestedEffect, ...]) -> dict[str, tuple[str, ...]]:
    for effect in effects:
        if effect.policy is not None and (until := effect.policy.until):
            cancellable[until] = (*cancellable.get(until, ()), effect.effect_id)
    return cancellable


def _still_cancellable(instance: Instance, fact: TransitionTaken | InstanceModified) -> dict[str, tuple[str, ...]]:
    if fact.status in ENDED:
        return {}
    after = instance.cancellable.copy()  # Ten times as fast as dict(...) where keys have been removed: it keeps gaps.
    left = [effect_id for state in fact.exited for effect_id in after.pop(state, ())]
    after = _with(after, fact.effects)
    if (
        isinstance(fact, InstanceModified)
        or fact.trigger.kind != "effect"
        or (performed := effect_of(fact.trigger)) in left
    ):
        return after  # As a rule the result is what its state waited for.
    return _without(after, performed)


def _without(cancellable: dict[str, tuple[str, ...]], effect_id: str) -> dict[str, tuple[str, ...]]:
    """Once the result of `effect_id` is there."""
    state = next((state for state, effects in cancellable.items() if effect_id in effects), None)
    if state is None:
        return cancellable
    rest = cancellable.copy()
    rest[state] = tuple(effect for effect in cancellable[state] if effect != effect_id)
    if not rest[state]:
        del rest[state]
    return rest


def _children(instance: Instance, fact: TransitionTaken | InstanceModified) -> Mapping[str, ChildLink]:
    children = {invokeid: child for invokeid, child in instance.children.items() if invokeid not in fact.children_ended}
    return children | {child.invokeid: child for child in fact.children_started}


def _timers(instance: Instance, fact: TransitionTaken | InstanceModified) -> Mapping[str, PendingTimer]:
    fired = fact.trigger if isinstance(fact, TransitionTaken) and fact.trigger.kind == "timer" else None
    if not (fired or fact.timers_set or fact.timers_cancelled):
        return instance.timers
    timers = dict(instance.timers)
    if fired is not None:
        _use_up(timers, fired)
    for timer_id in fact.timers_cancelled:
        timers.pop(timer_id, None)
    for timer in fact.timers_set:
        # One that is set again goes behind those set before: timers due at the same time fire in the order of setting.
        timers.pop(timer.timer_id, None)
        timers[timer.timer_id] = timer
    return timers


def timer_trigger_id(timer: PendingTimer) -> str:
    """The id of the trigger that a timer fires."""
    return f"{timer.timer_id}@{timer.due_at}"


def timer_of(trigger: Trigger) -> str:
    """The timer id in a timer trigger's id."""
    return trigger.id.rpartition("@")[0]


def result_id(effect_id: str) -> str:
    """The id of the trigger that an effect's result is recorded as, once."""
    return f"{effect_id}{_RESULT}"


def effect_of(trigger: Trigger) -> str:
    """The effect's id in the id of its result."""
    return trigger.id.removesuffix(_RESULT)


def effect_name_of(trigger: Trigger) -> str:
    """The effect's name in the name of its result, `done.effect.<name>` or `error.effect.<name>`."""
    return trigger.name.partition(".effect.")[2]


def _use_up(timers: dict[str, PendingTimer], fired: Trigger) -> None:
    """Remove the timer that fired, but not one of the same id that was set since (`fired` may have been deferred)."""
    timer_id = timer_of(fired)
    timer = timers.get(timer_id)
    if timer is not None and timer_trigger_id(timer) == fired.id:
        del timers[timer_id]


def _noted(instance: Instance, fact: EventRefused | EventDiscarded | EventSent | EventDeferred) -> Instance:
    """The sequence moves on; a timer that fired is used up; a deferred trigger that was applied is gone."""
    timers = instance.timers
    if fact.trigger.kind == "timer" and timers:
        timers = dict(timers)
        _use_up(timers, fact.trigger)
    noted = replace(
        instance,
        sequence=fact.sequence,
        updated_at=fact.time,
        timers=timers,
        deferred=_still_deferred(instance, fact.trigger),
    )
    if instance.cancellable and fact.trigger.kind == "effect" and not isinstance(fact, EventDeferred):
        return replace(noted, cancellable=_without(instance.cancellable, effect_of(fact.trigger)))
    return noted


def _deferred_after(instance: Instance, fact: TransitionTaken) -> tuple[Trigger, ...]:
    """What still waits after a macrostep. A timer that was due while the instance was paused is dropped when what came
    before it cancels it or sets it anew, as it would have been had nobody paused; so is an effect's result when the
    state that waits for it is left."""
    return _without_left(instance, fact, _still_deferred(instance, fact.trigger))


def _without_left(
    instance: Instance, fact: TransitionTaken | InstanceModified, deferred: tuple[Trigger, ...]
) -> tuple[Trigger, ...]:
    """`deferred` without what belongs to what `fact` has left or set anew."""
    if deferred and instance.cancellable and fact.exited:
        gone = {effect_id for state in fact.exited for effect_id in instance.cancellable.get(state, ())}
        deferred = tuple(trigger for trigger in deferred if trigger.kind != "effect" or effect_of(trigger) not in gone)
    if deferred and (fact.timers_cancelled or fact.timers_set):
        gone = {*fact.timers_cancelled, *(timer.timer_id for timer in fact.timers_set)}
        deferred = tuple(trigger for trigger in deferred if trigger.kind != "timer" or timer_of(trigger) not in gone)
    return deferred


def _still_deferred(instance: Instance, applied: Trigger) -> tuple[Trigger, ...]:
    """Deferred triggers are applied first in, first out, and only while the instance is active."""
    deferred = instance.deferred
    if deferred and instance.status != "paused":
        first = deferred[0]
        if (first.source, first.id) == (applied.source, applied.id):
            return deferred[1:]
    return deferred


def _lifecycle(instance: Instance, fact: Fact) -> Instance:
    moved = replace(instance, sequence=fact.sequence, updated_at=fact.time)
    if isinstance(fact, InstancePaused):
        return replace(moved, status="paused")
    if isinstance(fact, CheckpointTaken):
        return replace(moved, checkpoints={**instance.checkpoints, fact.name: fact.sequence})
    if isinstance(fact, InstanceResumed):
        return replace(moved, status="active")
    if isinstance(fact, InstanceCancelled):
        context = {**instance.context, **fact.context}
        ended = replace(moved, status="cancelled", ended_at=fact.time, timers={}, deferred=(), error=fact.reason)
        return replace(ended, context=context, children={}, cancellable={})
    if isinstance(fact, InstanceFailed):
        deferred = instance.deferred if fact.trigger is None else _still_deferred(instance, fact.trigger)
        ended = replace(moved, status="failed", ended_at=fact.time, timers={}, deferred=deferred, error=fact.error)
        return replace(ended, children={}, cancellable={})
    raise ValueError(f"expected a fact of a running instance, got {type(fact).__name__} of {fact}")


def sets_status(fact: Fact) -> Status | None:
    """The status an instance has after `fact`, if `fact` alone tells (used to answer duplicates)."""
    if isinstance(fact, Macrostep):
        return fact.status
    if isinstance(fact, InstancePaused):
        return "paused"
    if isinstance(fact, InstanceResumed):
        return "active"
    if isinstance(fact, InstanceCancelled):
        return "cancelled"
    if isinstance(fact, InstanceFailed):
        return "failed"
    return None
