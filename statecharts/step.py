"""The step function: one event, one macrostep (SCXML 1.0, Appendix D).

Pure: same machine, snapshot and event, same Step; nothing is performed, nothing outside the `Macrostep` changes.
The steps are the Recommendation's: transitions are selected for all regions before any moves, conflicts are
resolved in document order, exit runs inside out, entry outside in, internal events go before anything external.

Where it differs in order of work, not in outcome: selection starts from the active states that handle the event (a
mask), not from every atomic state, so that what does not change costs nothing.

Strict charts: a failing action raises `error.execution`, as in SCXML, but if no transition takes that up the whole
macrostep is refused and nothing has changed; an engine that records approvals must not go on after half an action.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from statewright.statecharts import children
from statewright.statecharts.caches import JOINT_MAX, PLANS_MAX, WIDE_MAX, keep
from statewright.statecharts.children import Family
from statewright.statecharts.context import Context
from statewright.statecharts.definition import Json
from statewright.statecharts.expressions import ExpressionError
from statewright.statecharts.facts import (
    Effect,
    Event,
    Snapshot,
    Step,
    StepRecord,
    Taken,
    TimerCancelled,
    TimerSet,
    Verdict,
)
from statewright.statecharts.plans import EntrySet, Plan

if TYPE_CHECKING:
    from statewright.statecharts.actions import Block
    from statewright.statecharts.machine import Candidate, ChartMachine, ChartState, ChartTransition, Handlers

MICROSTEPS_MAX = 1000
"""Microsteps and internal events in one macrostep (or two for each state, in charts that are that large); a chart that
exceeds it is taken to go round for ever."""
VERDICTS_MAX = 100
"""Verdicts kept of a macrostep that was given up; one that went round for ever has thousands."""
LISTED_MAX = 8
"""States and events listed in a reason before it says how many more there are."""

NO_EVENT = Event("")


class Refused(Exception):
    """The macrostep is given up; the snapshot stays as it was. Never leaves this module."""


class ActionError(Exception):
    """An action failed: which, where and why. Becomes the event `name`, about the send `sendid` if it was one."""

    def __init__(self, reason: str, name: str = "error.execution", sendid: str = "") -> None:
        super().__init__(reason)
        self.name = name
        self.sendid = sendid


def start(machine: ChartMachine, context: Context, given: Collection[str] = ()) -> Step:
    """Enter the chart (procedure interpret, up to the first external event). `given`: the fields that have been given a
    value, which their `expr` does not change."""
    before = Snapshot(0, context)
    run = Macrostep(machine, before, NO_EVENT)
    try:
        for name, block in machine.first_values:
            if name not in given:
                run.run(block)
        entry = EntrySet(machine, {})
        entry.add_descendants(machine.root)
        run.perform(Plan(machine, 0, entry.enters, entry.defaults, entry.history_defaults), ())
        run.settle()
    except Refused as refusal:
        return Step(snapshot=before, reason=str(refusal), guards=tuple(run.verdicts[:VERDICTS_MAX]))
    run.changes = dict(run.context)
    return run.result()


def step(machine: ChartMachine, snapshot: Snapshot, event: Event) -> Step:
    """React to one external event. A strict chart no longer hears of a child whose state it has left; SCXML's, in which
    what such a child has said before counts (the W3C's test 236), do."""
    if event.invokeid and machine.strict and machine.children and event.invokeid not in snapshot.invoked:
        return Step(snapshot=snapshot, reason=f"invoke {event.invokeid!r} is no longer active")
    handlers = machine.handlers(event.name)
    run = Macrostep(machine, snapshot, event)
    if snapshot.invoked:
        children.receive(run)
    enabled = run.select(handlers, snapshot.configuration & handlers.states)
    if not enabled and not run.has_changed():
        return Step(
            snapshot=snapshot, reason=_why_not(machine, snapshot, event, run.verdicts), guards=tuple(run.verdicts)
        )
    try:
        if enabled:
            run.microstep(enabled)
        run.settle()
    except Refused as refusal:
        return Step(snapshot=snapshot, reason=str(refusal), guards=tuple(run.verdicts[:VERDICTS_MAX]))
    if not run.taken and not run.has_changed():  # an error was raised, and nothing has come of it
        return Step(
            snapshot=snapshot, reason=_why_not(machine, snapshot, event, run.verdicts), guards=tuple(run.verdicts)
        )
    return run.result()


def stop(machine: ChartMachine, snapshot: Snapshot) -> Step:
    """Leave all states because the session is cancelled (procedure exitInterpreter)."""
    run = Macrostep(machine, snapshot, NO_EVENT)
    try:
        run.finish()
    except Refused as refusal:
        return Step(snapshot=snapshot, reason=str(refusal))
    return run.result()


class Macrostep:
    """The working values of one macrostep. Compiled actions read and extend them."""

    __slots__ = (
        "before",
        "changes",
        "configuration",
        "context",
        "effects",
        "entered",
        "event",
        "exited",
        "family",
        "final",
        "history",
        "internal",
        "logs",
        "machine",
        "output",
        "raised",
        "records",
        "serial",
        "steps",
        "taken",
        "timers",
        "trigger",
        "verdicts",
    )

    def __init__(self, machine: ChartMachine, snapshot: Snapshot, event: Event) -> None:
        self.machine = machine
        self.configuration = snapshot.configuration
        self.context = snapshot.context
        self.history = snapshot.history
        self.serial = snapshot.serial
        self.before = snapshot
        self.family: Family | None = None
        self.event = event
        self.trigger = event.name
        self.internal: deque[Event] | None = None
        self.timers: list[TimerSet | TimerCancelled] = []
        self.effects: list[Effect] = []
        self.verdicts: list[Verdict] = []
        self.changes: dict[str, Json] | None = None
        self.records: dict[str, tuple[str, ...]] | None = None
        self.steps: dict[str, str] | None = None
        self.logs: list[str] | None = None
        self.raised: list[str] | None = None
        self.taken: tuple[Taken, ...] = ()
        self.exited: tuple[str, ...] = ()
        self.entered: tuple[str, ...] = ()
        self.final: ChartState | None = None
        self.output: Json = None

    # -- selection ---------------------------------------------------------------------------------------------

    def select(self, handlers: Handlers, states: int) -> tuple[Candidate, ...]:
        """Procedures selectTransitions and removeConflictingTransitions: of `states`, the active ones that handle
        the event, the transitions to take, in the order in which the atomic states select them."""
        if not states:
            return ()
        single = handlers.by_bit.get(states)
        if single is not None:
            chosen = self._first_enabled(single)
            return (chosen,) if chosen is not None else ()
        if not states & ~handlers.plain:
            remembered = handlers.chosen.get(states)
            if remembered is not None:
                return remembered
        selected = self._select_each(handlers, states)
        if len(selected) > 1:
            selected = self._without_conflicts(selected)
        enabled = tuple(selected)
        if not states & ~handlers.plain and (len(enabled) <= JOINT_MAX or len(handlers.chosen) < WIDE_MAX):
            keep(handlers.chosen, states, enabled, PLANS_MAX)
        return enabled

    def _select_each(self, handlers: Handlers, states: int) -> list[Candidate]:
        """What each state selects, in the order of the atomic states that select it."""
        selected = []
        atomic = self.configuration & self.machine.atomic
        covered = 0
        by_index = self.machine.by_index
        while states:
            # Highest bit first: descendants before ancestors, so that an inner transition covers its leaves.
            index = states.bit_length() - 1
            state = by_index[index]
            states ^= state.bit
            leaves = atomic & (state.descendants | state.bit) & ~covered
            if leaves:
                chosen = self._first_enabled(handlers.by_bit[state.bit])
                if chosen is not None:
                    covered |= leaves
                    selected.append((leaves & -leaves, chosen))
        selected.sort(key=_first_leaf)
        return [chosen for _, chosen in selected]

    def _first_enabled(self, candidates: tuple[Candidate, ...]) -> Candidate | None:
        for candidate in candidates:
            transition = candidate.transition
            if not transition.guard:
                return candidate
            try:
                if transition.function is not None:
                    passed = transition.function(self.context, self.event)
                else:
                    passed = transition.expression.evaluate(self.context, self.event, self.configuration)  # type: ignore[union-attr]
            except Exception as error:  # whatever a user's guard raises
                self._guard_failed(candidate, _describe(error))
                continue
            if passed is True:
                self.verdicts.append(candidate.passed)
                return candidate
            if passed is False:
                self.verdicts.append(candidate.failed)
            else:
                self._guard_failed(candidate, f"expected true or false, got {passed!r}")
        return None

    def _guard_failed(self, candidate: Candidate, error: str) -> None:
        verdict = candidate.failed
        self.verdicts.append(Verdict(verdict.state, verdict.event, verdict.guard, False, error))
        if not self.machine.strict:
            self.fail(f"guard '{verdict.guard}' of state {verdict.state!r} failed: {error}")

    def _without_conflicts(self, enabled: list[Candidate]) -> list[Candidate]:
        exits = [self.machine.exit_set(c.transition, self.configuration, self.history) for c in enabled]
        union = 0
        for leaves in exits:
            if union & leaves:
                break
            union |= leaves
        else:
            return enabled
        kept: list[tuple[Candidate, int]] = []
        for candidate, leaves in zip(enabled, exits, strict=True):
            rivals = [pair for pair in kept if pair[1] & leaves]
            ancestors = candidate.transition.owner.ancestors
            if all(ancestors & other.transition.owner.bit for other, _ in rivals):
                kept = [pair for pair in kept if pair not in rivals]
                kept.append((candidate, leaves))
        return [candidate for candidate, _ in kept]

    # -- microsteps --------------------------------------------------------------------------------------------

    def microstep(self, enabled: tuple[Candidate, ...]) -> None:
        """Procedure microstep: exit, transition content, entry."""
        candidate = enabled[0]
        transition = candidate.transition
        if len(enabled) == 1 and transition.plans is not None:
            plan = transition.plans.get(self.configuration & transition.exit_bits)  # type: ignore[operator]
            if plan is None:
                plan = self.machine.plan(transition, self.configuration)
            self.taken = (candidate.taken,) if not self.taken else (*self.taken, candidate.taken)
            self.perform(plan, (transition,))
            return
        transitions = tuple([candidate.transition for candidate in enabled])
        self.taken += tuple([candidate.taken for candidate in enabled])
        self.perform(self.machine.joint_plan(transitions, self.configuration, self.history), transitions)

    def perform(self, plan: Plan, transitions: tuple[ChartTransition, ...]) -> None:
        """Carry out a plan with the content of its transitions; the configuration follows for the actions to ask."""
        before = self.configuration
        if plan.records:
            self._record(plan.records)
        for blocks, gone in plan.exits:
            self.configuration = before & ~gone
            for block in blocks:
                self.run(block)
        self.configuration = before = before & ~plan.leaves
        if self.effects and plan.exited:
            self._cancel_effects(plan.exited)
        for transition in transitions:
            if transition.block:
                self.run(transition.block)
        for blocks, come in plan.entries:
            self.configuration = before | come
            for block in blocks:
                self.run(block)
        self.configuration = before | plan.enters
        if plan.exited:
            self.exited = self.exited + plan.exited if self.exited else plan.exited
        if plan.entered:
            self.entered = self.entered + plan.entered if self.entered else plan.entered

    def settle(self) -> None:
        """Eventless transitions, then internal events, until neither is left or the chart is done."""
        machine = self.machine
        steps = 0
        while self.final is None:
            states = self.configuration & machine.eventless.states
            enabled = self.select(machine.eventless, states) if states else ()
            if not enabled:
                if self.internal:
                    enabled = self._next_internal(self.internal.popleft())
                elif self.family is not None and self.family.to_invoke:
                    children.begin(self)
                else:
                    return
            if enabled:
                self.microstep(enabled)
            steps += 1
            if steps >= MICROSTEPS_MAX and steps >= 2 * len(machine.by_index):
                active = _some([repr(name) for name in machine.leaves(self.configuration)])
                raise Refused(
                    f"the chart did not settle within {steps} microsteps; it was last in {active}, "
                    f"and took transitions of {_some(_sources(self.taken[-LISTED_MAX:]))}"
                )
        self.finish()

    def _next_internal(self, event: Event) -> tuple[Candidate, ...]:
        self.event = event
        self.raised = self.raised or []
        self.raised.append(event.name)
        handlers = self.machine.handlers(event.name)
        enabled = self.select(handlers, self.configuration & handlers.states)
        if not enabled and self.machine.strict and _is_failure(event):
            raise Refused(event.data["reason"])
        return enabled

    def finish(self) -> None:
        """Procedure exitInterpreter: the exit actions of all active states; the configuration is kept as it was."""
        configuration = self.configuration
        for blocks, gone in Plan(self.machine, configuration).exits:
            self.configuration = configuration & ~gone
            for block in blocks:
                self.run(block)
        self.configuration = configuration
        self.effects = [effect for effect in self.effects if effect.policy is None or not effect.policy.until]
        if self.final is not None and self.final.output is not None:
            try:
                self.output = self.final.output(self)
            except ActionError as error:
                self.fail(str(error))
        if self.machine.strict:
            for event in self.internal or ():
                if _is_failure(event):
                    raise Refused(event.data["reason"])

    def _cancel_effects(self, exited: tuple[str, ...]) -> None:
        """Drop what was asked for in this macrostep until one of the `exited` states is left."""
        if any(effect.policy is not None for effect in self.effects):
            self.effects = [e for e in self.effects if e.policy is None or e.policy.until not in exited]

    def _record(self, records: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        changed = {key: value for key, value in records if self.history.get(key) != value}
        if changed:
            self.records = {**(self.records or {}), **changed}
            self.history = {**self.history, **changed}

    # -- what actions use ----------------------------------------------------------------------------------------

    def run(self, block: Block) -> None:
        """Run one block of executable content; a failure ends the block (SCXML 4.9)."""
        try:
            for action in block:
                action(self)
        except ActionError as error:
            self.fail(str(error), error.name, error.sendid)

    def fail(self, reason: str, name: str = "error.execution", sendid: str = "") -> None:
        self.enqueue(Event(name, {"reason": reason}, "platform", sendid))

    def has_changed(self) -> bool:
        """Whether anything is to be said although no transition is enabled: a guard failed in a dynamic chart, a
        `finalize` has run, the event is passed on to a child."""
        requests = self.family is not None and self.family.requests
        return bool(self.internal or self.changes or requests or self.effects or self.timers or self.logs or self.steps)

    def relate(self) -> Family:
        """What this macrostep has to do with children and late data; made when it is first asked for."""
        if self.family is None:
            self.family = Family(self.before)
        return self.family

    def enqueue(self, event: Event) -> None:
        if self.internal is None:
            self.internal = deque()
        self.internal.append(event)

    def assign(self, changes: Mapping[str, Json]) -> None:
        self.context = Context(self.context)
        dict.update(self.context, changes)
        self.changes = {**self.changes, **changes} if self.changes else dict(changes)

    def record(self, step: str, status: str) -> None:
        """The last record of a step counts: leaving a state may say "cancelled", and what it was left for the truth."""
        if self.steps is None:
            self.steps = {}
        else:
            self.steps.pop(step, None)
        self.steps[step] = status

    def cancel_own_timer(self, timer_id: str) -> None:
        """Cancel a timer because its state is left; the one that has just fired is gone already."""
        if timer_id != self.trigger or any(timer.timer_id == timer_id for timer in self.timers):
            self.timers.append(TimerCancelled(timer_id))

    def result(self) -> Step:
        # Few charts have children or late data: the others carry on what there was.
        family: Family | Snapshot = self.family or self.before
        return Step(
            snapshot=Snapshot(
                self.configuration, self.context, self.history, self.serial, family.entered, family.invoked
            ),
            taken=self.taken,
            exited=self.exited,
            entered=self.entered,
            guards=tuple(self.verdicts),
            context=self.changes or {},
            history=self.records or {},
            timers=tuple(self.timers),
            requests=tuple(self.family.requests) if self.family is not None else (),
            effects=tuple(self.effects),
            raised=tuple(self.raised) if self.raised else (),
            logs=tuple(self.logs) if self.logs else (),
            records=tuple([StepRecord(*record) for record in self.steps.items()]) if self.steps else (),
            status="active" if self.final is None else self.final.status,
            output=self.output,
            error=self._error() if self.final is not None and self.final.status != "completed" else "",
        )

    def _error(self) -> str:
        """Why the instance ends other than completed, as the context says."""
        error = self.context.get("error")
        return error if isinstance(error, str) else ""


def _first_leaf(selected: tuple[int, Any]) -> int:
    return selected[0]


def _is_failure(event: Event) -> bool:
    return event.type == "platform" and event.name == "error.execution"


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, ExpressionError) else f"{type(error).__name__}: {error}"


def _why_not(machine: ChartMachine, snapshot: Snapshot, event: Event, verdicts: list[Verdict]) -> str:
    """Why nothing was enabled: the guards that said no, or who would have accepted what."""
    if verdicts:
        said = [
            f"guard {verdict.guard!r} of state {verdict.state!r} "
            + (f"failed: {verdict.error}" if verdict.error else "was false")
            for verdict in verdicts
        ]
        return _some(said, "; ")
    leaves = machine.leaves(snapshot.configuration)
    names = _some([repr(name) for name in leaves])
    accepts = _some([repr(name) for name in machine.accepts(snapshot.configuration)])
    plural = "s" if len(leaves) != 1 else ""
    accepting = "accept" if plural else "accepts"
    return f"no transition for {event.name!r} in state{plural} {names}, which {accepting} {accepts or 'no event'}"


def _some(items: list[str], separator: str = ", ") -> str:
    rest = len(items) - LISTED_MAX
    return separator.join(items[:LISTED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _sources(taken: tuple[Taken, ...]) -> list[str]:
    return [repr(name) for name in dict.fromkeys(item.source for item in taken)]
