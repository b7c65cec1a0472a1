"""A unit of work: requests decided one after another against drafts of their instances, to be recorded together.

Invariants: deciding touches no cache and no store; the drafts replace the cached residents only after the commit. A
request that fails leaves its draft as it was. Facts of one instance are in order and without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from statewright.engine.changes import add_fact, add_instance
from statewright.engine.decisions import (
    decide,
    decide_control,
    decide_failure,
    decide_start,
    decide_without_step,
)
from statewright.engine.definitions import Definitions
from statewright.engine.errors import BusyError, IdReusedError, InvalidError, NotFoundError
from statewright.engine.events import EventRefused, Fact, PendingTimer, Trigger
from statewright.engine.instance import Instance, evolve, timer_trigger_id
from statewright.engine.recorder import Changes, InboxRow
from statewright.engine.requests import (
    EFFECT_SOURCE,
    REASON_CHARS_MAX,
    TIMER_SOURCE,
    ControlRequest,
    EffectResult,
    ExternalEvent,
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
from statewright.statecharts.dynamic import location
from statewright.statecharts.facts import Event, Snapshot

DEFERRED_MAX = 10_000
"""How many events a paused instance keeps for later."""


class FirstOutcome(msgspec.Struct, frozen=True):
    """The event was recorded before: the answer is what was answered at `sequence`, to be read from the log."""

    instance_id: str
    sequence: int


class FirstStart(msgspec.Struct, frozen=True):
    """The instance exists: the answer is its start if that had the same content, to be read from the log."""

    request: StartRequest


Answer = Outcome | Started | FirstOutcome | FirstStart | Exception | None


class Draft:
    """An instance being worked on: where it stood before, and where it stands with the facts of this unit."""

    __slots__ = ("before", "fresh", "instance", "resident", "snapshot")

    def __init__(self, resident: Resident, before: Instance | None) -> None:
        self.resident = resident
        self.before = before
        self.instance = resident.instance
        self.snapshot: Snapshot = resident.snapshot
        self.fresh: dict[tuple[str, str], tuple[int, bytes]] = {}


class Unit:
    """One transaction in the making. `residents` are the loaded instances; ids that are absent don't exist."""

    def __init__(self, residents: Mapping[str, Resident], definitions: Definitions, partitions: int, now: int) -> None:
        self._residents = residents
        self._definitions = definitions
        self._partitions = partitions
        self._now = now
        self.drafts: dict[str, Draft] = {}
        self.facts: list[Fact] = []
        self.changes = Changes()

    def decide(self, request: Request) -> Answer:
        """Decide one request. Raises nothing: an exception is an answer."""
        try:
            if isinstance(request, ExternalEvent):
                return self._event(request)
            if isinstance(request, StartRequest):
                return self._start(request)
            if isinstance(request, TimerDue):
                return self._timer(request)
            if isinstance(request, EffectResult):
                return self._result(request)
            return self._control(request)
        except Exception as error:
            return error

    def seal(self) -> None:
        """Add what is written once per instance. Call it once, before the commit."""
        for draft in self.drafts.values():
            if draft.before is not draft.instance:
                add_instance(self.changes, draft.before, draft.instance)

    @property
    def is_empty(self) -> bool:
        return not self.facts and not self.changes.timers_cleared and not self.changes.effects_ended

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
        given, _ = as_json("the context", request.context)
        if not isinstance(given, dict):
            raise InvalidError(f"expected the context to be an object of fields, got {type(given).__name__}")
        machine = chart.machine
        step = machine.start(given, instance_id)
        if step.reason:
            raise InvalidError(f"expected '{chart.name}' to start with this context, but {step.reason}")
        fact = decide_start(
            instance_id,
            (chart.name, chart.version, chart.digest),
            given,
            step,
            machine.names(step.snapshot.configuration),
            now=self._now,
            actor=request.actor,
        )
        instance = evolve(None, fact)
        resident = Resident(instance, step.snapshot, machine, {}, complete=True)
        self.drafts[instance_id] = Draft(resident, None)
        self._append(fact)
        return Started(instance_id, 1, instance.configuration, instance.status)

    def _event(self, request: ExternalEvent) -> Answer:
        draft = self._draft(request.instance_id)
        check_event(request)
        if request.name in draft.resident.machine.delay_events:
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
        whatever the order in which the store lists them."""
        draft = self._draft(request.instance_id)
        timers = draft.instance.timers
        if request.timer_id not in timers:
            self.changes.timers_cleared.append((request.instance_id, request.timer_id))
        timer = min(timers.values(), key=_due_at, default=None)
        if timer is None or timer.due_at > request.due_at:
            return None
        trigger = Trigger(timer.event, timer_trigger_id(timer), TIMER_SOURCE, "timer", data=timer.data)
        return _outcome(self._apply(draft, trigger, timer), draft.instance)

    def _result(self, request: EffectResult) -> Answer:
        draft = self._draft(request.instance_id)
        key = (EFFECT_SOURCE, request.event_id)
        if key in draft.fresh or key in draft.resident.seen:
            return None
        failed = bool(request.error)
        name = f"{'error' if failed else 'done'}.effect.{request.name}"
        data = {"message": request.error} if failed else request.result
        data, encoded = as_json(f"the result of effect '{request.effect_id}'", data)
        fact = self._apply(draft, Trigger(name, key[1], EFFECT_SOURCE, "effect", data=data))
        self._remember(draft, key, fact.sequence, content_digest(name, "", encoded))
        self.changes.effects_ended.append(("failed" if failed else "done", request.error, request.effect_id))
        return _outcome(fact, draft.instance)

    def _control(self, request: ControlRequest) -> Answer:
        draft = self._draft(request.instance_id)
        check_text("the actor", request.actor)
        check_text("the reason", request.reason, REASON_CHARS_MAX)
        fact = decide_control(draft.instance, request.action, reason=request.reason, actor=request.actor, now=self._now)
        if isinstance(fact, str):
            instance = draft.instance
            return Outcome("refused", fact, instance.sequence, instance.configuration, instance.status)
        self._record(draft, fact)
        if request.action == "resume":
            while draft.instance.deferred:
                self._apply(draft, draft.instance.deferred[0])
        return _outcome(fact, draft.instance)

    def _apply(self, draft: Draft, trigger: Trigger, timer: PendingTimer | None = None) -> Fact:
        """Record what becomes of `trigger` (of `timer`, if one fires): where an instance meets its chart."""
        instance = draft.instance
        fact = decide_without_step(instance, trigger, now=self._now)
        if fact is None:
            machine = draft.resident.machine
            event = Event(trigger.name, trigger.data) if timer is None else _sent(instance.id, trigger, timer)
            step = machine.step(draft.snapshot, event)
            if step.reason and trigger.kind == "effect" and trigger.name.startswith("error."):
                error = f"{trigger.name}: {trigger.data['message']}"
                fact = decide_failure(instance, trigger, error, now=self._now)
            else:
                configuration = machine.names(step.snapshot.configuration)
                fact = decide(instance, step, configuration, trigger, now=self._now)
                draft.snapshot = step.snapshot
        elif trigger.kind == "event" and len(instance.deferred) >= DEFERRED_MAX:
            raise BusyError(f"instance '{instance.id}' is paused and keeps {DEFERRED_MAX:,} events, no more")
        self._record(draft, fact)
        return fact

    def _record(self, draft: Draft, fact: Fact) -> None:
        draft.instance = evolve(draft.instance, fact)
        self._append(fact)

    def _append(self, fact: Fact) -> None:
        self.facts.append(fact)
        add_fact(self.changes, fact, self._partitions)

    def _remember(self, draft: Draft, key: tuple[str, str], sequence: int, digest: bytes) -> None:
        draft.fresh[key] = (sequence, digest)
        self.changes.inbox.append(InboxRow(draft.instance.id, key[0], key[1], sequence, digest))


def content_digest(name: str, actor: str, data: bytes) -> bytes:
    """16 bytes that tell one event's content from another's (`data` is its canonical JSON)."""
    return blake2b(b"\0".join((name.encode(), actor.encode(), data)), digest_size=16).digest()


def _sent(instance_id: str, trigger: Trigger, timer: PendingTimer) -> Event:
    """What a timer brings; if a `send` has set it, the event says so in SCXML's way."""
    origin = location(instance_id) if timer.origintype else ""
    return Event(trigger.name, trigger.data, sendid=timer.sendid, origin=origin, origintype=timer.origintype)


def _due_at(timer: PendingTimer) -> int:
    return timer.due_at


def _outcome(fact: Fact, instance: Instance) -> Outcome:
    if isinstance(fact, EventRefused):
        return Outcome("refused", fact.reason, fact.sequence, instance.configuration, instance.status)
    return Outcome("recorded", "", fact.sequence, instance.configuration, instance.status)
