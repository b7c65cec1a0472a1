"""What must be true of a store once everything has come to rest, whatever went wrong before.

violations(world, workload) -> sentences, none if all is well
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from statewright.engine.cron import MINUTE_NS
from statewright.engine.events import (
    ENDED,
    AnyFact,
    CheckpointTaken,
    InstanceCancelled,
    InstanceModified,
    InstanceStarted,
)
from statewright.engine.instance import Instance, evolve, timer_of, timer_trigger_id
from statewright.engine.log import InstanceLog
from statewright.engine.relatives import KINDS
from statewright.engine.requests import EFFECT_SOURCE, CheckpointRequest, ExternalEvent, Started
from statewright.engine.schedules import instance_id as scheduled_id
from statewright.engine.verify import verify_log
from statewright.projections.metrics import Metrics
from tests.simulation.charts import CHARTS, CHILDREN, LATER, TALLY
from tests.simulation.workload import Workload
from tests.simulation.world import World

_EVER = 2**63 - 1
_OWNERS: dict[str, dict[str, str]] = {
    chart.digest: {
        transition.delay_event: state.id
        for state in chart.machine.by_id.values()
        for transition in state.transitions
        if transition.delay_event
    }
    for chart in (*CHARTS, *CHILDREN, *LATER.values())
}
"""Of each chart, the state of each delay."""


def violations(world: World, workload: Workload) -> list[str]:
    """All that is not as it must be."""
    log = InstanceLog(dict(world.store.environment))
    try:
        facts = _facts_by_instance(log)
        instances = {instance_id: _fold(one) for instance_id, one in facts.items()}
        return [
            *workload.wrong,
            *world.loop.troubles,
            *world.recorder.intrusions,
            *verify_log(log).differences,
            *_answers(workload, facts),
            *_moves(world, workload, facts, instances),
            *_places(facts),
            *_parked(world, workload, facts, instances),
            *_timers(world, facts),
            *_effects(world, facts, instances),
            *_families(world, facts, instances),
            *_schedules(world),
            *_projection(world, log),
            *_tallies(facts, instances),
        ]
    finally:
        log.close()


def _facts_by_instance(log: InstanceLog) -> dict[str, list[AnyFact]]:
    facts: dict[str, list[AnyFact]] = {}
    for entry in log.following(0, _EVER):
        facts.setdefault(entry.fact.instance_id, []).append(entry.fact)
    return facts


def _fold(facts: list[AnyFact]) -> Instance:
    instance: Instance | None = None
    for fact in facts:
        instance = evolve(instance, fact)
    assert instance is not None
    return instance


def _answers(workload: Workload, facts: dict[str, list[AnyFact]]) -> Iterator[str]:
    """What was answered is in the log, where the answer says."""
    for request, answer in workload.answers:
        recorded = facts.get(request.instance_id, [])
        if isinstance(answer, Started):
            if not (recorded and isinstance(recorded[0], InstanceStarted)):
                yield f"{request} was answered {answer}, but the instance has no start"
            continue
        assert isinstance(request, ExternalEvent)
        trigger = getattr(recorded[answer.sequence - 1], "trigger", None) if answer.sequence <= len(recorded) else None
        if trigger is None or (trigger.source, trigger.id) != (request.source, request.id):
            yield f"{request} was answered {answer}, but the fact there is of {trigger}"


def _moves(
    world: World, workload: Workload, facts: dict[str, list[AnyFact]], instances: dict[str, Instance]
) -> Iterator[str]:
    """Who was put elsewhere was so once, from where it was seen, and stands there; or nothing of it is recorded. A
    checkpoint is one fact."""
    for request, answer in workload.moves:
        recorded = facts[request.instance_id]
        if isinstance(request, CheckpointRequest):
            made = [one for one in recorded if isinstance(one, CheckpointTaken) and one.name == request.name]
            if len(made) > 1 or (not made and (answer.kind == "recorded" or "already" in answer.reason)):
                yield f"{request} was answered {answer}, but the facts of it are {made}"
            if made and instances[request.instance_id].checkpoints.get(request.name) != made[0].sequence:
                yield f"checkpoint '{request.name}' of '{request.instance_id}' is lost"
            continue
        moved = [one for one in recorded if isinstance(one, InstanceModified) and one.reason == request.reason]
        if [one.sequence for one in moved] not in ([], [request.expected_sequence + 1]):
            yield f"{request} was recorded at {[one.sequence for one in moved]}"
        if answer.kind == "recorded" and not (moved and moved[0].sequence == answer.sequence):
            yield f"{request} was answered {answer}, but the facts of it are {moved}"
        # Who owns a store alone trusts its memory, also while one that was thought dead writes.
        if answer.sequence < request.expected_sequence and world.store.is_shared:
            yield f"{request} was answered {answer}, which is of before"
        for one in moved:
            entered = {*one.entered, *request.keep}
            if not entered.issuperset(request.targets) or set(one.configuration) - entered:
                yield f"{request} has led to {one}"


def _places(facts: dict[str, list[AnyFact]]) -> Iterator[str]:
    """Delays run, and effects wait to be cancelled, only of states that are active."""
    for instance_id, recorded in facts.items():
        instance: Instance | None = None
        for fact in recorded:
            instance = evolve(instance, fact)
            owners = _OWNERS.get(instance.digest, {})
            active = frozenset(instance.configuration)
            for timer_id in instance.timers:
                if owners.get(timer_id, instance.configuration[0]) not in active:
                    yield f"'{instance_id}' at {fact.sequence} has timer '{timer_id}', but is in {sorted(active)}"
            if not active.issuperset(instance.cancellable):
                yield f"'{instance_id}' at {fact.sequence} holds {instance.cancellable}, but is in {sorted(active)}"


def _parked(
    world: World, workload: Workload, facts: dict[str, list[AnyFact]], instances: dict[str, Instance]
) -> Iterator[str]:
    """What was parked is parked still, or has happened, or somebody has dropped it."""
    dropped = workload.dropped
    for parking in workload.parked:
        event = parking.event
        known = world.recorder.find_inbox(event.instance_id, event.source, event.id)
        if known is None and parking.id not in {*world.recorder._parked, *dropped}:
            yield f"{parking} is neither parked nor recorded nor dropped"
    for row in world.recorder._effects.values():
        parked_id = f"effect:{row.effect_id}"
        if row.state == "parked" and parked_id not in world.recorder._parked:
            yield f"effect {row} is parked nowhere"
        if row.state == "dropped" and parked_id not in dropped:
            yield f"effect {row} was dropped by nobody"
    for recorded in facts.values():
        for fact in recorded:
            trigger, reason = getattr(fact, "trigger", None), getattr(fact, "reason", "")
            if trigger is None or trigger.kind != "timer" or not reason.startswith("dropped: "):
                continue
            if f"timer:{fact.instance_id}:{trigger.id}" not in dropped:
                yield f"timer '{trigger.id}' of '{fact.instance_id}' was dropped by nobody"


def _timers(world: World, facts: dict[str, list[AnyFact]]) -> Iterator[str]:
    """Each fires once, of those that are set, and not before it is due; none is left over."""
    for instance_id, recorded in facts.items():
        instance: Instance | None = None
        for fact in recorded:
            trigger = getattr(fact, "trigger", None)
            if instance is not None and trigger is not None and trigger.kind == "timer":
                set_ = instance.timers.get(timer_of(trigger))
                waiting = trigger in instance.deferred and instance.status != "paused"
                if not waiting and (set_ is None or timer_trigger_id(set_) != trigger.id):
                    yield f"timer '{trigger.id}' of '{instance_id}' fired at {fact.sequence}, where it is not set"
                # One that was due may be recorded after the clock has been set back.
                if fact.time < int(trigger.id.rpartition("@")[2]) - world.clock.set_back_ns:
                    yield f"timer '{trigger.id}' of '{instance_id}' fired too early, at {fact.time}"
            instance = evolve(instance, fact)
    for row in world.recorder._timers.values():
        yield f"timer {row} is left over"


def _effects(world: World, facts: dict[str, list[AnyFact]], instances: dict[str, Instance]) -> Iterator[str]:
    """Each is performed at least once and has one result, which some attempt has had; unless it was cancelled."""
    results = {
        fact.trigger.id.removesuffix("-result"): fact.trigger  # type: ignore[union-attr]
        for recorded in facts.values()
        for fact in recorded
        if (trigger := getattr(fact, "trigger", None)) is not None and trigger.source == EFFECT_SOURCE
    }
    cancelled = {
        fact.instance_id for recorded in facts.values() for fact in recorded if type(fact) is InstanceCancelled
    }
    left = {one for recorded in facts.values() for fact in recorded for one in getattr(fact, "effects_cancelled", ())}
    for row in world.recorder._effects.values():
        if row.state in ("pending", "running"):
            yield f"effect {row} is left over"
        if row.kind in KINDS:
            continue
        seen = world.performed.get(row.effect_id, [])
        result = results.get(row.effect_id)
        if row.state == "done" and (result is None or result.data not in seen):
            yield f"effect {row} has the result {result}, but what was performed gave {seen}"
        if row.state == "failed" and (result is None or not any(isinstance(one, str) for one in seen)):
            yield f"effect {row} has failed with {result}, but what was performed gave {seen}"
        if row.state == "cancelled" and row.instance_id not in cancelled and row.effect_id not in left:
            yield f"effect {row} is cancelled, but its instance is not, and its state was not left"


def _families(world: World, facts: dict[str, list[AnyFact]], instances: dict[str, Instance]) -> Iterator[str]:
    """Every child that was begun is there once, and runs on only while its parent has it; unless somebody has dropped
    what was to be done about it."""
    rows = world.recorder._effects.values()
    dropped = {msgspec.json.decode(row.data)["to"] for row in rows if row.state == "dropped" and row.kind in KINDS}
    begun: dict[str, str] = {}
    for instance_id, recorded in facts.items():
        for fact in recorded:
            for link in getattr(fact, "children_started", ()):
                if link.instance_id in begun:
                    yield f"child '{link.instance_id}' was begun twice"
                begun[link.instance_id] = instance_id
    for child_id, parent_id in begun.items():
        if child_id in dropped:
            continue
        child, parent = instances.get(child_id), instances[parent_id]
        held = child_id in {link.instance_id for link in parent.children.values()} and parent.status not in ENDED
        if child is None:
            if held:
                yield f"child '{child_id}' of '{parent_id}' was never started"
        elif child.parent is None or child.parent.instance_id != parent_id:
            yield f"child '{child_id}' of '{parent_id}' has parent {child.parent}"
        elif child.status not in ENDED and not held:
            yield f"child '{child_id}' of '{parent_id}' is {child.status}, but nobody has it any more"
    for instance_id, instance in instances.items():
        if instance.parent is not None and instance_id not in begun:
            yield f"instance '{instance_id}' has a parent that never began it"


def _schedules(world: World) -> Iterator[str]:
    """Each has started what was due, and with catch_up="all" all of it."""
    for row in world.recorder.select_schedules():
        assert row.end_at is not None
        first = row.created_at // MINUTE_NS + 1
        due = {scheduled_id(row.id, minute * MINUTE_NS) for minute in range(first, row.end_at // MINUTE_NS + 1)}
        started = {one for one in world.recorder._instances if one.startswith(f"{row.id}-2")}
        if not started <= due or (row.catch_up == "all" and row.overlap == "allow" and started != due):
            yield f"schedule {row} has started {sorted(started)}, due were {sorted(due)}"


def _projection(world: World, log: InstanceLog) -> Iterator[str]:
    """The figures are those of a fold from zero."""
    metrics = Metrics({})
    metrics.apply_all(entry.fact for entry in log.following(0, _EVER))
    with world.view.snapshot() as stored:
        found = stored.figures()
    if found != metrics.figures:
        yield f"the metrics are {found}, a fold from zero gives {metrics.figures}"


def _tallies(facts: dict[str, list[AnyFact]], instances: dict[str, Instance]) -> Iterator[str]:
    """A tally has added up what was accepted, in order: what the chart does, said once more."""
    for instance_id, instance in instances.items():
        if instance.definition != TALLY.name:
            continue
        seen: list[Any] = []
        for fact in facts[instance_id]:
            if isinstance(fact, InstanceModified):
                seen = list(fact.context["seen"])
            trigger = getattr(fact, "trigger", None)
            if trigger is not None and trigger.name == "add" and getattr(fact, "taken", ()):
                seen.append(trigger.data)
        if instance.context["seen"] != seen:
            yield f"tally '{instance_id}' has {instance.context['seen']}, accepted were {seen}"
