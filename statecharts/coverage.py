"""Shortest real paths through a chart: events with data, and delays, that reach what is asked for.

Breadth first over simulations of the chart itself, with the data of `samples`. What counts is what `Simulation` then
says, so a path is true as it stands; what can't be reached is left over. Two situations are the same if they agree in
configuration, history, the fields that guards ask for, the effects not yet answered, and whether a delay is pending.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import Json
from statewright.statecharts.durations import format_duration
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.exploration import Exploration, Outcome, is_result
from statewright.statecharts.facts import Event, Snapshot, Step
from statewright.statecharts.samples import Samples
from statewright.statecharts.simulate import Line, Simulation, parse_token

SITUATIONS_MAX = 2_000
PROBES_MAX = 100_000
"""Bounds of one search, over all contexts."""
IDLE_MAX = 40
"""How many situations in a row may add nothing before the next context is tried."""


@dataclass(frozen=True)
class Configuration:
    """A goal: to rest in this configuration."""

    bits: int


@dataclass(frozen=True)
class Taken:
    """A goal: to take the chart's transition of this number."""

    transition: int


Goal = Configuration | Taken | Outcome


class Seen(NamedTuple):
    """One token of a path and what came of it. `token` is "" for the start; `taken` are `source -> targets` texts."""

    token: str
    leaves: tuple[str, ...]
    taken: tuple[str, ...]
    effects: tuple[str, ...]
    status: str


class Path(NamedTuple):
    """From the start on. `goals` are those reached by its last token for the first time."""

    context: Mapping[str, Json]
    seen: tuple[Seen, ...]
    goals: tuple[Goal, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(seen.token for seen in self.seen[1:])


class Coverage(NamedTuple):
    """paths: in the order in which they were found. missing: the goals that none reaches."""

    paths: tuple[Path, ...]
    missing: tuple[Goal, ...]


def goals_of(exploration: Exploration) -> list[Goal]:
    """Every configuration, transition and guard outcome of an exploration."""
    goals: dict[Goal, None] = {Configuration(node.configuration): None for node in exploration.nodes}
    for edge in exploration.all_edges():
        goals |= dict.fromkeys(Taken(number) for number in edge.transitions)
        goals |= dict.fromkeys(edge.guards)
    return list(goals)


def cover(chart: Chart, goals: Collection[Goal], *, situations_max: int = SITUATIONS_MAX) -> Coverage:
    """Shortest paths to as many of the goals as can be found."""
    search = _Search(chart, goals, situations_max)
    for context in search.samples.contexts():
        if not search.left or not search.may_go_on():
            break
        search.run(context)
    return Coverage(tuple(search.paths), tuple(search.left))


class _Situation(NamedTuple):
    path: Path
    snapshot: Snapshot
    unanswered: tuple[str, ...]
    due_in_ns: int | None
    status: str


class _Search:
    def __init__(self, chart: Chart, goals: Collection[Goal], situations_max: int) -> None:
        self.chart = chart
        self.machine = chart.machine
        self.samples = Samples(chart)
        self.asked = self.samples.asked
        self.left: dict[Goal, None] = dict.fromkeys(goals)
        self.paths: list[Path] = []
        self.situations = situations_max
        self.probes = PROBES_MAX

    def may_go_on(self) -> bool:
        return self.situations > 0 and self.probes > 0

    def run(self, context: Mapping[str, Json]) -> None:
        """Search from a start with this context."""
        start = self._played(context, ())
        if start is None:
            return
        known = {self._key(start)}
        # First each configuration once, in the order of distance, then with other data: most data make no difference.
        visits: Counter[int] = Counter()
        waiting = [(0, 0, start)]
        idle = 0
        while waiting and self.left and self.may_go_on() and idle < IDLE_MAX:
            situation = heapq.heappop(waiting)[2]
            left = len(self.left)
            for token in self._tokens(situation) if situation.status == "active" else ():
                after = self._played(context, (*situation.path.tokens, token))
                if after is not None and (key := self._key(after)) not in known:
                    known.add(key)
                    self.situations -= 1
                    bits = after.snapshot.configuration
                    heapq.heappush(waiting, (visits[bits], len(known), after))
                    visits[bits] += 1
            idle = idle + 1 if len(self.left) == left else 0

    def _tokens(self, situation: _Situation) -> Iterator[str]:
        """What is worth trying: of all data for an event those that make a difference, and the next delay."""
        for event in self._events(situation):
            differing = set()
            for data in self.samples.data(event, situation.snapshot.context):
                difference = self._difference(situation, event, data)
                if difference not in differing:
                    differing.add(difference)
                    yield token_of(event, self._least(situation, event, data, difference))
        if situation.due_in_ns is not None:
            yield f"+{format_duration(situation.due_in_ns)}"

    def _difference(self, situation: _Situation, event: str, data: Json) -> str:
        """What tells the outcome of an event from that of the same with other data."""
        self.probes -= 1
        step = self.machine.step(situation.snapshot, Event(event, data))
        return repr((step.taken, step.guards, step.snapshot.configuration, self._fields(step.snapshot)))

    def _least(self, situation: _Situation, event: str, data: Json, difference: str) -> Json:
        """The data without the keys that make no difference."""
        for key in list(data) if isinstance(data, dict) else ():
            fewer = {other: value for other, value in data.items() if other != key}
            if self._difference(situation, event, fewer or None) == difference:
                data = fewer
        return data or None if isinstance(data, dict) else data

    def _events(self, situation: _Situation) -> Iterator[str]:
        for descriptor in self.machine.accepts(situation.snapshot.configuration):
            name = descriptor.removesuffix("*").removesuffix(".") or "anything"
            if f"{name}.".startswith("done.state.") or name == "error.execution":
                continue  # only the machine says so
            effect = name.partition(".effect.")[2]
            if not effect or not is_result(name) or effect in situation.unanswered:
                yield name

    def _played(self, context: Mapping[str, Json], tokens: tuple[str, ...]) -> _Situation | None:
        """Play the tokens from the start; None if that can't be done. Notes the goals that the last one reaches."""
        simulation = Simulation(self.chart, context)
        unanswered: list[str] = []
        seen = []
        steps: list[Step] = []
        try:
            for token in ("", *tokens):
                count = len(simulation.steps)
                line = simulation.feed(parse_token(token)) if token else simulation.begin()
                steps = simulation.steps[count:]
                seen.append(self._seen(token, line, steps))
                unanswered += [effect.name for effect in line.effects if effect.kind != "emit"]
                answered = token.partition("=")[0].partition(".effect.")[2]
                if answered in unanswered:
                    unanswered.remove(answered)
        except StatewrightError:
            return None
        if not tokens and steps and steps[0].reason:
            return None  # it can't start like this
        snapshot = simulation.steps[-1].snapshot
        reached = [goal for goal in self._goals(snapshot, steps) if goal in self.left]
        path = Path(context, tuple(seen), tuple(dict.fromkeys(reached)))
        for goal in path.goals:
            del self.left[goal]
        if path.goals:
            self.paths.append(path)
        due_ns = simulation.due_ns
        due_in_ns = due_ns - simulation.now_ns if due_ns is not None else None
        return _Situation(path, snapshot, tuple(sorted(set(unanswered))), due_in_ns, simulation.status)

    def _seen(self, token: str, line: Line, steps: list[Step]) -> Seen:
        taken = tuple(
            f"{item.source or 'chart'} -> {' '.join(item.targets) or 'stays'}" for step in steps for item in step.taken
        )
        return Seen(token, line.leaves, taken, tuple(effect.name for effect in line.effects), line.status)

    def _goals(self, snapshot: Snapshot, steps: list[Step]) -> Iterator[Goal]:
        yield Configuration(snapshot.configuration)
        for step in steps:
            for verdict in step.guards:
                if verdict.error:
                    continue  # neither true nor false
                for candidate in self._candidates(verdict.event, verdict.state):
                    if candidate.transition.guard == verdict.guard:
                        yield Outcome(candidate.transition.order, verdict.passed)
            passed = {(verdict.event, verdict.state, verdict.guard) for verdict in step.guards if verdict.passed}
            for item in step.taken:
                for candidate in self._candidates(item.event, item.source):
                    transition = candidate.transition
                    by_guard = not transition.guard or (item.event, item.source, transition.guard) in passed
                    if transition.target_ids == item.targets and by_guard:
                        yield Taken(transition.order)
                        break

    def _candidates(self, event: str, state: str) -> tuple[Any, ...]:
        handlers = self.machine.handlers(event) if event else self.machine.eventless
        owner = self.machine.by_id[state] if state else self.machine.root
        return handlers.by_bit.get(owner.bit, ())

    def _fields(self, snapshot: Snapshot) -> str:
        fields = {k: v for k, v in snapshot.context.items() if self.asked is None or k in self.asked}
        return msgspec.json.encode(fields).decode()

    def _key(self, situation: _Situation) -> tuple[Any, ...]:
        snapshot = situation.snapshot
        history = tuple(sorted(snapshot.history.items()))
        pending = situation.due_in_ns is not None
        return snapshot.configuration, history, self._fields(snapshot), situation.unanswered, pending, situation.status


def token_of(event: str, data: Json) -> str:
    """The token that `simulate` understands."""
    return event if data is None else f"{event}={json.dumps(data, ensure_ascii=False)}"
