"""A unit of work: requests decided one after another against drafts of their instances, to be recorded together.

Invariants: deciding touches no cache and no store; the drafts replace the cached residents only after the commit. A
request that fails leaves its draft as it was. Facts of one instance are in order and without gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from statewright.engine.changes import add_fact, add_instance
from statewright.engine.decisions import (
    decide,
    decide_control,
    decide_discarded,
    decide_failure,
    decide_sent,
    decide_start,
    decide_stopped,
    decide_without_step,
)
from statewright.engine.definitions import Definitions
from statewright.engine.errors import BusyError, IdReusedError, InvalidError, NotFoundError
from statewright.engine.events import ENDED, EventRefused, Fact, ParentLink, PendingTimer, Trigger
from statewright.engine.instance import Instance, evolve, timer_trigger_id
from statewright.engine.modification import decide_checkpoint, decide_modified
from statewright.engine.recorder import Changes, InboxRow
from statewright.engine.relatives import GENERATIONS_MAX, is_stale
from statewright.engine.requests import (
    EFFECT_SOURCE,
    REASON_CHARS_MAX,
    TIMER_SOURCE,
    CheckpointRequest,
    ChildCancelled,
    ControlRequest,
    EffectEnded,
    EffectResult,
    ExternalEvent,
    MessageArrived,
    ModifyRequest,
    Outcome,
    Request,
    Started,
    StartRequest,
    TimerDue,
    as_json,
    check_event,
    check_text,
)
from statewright.engine.residents import Resident
from statewright.statecharts.chart import Chart
from statewright.statecharts.children import NOBODY, Kin
from statewright.statecharts.dynamic import location
from statewright.statecharts.facts import Event, Snapshot, Step
from statewright.statecharts.machine import ChartMachine
from statewright.statecharts.splices import Splice, splices

DEFERRED_MAX = 10_000
"""How many events a paused instance keeps for later."""


WIDE_MIN = 32
"""How many active states a fact lists, however few of them have changed."""


class FirstOutcome(msgspec.Struct, frozen=True):
    """The event was recorded before: the answer is what was answered at `sequence`, to be read from the log."""

    instance_id: str
    sequence: int


class FirstStart(msgspec.Struct, frozen=True):
    """The instance exists: the answer is its start if that had the same content, to be read from the log."""

    request: StartRequest


class Doubtful(Exception):
    """What is in memory says that there is nothing to record; but another worker may have recorded something since."""


Answer = Outcome | Started | FirstOutcome | FirstStart | Exception | None


class Draft:
    """An instance being worked on: where it stood before, and where it stands with the facts of this unit."""

    __slots__ = ("before", "fresh", "instance", "machine", "resident", "snapshot")

    def __init__(self, resident: Resident, before: Instance | None) -> None:
        self.resident = resident
        self.before = before
        self.instance = resident.instance
        self.machine = resident.machine
        self.snapshot: Snapshot = resident.snapshot
        self.fresh: dict[tuple[str, str], tuple[int, bytes]] = {}


class Unit:
    """One transaction in the making. `residents` are the loaded instances; ids that are absent don't exist. `doubtful`
    are those that may not be as the log says by now: what is recorded of them meets the log's key, but where nothing is
    to be recorded the answer is `Doubtful`."""

    def __init__(
        self,
        residents: Mapping[str, Resident],
        definitions: Definitions,
        partitions: int,
        now: int,
        doubtful: Collection[str] = (),
    ) -> None:
        self._residents = residents
        self._definitions = definitions
        self._partitions = partitions
        self._now = now
        self._doubtful = doubtful
        self.drafts: dict[str, Draft] = {}
        self.facts: list[Fact] = []
        self.changes = Changes()

    def decide(self, request: Request) -> Answer:
        """Decide one request. Raises nothing: an exception is an answer."""
        try:
            return _DECIDED_BY[type(request)](self, request)
        except Exception as error:
            return error

    def seal(self) -> None:
        """Add what is written once per instance. Call it once, before the commit."""
        for draft in self.drafts.values():
            if draft.before is not draft.instance:
                add_instance(self.changes, draft.before, draft.instance, self._partitions)

    @property
    def is_empty(self) -> bool:
        return not self.facts and not self.changes.effects_ended

    def _draft(self, instance_id: str) -> Draft:
        draft = self.drafts.get(instance_id)
        if draft is None:
            resident = self._residents.get(instance_id)
            if resident is None:
                raise NotFoundError(f"no instance '{instance_id}'")
            draft = self.drafts[instance_id] = Draft(resident, resident.instance)
        return draft

    def _start(self, request: StartRequest) -> Answer:
        instance_id = request.instance_id
        if instance_id in self.drafts or instance_id in self._residents:
            return FirstStart(request)
        chart = self._definitions.named(request.definition, request.version)
        check_text("the actor", request.actor)
        machine = chart.machine
        parent = request.parent
        if parent is not None and parent.generation > GENERATIONS_MAX:
            raise InvalidError(f"expected at most {GENERATIONS_MAX} generations of children, got one more")
        given, step = first_step(chart, request)
        fact = decide_start(
            instance_id,
            (chart.name, chart.version, chart.digest),
            given,
            step,
            machine.names(step.snapshot.configuration),
            now=self._now,
            actor=request.actor,
            parent=parent,
            bound=_bound(machine, step.snapshot, 0),
        )
        if request.effect_id:
            self.changes.effects_ended.append(("done", "", request.effect_id))
        instance = evolve(None, fact)
        resident = Resident(instance, step.snapshot, machine, {}, complete=True)
        self.drafts[instance_id] = Draft(resident, None)
        self._append(fact)
        return Started(instance_id, 1, instance.configuration, instance.status)

    def _event(self, request: ExternalEvent) -> Answer:
        draft = self._draft(request.instance_id)
        check_event(request)
        if request.name in draft.machine.delay_events:
            raise InvalidError(f"expected an event that can be sent, got '{request.name}', which only a timer brings")
        data, encoded = as_json("the event's data", request.data)
        digest = content_digest(request.name, request.actor, encoded)
        key = (request.source, request.id)
        known = draft.fresh.get(key) or draft.resident.seen.get(key)
        if known is not None:
            if known[1] != digest:
                raise IdReusedError(
                    f"event id '{request.id}' of source '{request.source}' was recorded for instance "
                    f"'{request.instance_id}' at sequence {known[0]} with other content"
                )
            return FirstOutcome(request.instance_id, known[0])
        trigger = Trigger(request.name, request.id, request.source, "event", request.actor, request.time, data)
        fact = self._apply(draft, trigger)
        self._remember(draft, key, fact.sequence, digest)
        return _outcome(fact, draft.instance)

    def _timer(self, request: TimerDue) -> Answer:
        """Fire the instance's next timer that is due by then: the earliest, of those due together the one set first,
        whatever the order in which the store lists them. None if there is none, which proves nothing about the row that
        was read: it is by the instance as this process remembers it."""
        draft = self._draft(request.instance_id)
        if request.drop_reason:
            return self._drop_timer(draft, request)
        timer = min(draft.instance.timers.values(), key=_due_at, default=None)
        if timer is None or timer.due_at > request.due_at:
            return None
        return _outcome(self._apply(draft, _fired(request.instance_id, timer)), draft.instance)

    def _drop_timer(self, draft: Draft, request: TimerDue) -> Answer:
        """Without asking the chart, which may be what fails."""
        timer = draft.instance.timers.get(request.timer_id)
        if timer is not None and timer.due_at == request.due_at:
            trigger = _fired(request.instance_id, timer)
            self._record(draft, decide_discarded(draft.instance, trigger, request.drop_reason, now=self._now))
        return None

    def _result(self, request: EffectResult) -> Answer:
        draft = self._draft(request.instance_id)
        key = (EFFECT_SOURCE, request.event_id)
        if key in draft.fresh or key in draft.resident.seen:
            return None
        failed = bool(request.error)
        name = f"{'error' if failed else 'done'}.effect.{request.name}"
        data = {"message": request.error} if failed else request.result
        data, encoded = as_json(f"the result of effect '{request.effect_id}'", data)
        result = Trigger(
            name, key[1], EFFECT_SOURCE, "effect", data=data, attempt=request.attempt, began_at=request.began_at
        )
        fact = self._take_result(draft, request, result)
        self._remember(draft, key, fact.sequence, content_digest(name, "", encoded))
        self.changes.effects_ended.append(("failed" if failed else "done", request.error, request.effect_id))
        return _outcome(fact, draft.instance)

    def _take_result(self, draft: Draft, request: EffectResult, result: Trigger) -> Fact:
        instance = draft.instance
        waited_for = instance.cancellable.get(request.until, ())
        if request.until and request.effect_id not in waited_for and instance.status not in ENDED:
            reason = f"effect '{request.effect_id}' was cancelled: state '{request.until}' was left"
            fact = decide_discarded(instance, result, reason, now=self._now)
            self._record(draft, fact)
            return fact
        return self._apply(draft, result)

    def _message(self, request: MessageArrived) -> Answer:
        draft = self._draft(request.instance_id)
        trigger = request.trigger
        key = (trigger.source, trigger.id)
        if key in draft.fresh or key in draft.resident.seen:
            return self._effect_ended(request)
        if request.expected and draft.instance.status in ENDED:
            raise NotFoundError(f"instance '{request.instance_id}' is {draft.instance.status}")
        fact = self._apply(draft, trigger)
        self._remember(
            draft, key, fact.sequence, content_digest(trigger.name, "", as_json("the data", trigger.data)[1])
        )
        return self._effect_ended(request)

    def _child_cancelled(self, request: ChildCancelled) -> Answer:
        if request.instance_id in self.drafts or request.instance_id in self._residents:
            draft = self._draft(request.instance_id)
            if draft.instance.status not in ENDED:
                step = draft.machine.stop(draft.snapshot)
                self._record(draft, decide_stopped(draft.instance, step, now=self._now))
        return self._effect_ended(request)

    def _effect_ended(self, request: MessageArrived | ChildCancelled | EffectEnded) -> Answer:
        error = request.error
        self.changes.effects_ended.append(("failed" if error else "done", error, request.effect_id))
        return None

    def _control(self, request: ControlRequest) -> Answer:
        draft = self._draft(request.instance_id)
        check_text("the actor", request.actor)
        check_text("the reason", request.reason, REASON_CHARS_MAX)
        fact = decide_control(draft.instance, request.action, reason=request.reason, actor=request.actor, now=self._now)
        if isinstance(fact, str):
            return self._refused(draft, fact)
        self._record(draft, fact)
        if request.action == "resume":
            self._apply_deferred(draft)
        return _outcome(fact, draft.instance)

    def _modify(self, request: ModifyRequest) -> Answer:
        draft = self._draft(request.instance_id)
        check_text("the actor", request.actor)
        check_text("the reason", request.reason, REASON_CHARS_MAX)
        decided = decide_modified(draft.instance, draft.machine, request, now=self._now)
        if isinstance(decided, str):
            return self._refused(draft, decided)
        fact, draft.snapshot = decided
        draft.machine = request.chart.machine
        self._record(draft, fact)
        if draft.instance.status != "paused":
            self._apply_deferred(draft)
        return _outcome(fact, draft.instance)

    def _checkpoint(self, request: CheckpointRequest) -> Answer:
        draft = self._draft(request.instance_id)
        check_text("the actor", request.actor)
        check_text("the reason", request.reason, REASON_CHARS_MAX)
        name, reason, actor = request.name, request.reason, request.actor
        fact = decide_checkpoint(draft.instance, name, reason=reason, actor=actor, now=self._now)
        if isinstance(fact, str):
            return self._refused(draft, fact)
        self._record(draft, fact)
        return _outcome(fact, draft.instance)

    def _apply_deferred(self, draft: Draft) -> None:
        while draft.instance.deferred:
            self._apply(draft, draft.instance.deferred[0])

    def _refused(self, draft: Draft, reason: str) -> Outcome:
        """A request that changes nothing, and of which nothing is recorded."""
        instance = draft.instance
        self._require_certainty(instance.id)
        return Outcome("refused", reason, instance.sequence, instance.configuration, instance.status)

    def _require_certainty(self, instance_id: str) -> None:
        if instance_id in self._doubtful:
            raise Doubtful

    def _apply(self, draft: Draft, trigger: Trigger) -> Fact:
        """Record what becomes of `trigger`."""
        instance = draft.instance
        fact = decide_without_step(instance, trigger, now=self._now)
        if fact is None:
            if trigger.target:
                fact = decide_sent(instance, trigger, now=self._now)
            elif is_stale(instance, trigger):
                reason = f"invoke '{trigger.invokeid}' of instance '{trigger.sender}' is no longer active"
                fact = decide_discarded(instance, trigger, reason, now=self._now)
            else:
                fact = self._step(draft, trigger)
        elif trigger.kind == "event" and len(instance.deferred) >= DEFERRED_MAX:
            raise BusyError(f"instance '{instance.id}' is paused and keeps {DEFERRED_MAX:,} events, no more")
        self._record(draft, fact)
        return fact

    def _step(self, draft: Draft, trigger: Trigger) -> Fact:
        """What the chart makes of `trigger`: where an instance meets its chart."""
        instance, machine, before = draft.instance, draft.machine, draft.snapshot
        step = machine.step(before, _event_of(trigger))
        if step.reason and _is_failure(trigger, machine, before):
            error = f"{trigger.name}: {trigger.data['message']}"
            return decide_failure(instance, trigger, error, now=self._now)
        after = step.snapshot
        bound = _bound(machine, after, before.entered) if after.entered != before.entered else ()
        draft.snapshot = after
        configuration, changes = _configuration(machine, before.configuration, after.configuration)
        return decide(instance, step, configuration, trigger, now=self._now, bound=bound, configuration_changes=changes)

    def _record(self, draft: Draft, fact: Fact) -> None:
        draft.instance = evolve(draft.instance, fact)
        self._append(fact)

    def _append(self, fact: Fact) -> None:
        self.facts.append(fact)
        add_fact(self.changes, fact, self._partitions, self._now)

    def _remember(self, draft: Draft, key: tuple[str, str], sequence: int, digest: bytes) -> None:
        draft.fresh[key] = (sequence, digest)
        self.changes.inbox.append(InboxRow(draft.instance.id, key[0], key[1], sequence, digest))


_DECIDED_BY: Mapping[type[Request], Callable[[Unit, Any], Answer]] = {
    ExternalEvent: Unit._event,
    StartRequest: Unit._start,
    TimerDue: Unit._timer,
    EffectResult: Unit._result,
    ControlRequest: Unit._control,
    ModifyRequest: Unit._modify,
    CheckpointRequest: Unit._checkpoint,
    MessageArrived: Unit._message,
    ChildCancelled: Unit._child_cancelled,
    EffectEnded: Unit._effect_ended,
}
"""Not bound to a unit: one that held its own methods would be a cycle, and all its facts and rows garbage to be looked
for."""


def first_step(chart: Chart, request: StartRequest) -> tuple[dict[str, Any], Step]:
    """The context as it is given, and what the start makes of it. Raises `InvalidError`, `ContextError`,
    `TooLargeError`."""
    given, _ = as_json("the context", request.context)
    if not isinstance(given, dict):
        raise InvalidError(f"expected the context to be an object of fields, got {type(given).__name__}")
    step = chart.machine.start(given, request.instance_id, _kin(request.parent))
    if step.reason:
        raise InvalidError(f"expected '{chart.name}' to start with this context, but {step.reason}")
    return given, step


def content_digest(name: str, actor: str, data: bytes) -> bytes:
    """16 bytes that tell one event's content from another's (`data` is its canonical JSON)."""
    return blake2b(b"\0".join((name.encode(), actor.encode(), data)), digest_size=16).digest()


def _fired(instance_id: str, timer: PendingTimer) -> Trigger:
    """What a timer brings; if a `send` has set it, the event says so in SCXML's way."""
    return Trigger(
        timer.event,
        timer_trigger_id(timer),
        TIMER_SOURCE,
        "timer",
        data=timer.data,
        sendid=timer.sendid,
        origin=location(instance_id) if timer.origintype else "",
        origintype=timer.origintype,
        target=timer.target,
    )


def _event_of(trigger: Trigger) -> Event:
    """The event as the chart sees it."""
    if trigger.kind in ("event", "effect"):
        return Event(trigger.name, trigger.data)
    is_platform = trigger.kind == "message" and trigger.name.startswith(("error.communication", "error.invoke."))
    return Event(
        trigger.name,
        trigger.data,
        "platform" if is_platform else "external",
        trigger.sendid,
        trigger.origin,
        trigger.origintype,
        trigger.invokeid,
    )


def _is_failure(trigger: Trigger, machine: ChartMachine, before: Snapshot) -> bool:
    """Whether `trigger`, which the chart doesn't handle, must not pass unnoticed: an effect or a child has failed. (In
    SCXML a child may fail unnoticed.)"""
    if trigger.kind == "effect":
        return trigger.name.startswith("error.")
    return machine.strict and trigger.name.startswith("error.invoke.") and trigger.invokeid in before.invoked


def _kin(parent: ParentLink | None) -> Kin:
    return Kin(parent.instance_id, parent.invokeid, parent.root) if parent is not None else NOBODY


def _bound(machine: ChartMachine, snapshot: Snapshot, before: int) -> tuple[str, ...]:
    """The states whose late data has been bound since."""
    return machine.ids(snapshot.entered & ~before)


def _configuration(machine: ChartMachine, before: int, after: int) -> tuple[tuple[str, ...], tuple[Splice, ...] | None]:
    """The active states as a fact has them: all their names or, where that is much shorter, what has changed."""
    if after.bit_count() > WIDE_MIN:
        changes = splices(machine.by_index, before, after)
        if sum(2 + len(inserted) for _, _, inserted in changes) < after.bit_count() // 2:
            return (), changes
        return machine.ids(after), None  # Not kept by the machine: there are too many of these, and they are long.
    return machine.names(after), None


def _due_at(timer: PendingTimer) -> int:
    return timer.due_at


def _outcome(fact: Fact, instance: Instance) -> Outcome:
    if isinstance(fact, EventRefused):
        return Outcome("refused", fact.reason, fact.sequence, instance.configuration, instance.status)
    return Outcome("recorded", "", fact.sequence, instance.configuration, instance.status)
