"""Static analysis of a chart that is valid but may not mean what its author wanted: findings, each with its place.

The definition is looked at as it stands, and all that the chart can reach is explored with guards on data taken both
ways (see `exploration`). Where the exploration hits a bound, a finding says so, and nothing is said that would need the
rest.
"""

from __future__ import annotations

from collections.abc import Collection

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.checks import order, reachability, stuck, waits
from statewright.statecharts.checks.subject import Subject, listed
from statewright.statecharts.errors import Fault


def check(chart: Chart, handlers: Collection[str] | None = None, *, info: bool = False) -> list[Fault]:
    """What looks wrong, in the order of lines (or of the document, without a file).

    handlers: the names of the effects that somebody performs; an effect without is an error then. info: also what is
    often meant so, as findings of severity "info": waits without a timeout, effects whose failure nothing handles.
    That a bound was hit is always said. The charts of children are checked, too, each by itself.
    """
    found = [*chart.warnings, *_findings(Subject(chart), handlers, info=info)]
    invoking = [chart]
    for parent in invoking:  # it grows meanwhile
        for _, _, invoke in d.walk_invokes(parent.definition):
            if invoke.chart is not None:
                child = Chart(invoke.chart, chart.functions, folder=chart.folder)
                found += _findings(Subject(child, chart.places), handlers, info=info)
                invoking.append(child)
    return sorted(found, key=lambda fault: fault.line or 0)


def _findings(subject: Subject, handlers: Collection[str] | None, *, info: bool) -> list[Fault]:
    found = [
        *reachability.unreachable(subject),
        *reachability.never_taken(subject),
        *stuck.deadlocks(subject),
        *stuck.endless(subject),
        *order.ambiguous(subject),
        *order.conflicting(subject),
        *waits.unheard(subject),
    ]
    if handlers is not None:
        found += waits.unperformed(subject, handlers)
    if info:
        found += [*waits.without_timeout(subject), *waits.unhandled_failures(subject)]
    if subject.exploration.bounds:
        message = (
            f"not all that the chart can do was looked at: {'; '.join(subject.exploration.bounds)}; {_reached(subject)}"
        )
        found.append(subject.fault(subject.definition, message, "info"))
    return found


def _reached(subject: Subject) -> str:
    """How much of a chart was seen before its exploration ended."""
    entered = {*subject.machine.ids(subject.exploration.visited)}
    missed = [repr(state.id) for state in d.walk_states(subject.definition) if state.id not in entered]
    seen = f"seen were {len(subject.exploration.nodes):,} configurations"
    return f"{seen} with all states" if not missed else f"{seen} without the states {listed(missed)}"
