"""What the checks look at: a chart, its exploration, and how its parts are called in messages."""

from __future__ import annotations

from functools import cached_property

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.errors import Fault, Severity
from statewright.statecharts.exploration import Edge, Exploration, explore
from statewright.statecharts.places import Places

LISTED_MAX = 8


class Subject:
    """One chart under analysis. `transitions` are its own with their owners, by number, as the exploration counts.

    `places` are where its parts are written: for a child's chart that is in the chart that invokes it.
    """

    def __init__(self, chart: Chart, places: Places | None = None) -> None:
        self.chart = chart
        self.places = places or chart.places
        self._about = f"in child chart {chart.name!r}: " if places is not None else ""
        self.machine = chart.machine
        self.definition = chart.definition
        self.transitions = self.exploration.transitions

    @cached_property
    def exploration(self) -> Exploration:
        return explore(self.chart.definition)

    @cached_property
    def taken(self) -> frozenset[int]:
        """The transitions that are taken somewhere, be it in a macrostep that never ends."""
        taken = {number for edge in self.exploration.all_edges() for number in edge.transitions}
        for endless in self.exploration.endless:
            taken |= {*endless.way, *endless.transitions}
        return frozenset(taken)

    def fault(self, node: d.Node, message: str, severity: Severity = "warning") -> Fault:
        return self.places.fault(node, f"{self._about}{message}", severity=severity)

    def where(self, node: d.Node) -> str:
        """` on line N`, or nothing without a file."""
        line = self.places.line(self.places.of(node)[0])
        return f" on line {line}" if line else ""

    def names(self, configuration: int) -> str:
        """The active leaves, quoted."""
        return listed([repr(name) for name in self.machine.leaves(configuration)])

    def state(self, state_id: str) -> d.State | d.Definition:
        """The part of the definition that a state's id stands for."""
        return self._states.get(state_id, self.definition)

    @cached_property
    def _states(self) -> dict[str, d.State]:
        return {state.id: state for state in d.walk_states(self.definition)}

    def leaves(self, edge: Edge) -> bool:
        """Whether the edge goes anywhere: a transition with a target is taken, be it back to where it came from."""
        return any(self.transitions[number][1].target for number in edge.transitions)


def listed(items: list[str]) -> str:
    """Some of them, and how many more there are."""
    rest = len(items) - LISTED_MAX
    return ", ".join(items[:LISTED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def trigger(transition: d.Transition) -> str:
    """What a transition waits for, as messages say it."""
    if transition.events:
        return repr(" ".join(transition.events))
    return f"the delay {transition.delay!r}" if transition.delay else "no event (always)"


def said(guard: d.Guard | None) -> str:
    """A guard as messages quote it."""
    return repr(guard if isinstance(guard, str) else guard.function) if guard is not None else ""
