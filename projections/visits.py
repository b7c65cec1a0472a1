"""The way that one instance went through its chart: how often each state was entered and each transition taken.

Pure: a fold over the instance's facts, with the chart it is pinned to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from statewright.engine.events import Fact, Macrostep, Status
from statewright.engine.instance import Instance, evolve
from statewright.statecharts.chart import Chart
from statewright.statecharts.facts import Taken, Verdict
from statewright.statecharts.machine import ChartTransition


class Visits(msgspec.Struct, frozen=True):
    """Where an instance is and where it has been.

    configuration: the active states in document order; of one that has ended, those in which it did.
    entered: state id -> how often. taken: the `order` of a machine's transition -> how often. failure: why it failed.
    """

    instance: str
    status: Status
    configuration: tuple[str, ...]
    entered: Mapping[str, int]
    taken: Mapping[int, int]
    failure: str = ""


def visits(chart: Chart, facts: Iterable[Fact]) -> Visits:
    """Fold the facts of one instance, in order, of which there is at least one. `chart`: the one it is pinned to."""
    instance: Instance | None = None
    entered: Counter[str] = Counter()
    taken: Counter[int] = Counter()
    for fact in facts:
        instance = evolve(instance, fact)
        if isinstance(fact, Macrostep):
            entered.update(fact.entered)
            found = (_transition(chart, one, fact.guards) for one in fact.taken)
            taken.update(transition.order for transition in found if transition is not None)
    assert instance is not None
    return Visits(instance.id, instance.status, instance.configuration, dict(entered), dict(taken), instance.error)


def _transition(chart: Chart, taken: Taken, verdicts: Iterable[Verdict]) -> ChartTransition | None:
    """The transition that a fact speaks of. Of several between the same states on the same event it was the first
    whose guard held, or the one without a guard."""
    machine = chart.machine
    state = machine.by_id.get(taken.source) if taken.source else machine.root
    if state is None:  # Of a definition that the instance has left (`instance_modified`).
        return None
    handlers = machine.handlers(taken.event) if taken.event else machine.eventless
    fitting = [
        candidate.transition
        for candidate in handlers.by_bit.get(state.bit, ())
        if candidate.transition.target_ids == taken.targets
    ]
    passed = {verdict.guard for verdict in verdicts if verdict.passed and _same(verdict, taken)}
    held = (transition for transition in fitting if not transition.guard or transition.guard in passed)
    return next(held, None)


def _same(verdict: Verdict, taken: Taken) -> bool:
    return verdict.state == taken.source and verdict.event == taken.event
