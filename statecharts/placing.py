"""Placing: an instance is put into a configuration that no event has led it to (modification, in the words of BPMN).

    place(machine, snapshot, targets, keep) -> Step

The states of the configuration are entered as any transition enters them (SCXML 1.0, procedure enterStates): entry
actions run, delays are set, done events are raised, and the macrostep goes on until the chart has settled. States that
are kept are in it already: nothing of theirs runs again, also if the state around them is another by now. No exit
action runs for what was left, as when an instance is cancelled from outside. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from statewright.statecharts.facts import Snapshot, Step
from statewright.statecharts.plans import EntrySet, Plan
from statewright.statecharts.step import NO_EVENT, Macrostep, Refused

if TYPE_CHECKING:
    from statewright.statecharts.machine import ChartMachine


def place(machine: ChartMachine, before: Snapshot, targets: Iterable[str], keep: Collection[str] = ()) -> Step:
    """Enter `targets` (states of any kind, with their ancestors, the initial states below them and the regions beside
    them) with the context, history and serial of `before`; its configuration doesn't matter. `Step.entered` are the
    states that were entered, `Step.exited` those of them that were left again while the chart settled.

    If it can't be, `Step.reason` says why: no such state, two targets in the same place, a kept state that is not in
    it, an action that fails. Raises nothing.
    """
    wanted, kept = [*targets], [*keep]
    unknown = next((name for name in (*wanted, *kept) if name not in machine.by_id), None)
    if unknown is not None:
        return Step(snapshot=before, reason=f"chart {machine.chart_name!r} has no state {unknown!r}")
    if not wanted:
        return Step(snapshot=before, reason="expected at least one state to be placed in, got none")
    entry = EntrySet(machine, before.history)
    states = entry.effective_targets(machine.by_id[name] for name in wanted)
    # All targets and their ancestors first: a region is entered by default only if no target is in it.
    for state in states:
        entry.enters |= state.bit | state.ancestors
    for state in states:
        if not entry.enters & state.descendants:
            entry.add_descendants(state)
    for state in states:
        entry.add_ancestors(state, None)
    enters = entry.enters | machine.root.bit
    stay = machine.root.bit
    for name in kept:
        stay |= machine.by_id[name].bit
    if fault := _fault(machine, enters, stay):
        return Step(snapshot=before, reason=fault)
    empty = Snapshot(stay, before.context, before.history, before.serial, before.entered, before.invoked)
    run = Macrostep(machine, empty, NO_EVENT)
    try:
        run.perform(Plan(machine, 0, enters & ~stay, entry.defaults & ~stay, entry.history_defaults), ())
        run.settle()
    except Refused as refusal:
        return Step(snapshot=before, reason=str(refusal))
    return run.result()


def own_timers(machine: ChartMachine, states: Iterable[str]) -> frozenset[str]:
    """The ids of the timers (of `after`) that belong to `states`; those that the chart doesn't have own none."""
    found = (machine.by_id[name] for name in states if name in machine.by_id)
    return frozenset(t.delay_event for state in found for t in state.transitions if t.delay_event)


def _fault(machine: ChartMachine, enters: int, stay: int) -> str:
    """Why `enters` is no configuration in which `stay` can be kept, "" if it is (SCXML 3.11)."""
    for state in machine.members(enters):
        active = enters & state.child_bits
        if state.is_compound and active.bit_count() != 1:
            where = f"state {state.id!r}" if state.parent is not None else "the chart"
            names = ", ".join(repr(name) for name in machine.ids(active))
            return f"expected one active state in {where}, got {names or 'none'}"
    for state in machine.members(stay & ~enters):
        return f"expected a state to be kept that is among those to be active, got {state.id!r}"
    return ""
