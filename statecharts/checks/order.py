"""Where nothing but the order in the document decides which transition is taken.

A guarded transition before one without a guard is how "if … else" is written, and no finding. Two guards that can both
be true are, unless both lead to the same. Whether they can be is tried with sample data; a guard that is a Python
function is taken to be true whenever it likes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from statewright.statecharts import definition as d
from statewright.statecharts.abstraction import asks_configuration, question
from statewright.statecharts.checks.reachability import includes
from statewright.statecharts.checks.subject import Subject, said, trigger
from statewright.statecharts.definition import Json
from statewright.statecharts.errors import Fault, StatewrightError
from statewright.statecharts.expressions import Expression
from statewright.statecharts.facts import Event
from statewright.statecharts.machine import ChartTransition
from statewright.statecharts.samples import Samples


def ambiguous(subject: Subject) -> Iterator[Fault]:
    """Pairs of guarded transitions of one state for the same event that can be enabled together."""
    samples = Samples(subject.chart)
    numbers = {id(transition): number for number, (_, transition) in enumerate(subject.transitions)}
    owners: list[d.Definition | d.State] = [subject.definition, *d.walk_states(subject.definition)]
    for owner in owners:
        for one, other in itertools.combinations([t for t in owner.transitions if t.guard is not None], 2):
            event = _shared(one, other)
            if event is None or _same(one, other) or exclusive(one.guard, other.guard):
                continue
            pair = subject.machine.transitions[numbers[id(one)]], subject.machine.transitions[numbers[id(other)]]
            example = _example(samples, pair, event)
            if example is not None:
                yield subject.fault(
                    other,
                    f"the transition for {trigger(other)} and the one before it{subject.where(one)} can both be "
                    f"enabled{example}: guards {said(one.guard)} and {said(other.guard)}; the first one is taken",
                )


def conflicting(subject: Subject) -> Iterator[Fault]:
    """Transitions of different regions, enabled by one event, of which only the first can be taken."""
    for winner, loser in subject.exploration.conflicts:
        first, second = subject.transitions[winner][1], subject.transitions[loser][1]
        if first.guard is not None and second.guard is not None and exclusive(first.guard, second.guard):
            continue
        states = [getattr(subject.transitions[number][0], "id", "") for number in (winner, loser)]
        yield subject.fault(
            second,
            f"the transitions of the regions' states {states[0]!r}{subject.where(first)} and {states[1]!r} for "
            f"{trigger(second)} exclude each other; the first one in the document is taken",
        )


def _shared(one: d.Transition, other: d.Transition) -> str | None:
    """An event that both wait for ("" for none); None if there is no such event."""
    if one.delay or other.delay or not one.events or not other.events:
        return "" if one.delay == other.delay and bool(one.events) == bool(other.events) else None
    for first, second in itertools.product(one.events, other.events):
        if includes(first, second):
            return second.removesuffix("*").removesuffix(".") or "anything"
        if includes(second, first):
            return first.removesuffix("*").removesuffix(".")
    return None


def _same(one: d.Transition, other: d.Transition) -> bool:
    return one.target == other.target and not one.actions and not other.actions


def exclusive(one: d.Guard | None, other: d.Guard | None) -> bool:
    """Whether one guard is evidently the negation of the other."""
    if one is None or other is None:
        return False
    (first, positive), (second, negative) = question(one), question(other)
    return first == second and positive is not negative


def _example(samples: Samples, pair: tuple[ChartTransition, ChartTransition], event: str) -> str | None:
    """Where both guards are true, as the rest of a sentence; None if no sample makes them so."""
    guards = [transition.expression for transition in pair if transition.expression is not None]
    if len(guards) < len(pair):
        return ""
    if any(asks_configuration(transition.guard) for transition in pair):
        return None  # which states are active together is not looked into
    for context in samples.contexts():
        try:
            full: Mapping[str, Json] = samples.chart.machine.context_type.start(context)
        except StatewrightError:
            continue
        for data in samples.data(event, full) if event else [None]:
            if all(_passes(guard, full, Event(event, data)) for guard in guards):
                given = f" with {context}" if context else ""
                return f"{given}{' and' if given and data else ''}{f' data {data}' if data else ''}"
    return None


def _passes(guard: Expression, context: Mapping[str, Json], event: Event) -> bool:
    try:
        return guard.evaluate(context, event, 0) is True
    except StatewrightError:
        return False
