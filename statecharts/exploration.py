"""The configurations that a chart can reach, with guards on data taken both ways.

    exploration = explore(chart.definition)
    exploration.nodes[0]                    # where it begins
    exploration.path_to(node)               # the shortest way there, as edges

Breadth first over the abstract chart (see `abstraction`), whose microsteps are those of `step.Macrostep`. In each
configuration everything is tried that it could react to: one event for each descriptor that an active state handles,
each delay, each result. So the graph holds more than the chart can do with real data, and nothing less, as long as no
bound was hit, no action fails half way and guards don't fail.

A macrostep is searched as a graph of its own, so a loop in it is a cycle that is found and not a walk that has to be
given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from statewright.statecharts import definition as d
from statewright.statecharts.abstraction import Abstraction, asked_by
from statewright.statecharts.facts import Event, Snapshot
from statewright.statecharts.machine import Candidate, ChartMachine
from statewright.statecharts.plans import EntrySet, Plan
from statewright.statecharts.step import Macrostep

CONFIGURATIONS_MAX = 5_000
MICROSTEPS_MAX = 100_000
"""Microsteps tried in all, about two seconds. In a wide chart one counts for several, because it costs as much."""
OUTCOMES_MAX = 64
"""Ways in which the guards of one microstep are answered."""
STAGES_MAX = 1_000
"""Stages of one macrostep."""
QUEUE_MAX = 32
"""Internal events that wait at once; a chart that raises ever more has no end of them."""
CONFLICTS_MAX = 100

History = tuple[tuple[str, tuple[str, ...]], ...]
Known = frozenset[tuple[str, bool]]


class Stimulus(NamedTuple):
    """What the chart reacts to. kind: "event" from outside; "delay" of an active state; "result" of an effect or a
    child. `event` is its name ("" for the start); for a delay that of its timer."""

    event: str
    kind: Literal["start", "event", "delay", "result"]


class Outcome(NamedTuple):
    """What one guard said: transition number `transition` of the chart (in document order) passed or not."""

    transition: int
    passed: bool


class Node(NamedTuple):
    """A configuration in which the chart rests, with the history values it has then."""

    configuration: int
    history: History
    completed: bool


class Edge(NamedTuple):
    """One macrostep: from node `source` to node `target`, by their places in `Exploration.nodes`; -1 is before the
    start. `transitions` are those taken, `guards` what was asked, in order. Without transitions it is refused."""

    source: int
    target: int
    stimulus: Stimulus
    transitions: tuple[int, ...]
    guards: tuple[Outcome, ...]


class Endless(NamedTuple):
    """A macrostep that no guard ends: from node `source` by `stimulus`, if `guards` say so, along the transitions
    `way`, then round `transitions` through `states` (bits)."""

    source: int
    stimulus: Stimulus
    guards: tuple[Outcome, ...]
    way: tuple[int, ...]
    transitions: tuple[int, ...]
    states: int


class Conflict(NamedTuple):
    """Two transitions of different regions, enabled by the same event; `winner` was taken because it stands first."""

    winner: int
    loser: int


@dataclass(frozen=True)
class Exploration:
    """What was found. transitions: the chart's, in document order, each with its owner.

    nodes: in the order of their distance. edges: by source. start: the edges from before the start. visited: all
    states ever entered (bits), also on the way through a macrostep. lost: nodes that some stimulus leads from into an
    endless macrostep. bounds: why it is not all, empty if it is.
    """

    machine: ChartMachine
    transitions: tuple[tuple[d.Definition | d.State, d.Transition], ...]
    nodes: tuple[Node, ...]
    edges: tuple[tuple[Edge, ...], ...]
    start: tuple[Edge, ...]
    endless: tuple[Endless, ...]
    conflicts: tuple[Conflict, ...]
    visited: int
    lost: frozenset[int]
    bounds: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        return not self.bounds

    def all_edges(self) -> Iterator[Edge]:
        yield from self.start
        for edges in self.edges:
            yield from edges

    def path_to(self, node: int) -> list[Edge]:
        """The shortest way from the start to a node; the first edge is the start itself. [] for -1."""
        path: list[Edge] = []
        while node >= 0:
            edge = self._first_edges[node]
            path.append(edge)
            node = edge.source
        return path[::-1]

    @cached_property
    def _first_edges(self) -> dict[int, Edge]:
        """For each node the edge by which it was found."""
        first: dict[int, Edge] = {}
        for edge in self.all_edges():
            first.setdefault(edge.target, edge)
        return first


def explore(
    definition: d.Definition, *, configurations_max: int = CONFIGURATIONS_MAX, microsteps_max: int = MICROSTEPS_MAX
) -> Exploration:
    """All that the chart can reach within these bounds. The definition must be one that compiles."""
    return _Explorer(Abstraction(definition), configurations_max, microsteps_max).explore()


class _Micro(NamedTuple):
    """A stage of a macrostep: what decides how it goes on. `known`: the answers that still hold. `resting`: it was
    asked whether it goes on, and it does not."""

    configuration: int
    history: History
    queue: tuple[str, ...]
    known: Known
    completed: bool
    resting: bool = False


class _Way(NamedTuple):
    """From one stage to the next."""

    transitions: tuple[int, ...]
    guards: tuple[Outcome, ...]
    after: _Micro


class _Bounded(Exception):
    """The microsteps are used up. Never leaves this module."""


class _Run(Macrostep):
    """A macrostep that tells which transitions lost against one of another region."""

    __slots__ = ("conflicts",)

    def _without_conflicts(self, enabled: list[Candidate]) -> list[Candidate]:
        kept = super()._without_conflicts(enabled)
        self.conflicts: list[Conflict] = []
        exits = {id(one): self.machine.exit_set(one.transition, self.configuration, self.history) for one in enabled}
        for loser in enabled:
            for winner in kept if loser not in kept else ():
                one, other = winner.transition.owner, loser.transition.owner
                related = one.ancestors & other.bit or other.ancestors & one.bit
                if not related and exits[id(winner)] & exits[id(loser)]:
                    self.conflicts.append(Conflict(winner.transition.order, loser.transition.order))
        return kept


class _Explorer:
    def __init__(self, abstraction: Abstraction, configurations_max: int, microsteps_max: int) -> None:
        self.machine = abstraction.machine
        self.oracle = abstraction.oracle
        self.transitions = tuple(abstraction.transitions)
        self.configurations_max = configurations_max
        self.microsteps_max = microsteps_max
        self.left = microsteps_max
        self.nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self.endless: dict[tuple[int, ...], Endless] = {}
        self.conflicts: dict[Conflict, None] = {}
        self.bounds: dict[str, None] = {}
        self.visited = 0
        self.lost: set[int] = set()
        self._stimuli: dict[int, tuple[Stimulus, ...]] = {}
        self._other = _unheard_name(self.machine)

    def explore(self) -> Exploration:
        edges: list[tuple[Edge, ...]] = []
        start: tuple[Edge, ...] = ()
        try:
            start = tuple(self._macrostep(-1, Stimulus("", "start"), self._begin()))
            for number, node in enumerate(self.nodes):  # it grows meanwhile
                found: dict[Edge, None] = {}
                edges.append(())
                for stimulus in () if node.completed else self._stimuli_of(node.configuration):
                    found |= dict.fromkeys(self._react(node, number, stimulus))
                    edges[-1] = tuple(found)
        except _Bounded:
            self.bounds[f"it stopped after {self.microsteps_max} microsteps"] = None
        edges += [()] * (len(self.nodes) - len(edges))
        return Exploration(
            self.machine,
            self.transitions,
            tuple(self.nodes),
            tuple(edges),
            start,
            tuple(self.endless.values()),
            tuple(self.conflicts),
            self.visited,
            frozenset(self.lost),
            tuple(self.bounds),
        )

    # -- one macrostep ---------------------------------------------------------------------------------------------

    def _begin(self) -> list[_Way]:
        machine = self.machine

        def enter(run: _Run) -> tuple[int, ...]:
            entry = EntrySet(machine, {})
            entry.add_descendants(machine.root)
            run.perform(Plan(machine, 0, entry.enters, entry.defaults, entry.history_defaults), ())
            return ()

        return self._outcomes(_Micro(0, (), (), frozenset(), False), enter)

    def _react(self, node: Node, number: int, stimulus: Stimulus) -> list[Edge]:
        before = _Micro(node.configuration, node.history, (), frozenset(), False)
        return self._macrostep(number, stimulus, self._select(before, stimulus.event))

    def _macrostep(self, source: int, stimulus: Stimulus, first: list[_Way]) -> list[Edge]:
        """Search all the ways that a macrostep can go on after its first stage, and make an edge for each."""
        came: dict[_Micro, tuple[_Way, ...]] = {}
        for way in first:
            came.setdefault(way.after, (way,))
        stages = list(came)
        ways: dict[_Micro, list[_Way]] = {}
        for stage in stages:  # they grow meanwhile
            if len(ways) >= STAGES_MAX:
                self.bounds[f"a macrostep has more than {STAGES_MAX} stages"] = None
                break
            if len(stage.queue) > QUEUE_MAX:
                self.bounds[f"more than {QUEUE_MAX} raised events wait at once"] = None
                continue
            ways[stage] = self._go_on(stage)
            for way in ways[stage]:
                if way.after not in came:
                    came[way.after] = (*came[stage], way)
                    stages.append(way.after)
        whole: list[tuple[_Way, ...]] = [(way,) for way in first]
        whole += [(*came[stage], way) for stage, onward in ways.items() for way in onward]
        return list(self._edges(source, stimulus, whole, ways))

    def _edges(
        self, source: int, stimulus: Stimulus, begun: list[tuple[_Way, ...]], ways: Mapping[_Micro, list[_Way]]
    ) -> Iterator[Edge]:
        """What was begun, each followed to its end."""
        ends = _ends(ways)
        # Where the search was cut short, only that nothing at all comes to rest tells that there is no end.
        noted = bool(ends) and any(way.after not in ways for onward in ways.values() for way in onward)
        for came in begun:
            end = ends.get(came[-1].after)
            if end is None:
                self.lost.add(source)
                if not noted:
                    self._note_endless(source, stimulus, came, ways)
                noted = True
                continue
            whole = (*came, *end)
            target = self._node(whole[-1].after)
            if target is not None:
                transitions = tuple(t for way in whole for t in way.transitions)
                guards = tuple(g for way in whole for g in way.guards)
                yield Edge(source, target, stimulus, transitions, guards)

    def _go_on(self, micro: _Micro) -> list[_Way]:
        """What a stage leads to: eventless transitions, else the next internal event. Nothing if it rests there."""
        if micro.completed or micro.resting:
            return []
        if not micro.configuration & self.machine.eventless.states:
            return list(self._next_internal(_Way((), (), micro))) if micro.queue else []
        ways = []
        for way in self._select(micro, None):
            if way.transitions:
                ways.append(way)
            elif way.after.queue:
                ways += self._next_internal(way)
            else:
                ways.append(way._replace(after=way.after._replace(resting=True)))
        return ways

    def _next_internal(self, way: _Way) -> Iterator[_Way]:
        micro = way.after
        # Another event: what was asked about the one before holds no more.
        known = frozenset((key, said) for key, said in micro.known if "event" not in key and not key.endswith("()"))
        for onward in self._select(micro._replace(queue=micro.queue[1:], known=known), micro.queue[0]):
            yield onward._replace(guards=way.guards + onward.guards)

    def _select(self, micro: _Micro, event: str | None) -> list[_Way]:
        machine = self.machine
        handlers = machine.eventless if event is None else machine.handlers(event)

        def react(run: _Run) -> tuple[int, ...]:
            enabled = run.select(handlers, run.configuration & handlers.states)
            if enabled:
                run.microstep(enabled)
            return tuple([candidate.transition.order for candidate in enabled])

        return self._outcomes(micro, react, event or "")

    def _outcomes(self, micro: _Micro, act: Callable[[_Run], tuple[int, ...]], event: str = "") -> list[_Way]:
        """Do the same with every way of answering what it asks, at first all with yes, then with ever more noes."""
        waiting: deque[tuple[bool, ...]] = deque([()])
        ways: dict[_Way, None] = {}
        for _ in range(OUTCOMES_MAX):
            decisions = waiting.popleft()
            if self.left <= 0:
                raise _Bounded
            self.oracle.begin(decisions, dict(micro.known))
            run = _Run(self.machine, Snapshot(micro.configuration, {}, dict(micro.history)), Event(event))
            run.internal = deque(Event(name) for name in micro.queue)
            transitions = act(run)
            self.left -= 1 + run.configuration.bit_count() // 32 + (len(run.verdicts) + len(transitions)) // 4
            made = self.oracle.made
            for index in range(len(decisions), min(len(made), len(decisions) + OUTCOMES_MAX)):
                if len(waiting) <= OUTCOMES_MAX:
                    waiting.append((*made[:index], not made[index]))
            ways[self._way(run, transitions)] = None
            if not waiting:
                break
        else:
            self.bounds[f"guards of one microstep can be answered in more than {OUTCOMES_MAX} ways"] = None
        return list(ways)

    def _way(self, run: _Run, transitions: tuple[int, ...]) -> _Way:
        self.visited |= run.configuration
        for conflict in getattr(run, "conflicts", ()):
            if len(self.conflicts) < CONFLICTS_MAX:
                self.conflicts[conflict] = None
        guards = tuple(
            Outcome(order, verdict.passed) for verdict in run.verdicts if (order := asked_by(verdict.guard)) is not None
        )
        queue = tuple(event.name for event in run.internal or ())
        history = tuple(sorted(run.history.items()))
        known = frozenset(self.oracle.known.items())
        return _Way(transitions, guards, _Micro(run.configuration, history, queue, known, run.final is not None))

    # -- nodes and stimuli -----------------------------------------------------------------------------------------

    def _node(self, micro: _Micro) -> int | None:
        node = Node(micro.configuration, micro.history, micro.completed)
        number = self._numbers.get(node)
        if number is None:
            if len(self.nodes) >= self.configurations_max:
                self.bounds[f"there are more than {self.configurations_max} configurations"] = None
                return None
            number = self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return number

    def _note_endless(
        self, source: int, stimulus: Stimulus, came: tuple[_Way, ...], ways: Mapping[_Micro, list[_Way]]
    ) -> None:
        """Follow what has no end once round, to say which transitions it takes."""
        path = list(came)
        places = {way.after: place for place, way in enumerate(path)}
        while onward := ways.get(path[-1].after):
            path.append(onward[0])
            if onward[0].after in places:
                break
            places[onward[0].after] = len(path) - 1
        begins = places[path[-1].after]
        cycle = path[begins + 1 :] or path  # no way round: it never is where it was before
        transitions = tuple(dict.fromkeys(t for way in cycle for t in way.transitions))
        states = 0
        for way in cycle:
            states |= way.after.configuration
        guards = tuple(outcome for way in path[: begins + 1] for outcome in way.guards)
        # Of all that leads into the same round, the first found is the shortest.
        key = tuple(sorted(transitions))
        way_there = tuple(t for way in path[: begins + 1] for t in way.transitions)
        self.endless.setdefault(key, Endless(source, stimulus, guards, way_there, transitions, states))

    def _stimuli_of(self, configuration: int) -> tuple[Stimulus, ...]:
        found: dict[Stimulus, None] = {}
        for state in self.machine.members(configuration):
            of_state = self._stimuli.get(state.index)
            if of_state is None:
                events = [(d_, False) for t in state.transitions for d_ in t.descriptors]
                events += [(t.delay_event, True) for t in state.transitions if t.delay_event]
                of_state = self._stimuli[state.index] = tuple(self._stimuli_from(events))
            found |= dict.fromkeys(of_state)
        return tuple(found)

    def _stimuli_from(self, events: Iterable[tuple[str, bool]]) -> Iterator[Stimulus]:
        for descriptor, is_delay in events:
            name = descriptor.removesuffix("*").removesuffix(".") or self._other
            if is_delay:
                yield Stimulus(descriptor, "delay")
            elif not f"{name}.".startswith("done.state."):  # only the machine says so, and it does
                yield Stimulus(name, "result" if is_result(name) else "event")


def is_result(event: str) -> bool:
    """Whether an event of this name is the result of an effect or of a child."""
    return event.startswith(("done.effect", "error.effect", "done.invoke", "error.invoke"))


def _ends(ways: Mapping[_Micro, list[_Way]]) -> dict[_Micro, tuple[_Way, ...]]:
    """For each stage from which the macrostep comes to rest, the shortest way there."""
    before: dict[_Micro, list[tuple[_Micro, _Way]]] = {}
    for micro, onward in ways.items():
        for way in onward:
            before.setdefault(way.after, []).append((micro, way))
    # A stage with nowhere to go rests, but one that was not looked at any more does not.
    ends: dict[_Micro, tuple[_Way, ...]] = {micro: () for micro, onward in ways.items() if not onward}
    waiting = deque(ends)
    while waiting:
        micro = waiting.popleft()
        for earlier, way in before.get(micro, ()):
            if earlier not in ends:
                ends[earlier] = (way, *ends[micro])
                waiting.append(earlier)
    return ends


def _unheard_name(machine: ChartMachine) -> str:
    """A name for an event that only `*` matches."""
    name = "anything"
    named = {descriptor for transition in machine.transitions for descriptor in transition.descriptors}
    while not named.isdisjoint((name, f"{name}.", f"{name}.*")):
        name += "_else"
    return name
