"""What a chart waits for and what it asks of the outside: events nobody hears, effects nobody performs, long waits."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from statewright.statecharts import definition as d
from statewright.statecharts.checks.subject import Subject
from statewright.statecharts.errors import Fault
from statewright.statecharts.exploration import Stimulus

_SAID: dict[type, str] = {d.Raise: "raised", d.Send: "sent"}


def unheard(subject: Subject) -> Iterator[Fault]:
    """Events that the chart raises or sends to itself and nowhere handles."""
    for action in d.walk_actions(subject.definition):
        if isinstance(action, d.Send) and (action.targetexpr or action.target not in ("", "#_internal")):
            continue
        if isinstance(action, d.Raise | d.Send) and action.event and not subject.machine.handlers(action.event).states:
            message = f"event {action.event!r} is {_SAID[type(action)]}, but no transition handles it"
            yield subject.fault(action, message)


def unperformed(subject: Subject, handlers: Collection[str]) -> Iterator[Fault]:
    """Effects for which there is no handler, and functions of a workflow's steps: they would be waited for for ever."""
    known = ", ".join(sorted(handlers)) or "none"
    for action in d.walk_actions(subject.definition):
        if isinstance(action, d.Perform) and action.name not in handlers:
            yield subject.fault(action, f"effect {action.name!r} has no handler; those given are {known}", "error")
        elif isinstance(action, d.RunStep) and action.by.startswith("function."):
            name = action.by.split(".", 2)[2]
            if name not in handlers and name not in subject.chart.step_functions:
                message = f"step {action.step!r} has no function {name!r}; those given are {known}"
                yield subject.fault(action, message, "error")


def unhandled_failures(subject: Subject) -> Iterator[Fault]:
    """Effects whose failure no transition handles: then the instance fails."""
    seen = set()
    for action in d.walk_actions(subject.definition):
        if isinstance(action, d.Perform):
            name = action.name
        elif isinstance(action, d.Call):
            name = f"{action.service}.{action.method}"
        elif isinstance(action, d.RunStep):
            name = action.step
        else:
            continue
        if name not in seen and not subject.machine.handlers(f"error.effect.{name}").states:
            seen.add(name)
            message = f"if effect {name!r} fails the instance fails: no transition handles 'error.effect.{name}'"
            yield subject.fault(action, message, "info")


def without_timeout(subject: Subject) -> Iterator[Fault]:
    """States in which the chart may wait for ever: for an event from outside, with no delay set and nothing sent."""
    sent = {action.event for action in d.walk_actions(subject.definition) if isinstance(action, d.Send)}
    reported: set[str] = set()
    for node, edges in zip(subject.exploration.nodes, subject.exploration.edges, strict=True):
        stimuli = [edge.stimulus for edge in edges if subject.leaves(edge)]
        if node.completed or not stimuli or any(_comes_by_itself(stimulus, sent) for stimulus in stimuli):
            continue
        events = list(dict.fromkeys(repr(stimulus.event) for stimulus in stimuli))
        for name in subject.machine.leaves(node.configuration):
            if name not in reported:
                reported.add(name)
                message = f"state {name!r} waits for {', '.join(events)} without a timeout"
                yield subject.fault(subject.state(name), message, "info")


def _comes_by_itself(stimulus: Stimulus, sent: Collection[str]) -> bool:
    return stimulus.kind in ("delay", "result") or stimulus.event in sent
