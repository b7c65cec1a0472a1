"""What can never happen: states that are never entered, transitions that are never taken."""

from __future__ import annotations

from collections.abc import Iterator

from statewright.statecharts import definition as d
from statewright.statecharts.checks.subject import Subject, trigger
from statewright.statecharts.errors import Fault
from statewright.statecharts.machine import ChartState


def unreachable(subject: Subject) -> Iterator[Fault]:
    """States that nothing leads to, or that no sequence of events reaches. Of a branch, its top."""
    machine, exploration = subject.machine, subject.exploration
    led_to = _led_to(machine.root)
    entered = exploration.visited | 1 if exploration.is_complete else led_to
    for node in d.walk_states(subject.definition):
        state = machine.by_id[node.id]
        parent = state.parent.bit if state.parent is not None else 0
        if state.is_history or state.bit & entered & led_to or not (parent & entered & led_to or not parent):
            continue
        why = "no sequence of events does so" if state.bit & led_to else "nothing leads to it"
        yield subject.fault(node, f"state {node.id!r} can never be entered: {why}")


def _led_to(root: ChartState) -> int:
    """The states that some transition or initial leads to, guards and order aside."""
    reached = 0
    stack = [root]
    while stack:
        state = stack.pop()
        if reached & state.bit:
            continue
        reached |= state.bit
        if state.parent is not None:
            stack.append(state.parent)
        # Being inside a compound state does not mean having entered it by default, but then something leads there too.
        default = state.initial_states if state.is_compound or state.is_history else ()
        stack.extend(state.children if state.is_parallel else default)
        for transition in state.transitions:
            stack.extend(transition.targets)
    return reached


def never_taken(subject: Subject) -> Iterator[Fault]:
    """Transitions that an earlier one of their state always beats, and those that nothing ever comes to."""
    shadowed = {id(subject.transitions[conflict.loser][1]) for conflict in subject.exploration.conflicts}
    owners: list[d.Definition | d.State] = [subject.definition, *d.walk_states(subject.definition)]
    for owner in owners:
        sure: list[d.Transition] = []
        for transition in owner.transitions:
            winner = next((earlier for earlier in sure if _covers(earlier, transition)), None)
            if winner is not None:
                shadowed.add(id(transition))
                yield subject.fault(
                    transition,
                    f"the transition for {trigger(transition)} can never be taken: "
                    f"an earlier one without a guard{subject.where(winner)} takes it",
                )
            if transition.guard is None:
                sure.append(transition)
    if subject.exploration.is_complete:
        for number, (owner, transition) in enumerate(subject.transitions):
            if number not in subject.taken and id(transition) not in shadowed:
                yield from _idle(subject, owner, transition)


def _idle(subject: Subject, owner: d.Definition | d.State, transition: d.Transition) -> Iterator[Fault]:
    """Why a transition that nothing shadows is never taken, unless its state is never entered at all."""
    machine, exploration = subject.machine, subject.exploration
    bit = machine.by_id[owner.id].bit if isinstance(owner, d.State) else 1
    if bit != 1 and not exploration.visited & bit:
        return
    at_rest = any(node.configuration & bit and not node.completed for node in exploration.nodes)
    if (transition.events or transition.delay) and not at_rest:
        why = "the chart never rests in its state"
    elif transition.events and all(f"{event}.".startswith("done.state.") for event in transition.events):
        why = "that never comes about"
    elif transition.guard is not None:
        why = f"its guard {transition.guard!r} is never true there" if isinstance(transition.guard, str) else ""
    else:
        why = ""
    message = f"the transition for {trigger(transition)} can never be taken"
    yield subject.fault(transition, f"{message}: {why or 'another one is always taken instead'}")


def _covers(earlier: d.Transition, later: d.Transition) -> bool:
    if earlier.delay or later.delay or not earlier.events or not later.events:
        return bool(earlier.events) == bool(later.events) and earlier.delay == later.delay
    return all(any(includes(wide, narrow) for wide in earlier.events) for narrow in later.events)


def includes(wide: str, narrow: str) -> bool:
    """Whether every event that `narrow` matches is one that `wide` matches."""
    wide, narrow = (text.removesuffix("*").removesuffix(".") for text in (wide, narrow))
    return not wide or narrow == wide or narrow.startswith(f"{wide}.")
