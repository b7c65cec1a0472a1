"""Where a chart gets stuck: configurations that nothing leaves, and macrosteps that never come to rest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from statewright.statecharts import definition as d
from statewright.statecharts.checks.subject import Subject, listed, said
from statewright.statecharts.coverage import Configuration, Path, cover
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.errors import Fault
from statewright.statecharts.exploration import Edge, Endless, Outcome, Stimulus

REPORTED_MAX = 20
SITUATIONS_MAX = 200
"""How far real paths to deadlocks are looked for; beyond it the path is given with the guards that must hold."""


def deadlocks(subject: Subject) -> Iterator[Fault]:
    """Configurations that are not final and that no event, delay or result leaves, each with the way there."""
    exploration = subject.exploration
    stuck: dict[int, int] = {}
    for number, node in enumerate(exploration.nodes):
        unlooked = not exploration.is_complete and not exploration.edges[number]
        if node.completed or unlooked or any(map(subject.leaves, _real(exploration.edges[number]))):
            continue
        if number in exploration.lost or not _tries_all(subject, number):
            continue
        stuck.setdefault(node.configuration, number)
    reported = dict(list(stuck.items())[:REPORTED_MAX])
    found = cover(subject.chart, [Configuration(bits) for bits in reported], situations_max=SITUATIONS_MAX)
    paths = {goal.bits: path for path in found.paths for goal in path.goals if isinstance(goal, Configuration)}
    for bits, number in reported.items():
        yield _deadlock(subject, bits, exploration.path_to(number), paths.get(bits))
    if len(stuck) > len(reported):
        message = f"{len(stuck) - len(reported)} more configurations are not final, and nothing leaves them"
        yield subject.fault(subject.definition, message)


def _real(edges: Sequence[Edge]) -> Iterator[Edge]:
    """Those whose stimulus can come while the chart rests: expressions fail while it moves."""
    return (edge for edge in edges if edge.stimulus.event != "error.execution")


def _tries_all(subject: Subject, number: int) -> bool:
    """Whether the exploration has tried everything in this node."""
    exploration = subject.exploration
    if exploration.is_complete:
        return True
    handled = {t.order for s in subject.machine.members(exploration.nodes[number].configuration) for t in s.transitions}
    return not any(subject.transitions[order][1].target for order in handled)


def _deadlock(subject: Subject, bits: int, edges: list[Edge], path: Path | None) -> Fault:
    leaves = subject.machine.leaves(bits)
    many = "s" if len(leaves) > 1 else ""
    message = f"state{many} {subject.names(bits)} {'are' if many else 'is'} not final, but nothing leads on from there"
    return subject.fault(subject.state(leaves[0]), f"{message}; the way there: {_way(subject, edges, path)}")


def _way(subject: Subject, edges: Sequence[Edge], path: Path | None) -> str:
    """What `simulate` is to be given; if no data were found for its guards, with what they must say."""
    if path is not None:
        given = [f"--context {shlex.quote(json.dumps(path.context, ensure_ascii=False))}"] if path.context else []
        return " ".join([*map(shlex.quote, path.tokens), *given]) or "the start"
    tokens = [token(subject, edge.stimulus) for edge in edges if edge.stimulus.kind != "start"]
    guards = [needed(subject, outcome) for edge in edges for outcome in edge.guards]
    needs = f" (where {listed(list(dict.fromkeys(guards)))})" if guards else ""
    return (" ".join(map(shlex.quote, tokens)) or "the start") + needs


def token(subject: Subject, stimulus: Stimulus) -> str:
    """A stimulus as a token; a delay that is computed stays as it is written."""
    if stimulus.kind != "delay":
        return stimulus.event
    for owner, transition in subject.transitions:
        index = [*dict.fromkeys(t.delay for t in owner.transitions if t.delay)]
        name = owner.id if isinstance(owner, d.State) else ""
        if transition.delay and f"after.{name}.{index.index(transition.delay)}" == stimulus.event:
            return f"+{transition.delay}" if parse_duration(transition.delay) else f"+<{transition.delay}>"
    return stimulus.event


def needed(subject: Subject, outcome: Outcome) -> str:
    owner, transition = subject.transitions[outcome.transition]
    state = f" of state {owner.id!r}" if isinstance(owner, d.State) else ""
    return f"guard {said(transition.guard)}{state} is {'true' if outcome.passed else 'false'}"


def endless(subject: Subject) -> Iterator[Fault]:
    """Loops of eventless and raised transitions that no guard ends: the event that leads in is always refused."""
    exploration = subject.exploration
    for found in exploration.endless:
        numbers = found.transitions or [n for n in range(len(subject.transitions)) if _active(subject, n, found.states)]
        transition = subject.transitions[numbers[0]][1]
        sources = list(dict.fromkeys(getattr(subject.transitions[n][0], "id", "the chart") for n in found.transitions))
        edges = exploration.path_to(found.source)
        last = Edge(found.source, found.source, found.stimulus, (), found.guards)
        way = _way(subject, [*edges, last], None)
        yield subject.fault(
            transition,
            f"the transitions of {listed([repr(name) for name in sources])} follow each other for ever, and no guard "
            f"ends that; the way there: {way}",
            "warning" if _asked(edges, found) else "error",
        )


def _asked(edges: Sequence[Edge], endless: Endless) -> bool:
    """Whether data decide if the loop is entered."""
    return bool(endless.guards or any(edge.guards for edge in edges))


def _active(subject: Subject, number: int, states: int) -> bool:
    owner = subject.transitions[number][0]
    return isinstance(owner, d.State) and bool(subject.machine.by_id[owner.id].bit & states)
