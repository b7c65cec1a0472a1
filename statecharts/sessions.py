"""Sessions on one virtual clock: a chart's, those that it invokes, those that they invoke.

What steps ask for happens here: delayed and immediate sends, from session to session, and the lives of children. All
sessions share one queue, in the order of due times and, at one instant, in the order in which things were sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from statewright.statecharts.chart import Chart
from statewright.statecharts.children import NOBODY, Kin, child_session
from statewright.statecharts.definition import Json
from statewright.statecharts.dynamic import location
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.facts import (
    CancelChild,
    Event,
    SendEvent,
    Snapshot,
    StartChild,
    Step,
    TimerCancelled,
    TimerSet,
)

DELIVERIES_MAX = 10_000
"""Timers that fire and events that are delivered for one token, or for `run`, before the simulation gives up."""
SESSIONS_MAX = 1_000
GENERATIONS_MAX = 32
"""How many sessions may live at once, and how far a child may be from the first session."""

Status = Literal["active", "completed", "failed", "cancelled"]


class SimulationError(StatewrightError):
    """A token is not understood, or the simulation reached its bound."""


class Session:
    """One running chart. `invokeid` is its name to its parent, `generation` its distance from the first session."""

    __slots__ = ("chart", "children", "error", "generation", "id", "invokeid", "output", "parent", "snapshot", "status")

    def __init__(self, chart: Chart, session_id: str, parent: Session | None = None, invokeid: str = "") -> None:
        self.chart = chart
        self.id = session_id
        self.parent = parent
        self.invokeid = invokeid
        self.generation: int = parent.generation + 1 if parent else 0
        self.status: Status = "active"
        self.snapshot = Snapshot(0, {})
        self.output: Json = None
        self.error = ""
        self.children: dict[str, Session] = {}


class _Pending(NamedTuple):
    """Something that is to happen: an event for `receiver`, or what a session's timer says when it is due."""

    due_ns: int
    order: int
    sender: Session
    timer: TimerSet | None
    receiver: Session | None = None
    event: Event | None = None


class Sessions:
    """The first session and its descendants. `watch(session, step)` is told of every step."""

    def __init__(self, chart: Chart, watch: Callable[[Session, Step], None]) -> None:
        self.now_ns = 0
        self.first = Session(chart, chart.name)
        self._watch = watch
        self._pending: dict[int, _Pending] = {}
        self._timers: dict[tuple[Session, str], int] = {}
        self._order = 0
        self._living = 0

    def begin(self, given: Mapping[str, Json]) -> Step:
        """Start the first session. Raises ContextError if the context does not fit the chart."""
        return self._begin(self.first, given)

    def deliver(self, session: Session, event: Event) -> str:
        """Have the session react; the reason if that changed nothing."""
        if session.status != "active":
            return f"the instance is {session.status}"
        machine, before = session.chart.machine, session.snapshot
        step = machine.step(before, event)
        self._take(session, step)
        is_failure = event.name.startswith("error.invoke.") and event.invokeid in before.invoked
        if step.reason and machine.strict and is_failure:
            why = f"{event.name}: {event.data['message']}"
            self._end(session, "failed", why)
            return why
        return step.reason

    @property
    def due_ns(self) -> int | None:
        """When the next thing is to happen by itself, if anything is."""
        return min((pending.due_ns for pending in self._pending.values()), default=None)

    def fire_until(self, end_ns: int | None) -> None:
        """Let happen what is due by then (None: all of it). Raises SimulationError if it does not end."""
        for _ in range(DELIVERIES_MAX):
            pending = min(self._pending.values(), default=None, key=_when)
            if pending is None or (end_ns is not None and pending.due_ns > end_ns):
                break
            self._forget(pending)
            self.now_ns = max(self.now_ns, pending.due_ns)
            receiver, event = self._addressed(pending)
            if not _is_stale(pending.sender, receiver, event):
                self.deliver(receiver, event)
        else:
            leaves = ", ".join(self.first.chart.machine.leaves(self.first.snapshot.configuration)[:8])
            raise SimulationError(
                f"timers still fire after {DELIVERIES_MAX} of them, at +{self.now_ns / 1e9:g}s in {leaves}; "
                "the chart sets them for ever"
            )
        if end_ns is not None:
            self.now_ns = max(self.now_ns, end_ns)

    # -- steps ---------------------------------------------------------------------------------------------------

    def _begin(self, session: Session, given: Mapping[str, Json]) -> Step:
        parent = session.parent
        kin = Kin(parent.id, session.invokeid, self.first.id) if parent else NOBODY
        step = session.chart.machine.start(given, session.id, kin)
        self._living += 1
        self._take(session, step)
        if step.reason:
            self._end(session, "failed", step.reason)
        return step

    def _take(self, session: Session, step: Step) -> None:
        self._watch(session, step)
        if step.reason:
            return
        session.snapshot = step.snapshot
        self._ask(session, step)
        if step.status != "active":
            session.output = step.output
            self._end(session, step.status, step.error)

    def _ask(self, session: Session, step: Step) -> None:
        """Do what the step asks for."""
        for timer in step.timers:
            if isinstance(timer, TimerCancelled):
                self._cancel_timer(session, timer)
            else:
                self._set_timer(session, timer)
        for request in step.requests:
            if isinstance(request, StartChild):
                self._start_child(session, request)
                continue
            if isinstance(request, SendEvent):
                self._enqueue(session, *self._message(session, request))
                continue
            child = session.children.get(request.invokeid)
            if child is None or child.status != "active":
                continue
            if isinstance(request, CancelChild):
                self._cancel(child)
            else:
                self._enqueue(session, child, request.event)

    def _end(self, session: Session, status: Status, why: str = "", *, by_parent: bool = False) -> None:
        """The session is over: of what it has set only what is on its way already arrives. A parent that has ended it
        hears nothing more."""
        session.status = status
        session.error = why
        self._living -= 1
        for pending in [p for p in self._pending.values() if p.sender is session]:
            if by_parent or pending.receiver is None or pending.receiver is session:
                self._forget(pending)
        if status == "failed":
            for child in session.children.values():
                if child.status == "active":
                    self._cancel(child)
        if session.parent is not None and not by_parent:
            invokeid = session.invokeid
            name, data = f"done.invoke.{invokeid}", session.output
            if status != "completed":
                name, data = f"error.invoke.{invokeid}", {"message": why or status}
            self._enqueue(session, session.parent, Event(name, data, invokeid=invokeid))

    # -- children ------------------------------------------------------------------------------------------------

    def _start_child(self, parent: Session, request: StartChild) -> None:
        invokeid = request.invokeid
        try:
            if self._living >= SESSIONS_MAX or parent.generation >= GENERATIONS_MAX:
                bound = f"{SESSIONS_MAX} sessions and {GENERATIONS_MAX} generations"
                raise SimulationError(f"expected at most {bound}, got more")
            chart = parent.chart.child(request)
            session = Session(chart, child_session(parent.id, invokeid), parent, invokeid)
            declared = {declaration.name for declaration in chart.definition.context}
            self._begin(session, {name: value for name, value in request.data.items() if name in declared})
            parent.children[invokeid] = session
        except StatewrightError as error:
            why = {"message": f"invoke {invokeid!r} failed: {error}"}
            self._enqueue(parent, parent, Event(f"error.invoke.{invokeid}", why, "platform", invokeid=invokeid))

    def _cancel(self, child: Session) -> None:
        """Its exit actions run, but nothing that it says after this is heard."""
        step = child.chart.machine.stop(child.snapshot)
        self._watch(child, step)
        for grandchild in child.children.values():
            if grandchild.status == "active":
                self._cancel(grandchild)
        self._end(child, "cancelled", by_parent=True)

    # -- the queue -----------------------------------------------------------------------------------------------

    def _set_timer(self, session: Session, timer: TimerSet) -> None:
        old = self._timers.get((session, timer.timer_id))
        if old is not None:
            self._forget(self._pending[old])
        self._put(_Pending(self.now_ns + timer.delay_ns, self._next(), session, timer))

    def _cancel_timer(self, session: Session, cancelled: TimerCancelled) -> None:
        for pending in [p for p in self._pending.values() if p.sender is session and p.timer is not None]:
            timer = pending.timer
            assert timer is not None
            if timer.timer_id == cancelled.timer_id or (cancelled.sendid and timer.sendid == cancelled.sendid):
                self._forget(pending)

    def _enqueue(self, sender: Session, receiver: Session, event: Event) -> None:
        self._put(_Pending(self.now_ns, self._next(), sender, None, receiver, event))

    def _next(self) -> int:
        self._order += 1
        return self._order

    def _put(self, pending: _Pending) -> None:
        self._pending[pending.order] = pending
        if pending.timer is not None:
            self._timers[pending.sender, pending.timer.timer_id] = pending.order

    def _forget(self, pending: _Pending) -> None:
        del self._pending[pending.order]
        if pending.timer is not None:
            self._timers.pop((pending.sender, pending.timer.timer_id), None)

    def _addressed(self, pending: _Pending) -> tuple[Session, Event]:
        if pending.event is not None and pending.receiver is not None:
            return pending.receiver, pending.event
        assert pending.timer is not None
        return self._message(pending.sender, pending.timer)

    def _message(self, sender: Session, sent: TimerSet | SendEvent) -> tuple[Session, Event]:
        """Who gets it, and as what: if there is nobody at the target, the sender gets `error.communication`."""
        receiver = self._find(sender, sent.target)
        if receiver is None:
            reason = {"reason": f"send {sent.event!r} failed: no session at {sent.target!r}"}
            return sender, Event("error.communication", reason, "platform", sent.sendid)
        event = Event(
            sent.event,
            sent.data,
            sendid=sent.sendid,
            origin=location(sender.id) if sent.origintype else "",
            origintype=sent.origintype,
            invokeid=sender.invokeid if receiver is sender.parent else "",
        )
        return receiver, event

    def _find(self, sender: Session, target: str) -> Session | None:
        if not target:
            return sender
        found = None
        if target == "#_parent":
            found = sender.parent
        elif target.startswith(prefix := location("")):
            found = self._by_id(target.removeprefix(prefix))
        else:
            found = sender.children.get(target.removeprefix("#_"))
        return found if found is not None and found.status == "active" else None

    def _by_id(self, session_id: str) -> Session | None:
        stack = [self.first]
        while stack:
            session = stack.pop()
            if session.id == session_id and session.status == "active":
                return session
            stack.extend(session.children.values())
        return None


def _is_stale(sender: Session, receiver: Session, event: Event) -> bool:
    """Whether an event is from a child in whose place there is another by now."""
    child = receiver.children.get(event.invokeid) if event.invokeid and receiver is sender.parent else None
    return child is not None and child is not sender


def _when(pending: _Pending) -> tuple[int, int]:
    return pending.due_ns, pending.order
