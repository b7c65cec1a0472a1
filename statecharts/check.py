"""Static analysis of a chart that is valid but may not mean what its author wanted. Warnings, each with its place."""

from __future__ import annotations

from collections.abc import Iterator

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.errors import Fault
from statewright.statecharts.machine import ChartState


def check(chart: Chart) -> list[Fault]:
    """What looks wrong, in the order of lines (or of the document, without a file)."""
    found = [*chart.warnings, *_unreachable(chart), *_shadowed(chart), *_unheard(chart)]
    return sorted(found, key=lambda fault: fault.line or 0)


def _unreachable(chart: Chart) -> Iterator[Fault]:
    """States that no transition and no initial leads to, guards aside. Of a branch, its top."""
    machine = chart.machine
    reached = _reachable(machine.root)
    for node in d.walk_states(chart.definition):
        state = machine.by_id[node.id]
        parent_reached = state.parent is None or state.parent.bit & reached
        if not state.bit & reached and parent_reached and not state.is_history:
            message = f"state {node.id!r} can never be entered: nothing leads to it"
            yield chart.places.fault(node, message, severity="warning")


def _reachable(root: ChartState) -> int:
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
        stack.extend(state.children if state.is_parallel else state.initial_states if _by_default(state) else ())
        for transition in state.transitions:
            stack.extend(transition.targets)
    return reached


def _by_default(state: ChartState) -> bool:
    return state.is_compound or state.is_history


def _shadowed(chart: Chart) -> Iterator[Fault]:
    """Transitions that an earlier one of their state always beats."""
    owners: list[d.Definition | d.State] = [chart.definition, *d.walk_states(chart.definition)]
    for owner in owners:
        sure: list[d.Transition] = []
        for transition in owner.transitions:
            winner = next((earlier for earlier in sure if _covers(earlier, transition)), None)
            if winner is not None:
                what = _trigger(transition)
                line = chart.places.line(chart.places.of(winner)[0])
                where = f" on line {line}" if line else ""
                message = (
                    f"the transition for {what} can never be taken: an earlier one without a guard{where} takes it"
                )
                yield chart.places.fault(transition, message, severity="warning")
            if transition.guard is None:
                sure.append(transition)


def _covers(earlier: d.Transition, later: d.Transition) -> bool:
    if earlier.delay or later.delay or not earlier.events or not later.events:
        return bool(earlier.events) == bool(later.events) and earlier.delay == later.delay
    return all(any(_includes(wide, narrow) for wide in earlier.events) for narrow in later.events)


def _includes(wide: str, narrow: str) -> bool:
    """Whether every event that `narrow` matches is one that `wide` matches."""
    wide, narrow = (text.removesuffix("*").removesuffix(".") for text in (wide, narrow))
    return not wide or narrow == wide or narrow.startswith(f"{wide}.")


def _trigger(transition: d.Transition) -> str:
    if transition.events:
        return repr(" ".join(transition.events))
    return f"the delay {transition.delay!r}" if transition.delay else "no event (always)"


def _unheard(chart: Chart) -> Iterator[Fault]:
    """Events that the chart raises or sends to itself and nowhere handles."""
    for action in d.walk_actions(chart.definition):
        if isinstance(action, d.Send) and action.target not in ("", "#_internal"):
            continue
        if isinstance(action, d.Raise | d.Send) and action.event and not chart.machine.handlers(action.event).states:
            message = f"event {action.event!r} is {_SAID[type(action)]}, but no transition handles it"
            yield chart.places.fault(action, message, severity="warning")


_SAID: dict[type, str] = {d.Raise: "raised", d.Send: "sent"}
