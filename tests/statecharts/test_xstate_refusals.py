"""What cannot be carried over from XState is refused by name, all of it at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statewright.statecharts import ChartError, from_xstate

Config = dict[str, Any]


def flat(first: Config, **rest: Config) -> Config:
    """A machine of `a`, `b` and more, that begins in `a`."""
    return {"initial": "a", "states": {"a": first, "b": {}, **rest}}


def refusals() -> Iterator[tuple[Config, str, str]]:
    """(the machine, the path of the fault, what its message says)."""
    yield flat({"on": {"go": "nowhere"}}), "states.a.on.go.target", "unknown target 'nowhere' of 'a'"
    yield {**flat({}), "on": {"go": "b"}}, "on.go.target", "did you mean '.b'?"
    yield flat({"on": {"go": None}}), "states.a.on.go", "got null"
    yield flat({"on": {"go": 5}}), "states.a.on.go", "expected a target or a transition, got 5"
    yield flat({"on": {"two words": "b"}}), "states.a.on.two words", "without spaces"
    yield flat({"on": {"a.*.b": "b"}}), "states.a.on.a.*.b", "'*' inside"
    yield flat({"on": {"done.*": "b"}}), "states.a.on.done.*", "the engine's own events"
    yield flat({"on": {"done.state.b": "b"}}), "states.a.on.done.state.b", "only the engine sends"
    yield flat({"on": {"xstate.init": "b"}}), "states.a.on.xstate.init", "only the engine sends"
    yield flat({"on": {"go": {"cond": "x"}}}), "states.a.on.go.cond", "v5 says guard"
    yield flat({"on": {"go": {"reenter": 1}}}), "states.a.on.go.reenter", "true or false"
    yield flat({"on": {"go": {"guard": "unheard"}}}), "states.a.on.go.guard", "the guard 'unheard'"
    yield flat({"on": {"go": {"guard": {"params": 1}}}}), "states.a.on.go.guard", "expected a guard"
    yield (
        flat({"on": {"go": {"guard": {"type": "xstate.not", "guards": []}}}}),
        "states.a.on.go.guard.guards",
        "one guard",
    )
    yield (
        flat({"on": {"go": {"guard": {"type": "stateIn", "stateValue": "x.y"}}}}),
        "states.a.on.go.guard.stateValue",
        "unknown state 'x.y'",
    )
    yield flat({"after": {"a while": "b"}}), "states.a.after.a while", "expected in delays what the delay 'a while' is"
    yield flat({"after": {"1.5": "b"}}), "states.a.after.1.5", "the delay '1.5'"
    yield flat({"entry": 5}), "states.a.entry", "expected an action"
    yield flat({"entry": {"type": "xstate.spawnChild"}}), "states.a.entry", "'xstate.spawnChild' cannot be carried over"
    yield flat({"entry": {"type": "xstate.assign"}}), "states.a.entry", "an assignment"
    yield (
        flat({"entry": {"type": "xstate.assign", "assignment": {"n": 1}}}),
        "states.a.entry.n",
        "there is no field 'n'",
    )
    yield flat({"entry": {"type": "xstate.raise", "event": {}}}), "states.a.entry", "expected an event"
    yield flat({"entry": {"type": "xstate.raise", "event": "done.state.a"}}), "states.a.entry.event", "only the engine"
    yield flat({"entry": {"type": "xstate.sendTo", "to": "who", "event": "x"}}), "states.a.entry.to", "got 'who'"
    yield flat({"entry": {"type": "xstate.cancel"}}), "states.a.entry", "expected 'sendId'"
    yield flat({"entry": {"type": "x", "exec": 1}}), "states.a.entry.exec", "action 'x' has no 'exec'"
    yield flat({"invoke": {"id": "x"}}), "states.a.invoke", "whose src is a name"
    yield flat({"invoke": {"src": "x", "onSnapshot": "b"}}), "states.a.invoke.onSnapshot", "has no 'onSnapshot'"
    yield flat({"invoke": {"src": "x", "data": {}}}), "states.a.invoke.data", "v5 says input"
    yield flat({"invoke": [{"src": "x"}, {"src": "x"}]}), "states.a.invoke[1]", "invoked twice"
    yield flat({"invoke": {"src": "x"}, "exit": "x"}), "states.a.invoke", "'x' is an action, too"
    yield flat({"type": "choice"}), "states.a.type", "got 'choice'"
    yield flat({"route": {}}), "states.a.route", "'a' has no 'route'"
    yield flat({"order": 1, "key": "a"}), "states.a.order", "has no 'order'"
    yield flat({"output": 1}), "states.a.output", "of a final state or the machine only"
    yield flat({"states": {"x": {}}}), "states.a.initial", "the key of its initial state, got None"
    yield flat({"initial": "y", "states": {"x": {}}}), "states.a.initial", "got 'y'"
    yield flat({"initial": "x"}), "states.a.initial", "no initial in a state of type atomic"
    yield flat({"tags": [1]}), "states.a.tags", "a list of texts"
    yield flat({"id": "same"}, c={"id": "same"}), "states.c.id", "the id 'same' is given twice"
    yield flat({}, **{"a b": {}, "a_b": {}, "!": {}}), "states.!", "letters or digits"
    yield (
        flat({"type": "parallel", "states": {"x": {"type": "final"}}}),
        "states.a.states.x",
        "no final state right inside",
    )
    yield {**flat({}), "onDone": "a"}, "onDone", "never taken"
    yield {**flat({}), "context": {"two words": 1}}, "context.two words", "an identifier"
    yield {**flat({}), "context": [1]}, "context", "a mapping of fields"
    yield {**flat({}), "version": 5}, "version", "as a text"
    yield {**flat({"on": {"go": "#m"}}), "entry": "x"}, "states.a.on.go.target", "its entry would not run again"
    region = {"initial": "x", "states": {"x": {"on": {"go": "#m.a.right"}}}}
    regions = {"type": "parallel", "entry": "x", "states": {"left": region, "right": {}}}
    yield flat(regions), "states.a.states.left.states.x.on.go", "keeps the parallel state 'a' active"


@pytest.mark.parametrize(
    ("config", "path", "message"), list(refusals()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_cannot_be_carried_over_is_named(config: Config, path: str, message: str) -> None:
    with pytest.raises(ChartError) as caught:
        from_xstate({"id": "m", **config})
    assert any(fault.path == path and message in fault.message for fault in caught.value.faults), caught.value.faults


def test_all_faults_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"id": "m", "initial": "a",\n"states": {"a": {\n"on": {"go":\n{"target": "x",\n"guard": "g"}}}}}')
    with pytest.raises(ChartError) as caught:
        from_xstate(path)
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [
        (4, "states.a.on.go.target"),
        (5, "states.a.on.go.guard"),
    ]


@pytest.mark.parametrize("tree", [[], 5, None, "x"])
def test_what_is_no_machine_at_all(tree: Any) -> None:
    with pytest.raises(ChartError, match="expected a machine configuration"):
        from_xstate(tree)
