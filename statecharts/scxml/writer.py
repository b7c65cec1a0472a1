"""Writes a definition as an SCXML document; what was read from one and is written back is the same definition.

Charts of our own forms are written too. Their delays become sends, their effects elements of the namespace
`urn:statewright`, transitions of the chart itself go to each of its states, and types are left out. What SCXML has no
place for (functions, entry actions of the chart itself) is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec
from msgspec import UNSET

from statewright.statecharts import definition as d
from statewright.statecharts.definition import Json
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.errors import ChartError, Fault
from statewright.statecharts.scxml.elements import EXTENSION, PREFIX, SCXML
from statewright.statecharts.scxml.values import cel_text, cel_tree, holds_text


def write_scxml(definition: d.Definition) -> str:
    """The document. Raises ChartError with everything that SCXML cannot say."""
    writer = _Writer()
    writer.line('<?xml version="1.0" encoding="UTF-8"?>')
    writer.chart(definition, xmlns=SCXML)
    if writer.faults:
        raise ChartError(writer.faults, definition.name)
    return "\n".join(writer.lines) + "\n"


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.faults: list[Fault] = []
        self.depth = 0
        self.state = ""
        self.version = "1"
        self._actions: dict[type, Callable[[Any], None]] = {
            d.Assign: self._assign,
            d.Raise: self._raise,
            d.Send: self._send,
            d.Cancel: lambda a: self.element("cancel", sendid=a.sendid, sendidexpr=a.sendidexpr),
            d.Emit: lambda a: self._effect("emit", a, subject=a.subject, subjectexpr=a.subjectexpr),
            d.Call: lambda a: self._effect("call", a, service=a.service, method=a.method, heartbeat=a.heartbeat),
            d.Perform: lambda a: self._effect("perform", a, name=a.name, heartbeat=a.heartbeat),
            d.RunStep: lambda a: self._effect("run_step", a, step=a.step, by=a.by, heartbeat=a.heartbeat),
            d.Record: lambda a: self.element("record", None, xmlns=EXTENSION, step=a.step, status=a.status),
            d.Log: lambda a: self.element("log", label=a.label, expr=a.expr),
            d.If: self._if,
            d.Foreach: self._foreach,
            d.Script: lambda a: self.line(f"<script>{escape(a.source)}</script>"),
            d.Block: lambda a: self.actions(a.actions),
        }

    # -- XML -------------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def element(self, tag: str, inner: Callable[[], None] | None = None, **attributes: str) -> None:
        """An element; attributes that are empty are left out. One without content closes itself."""
        head = tag + "".join(f" {name.strip('_')}={quoteattr(value)}" for name, value in attributes.items() if value)
        count = len(self.lines)
        self.line(f"<{head}>")
        self.depth += 1
        if inner is not None:
            inner()
        self.depth -= 1
        if len(self.lines) == count + 1:
            self.lines[count] = "  " * self.depth + f"<{head}/>"
        else:
            self.line(f"</{tag}>")

    def fault(self, message: str) -> None:
        self.faults.append(Fault(path="", message=f"SCXML has no place for {message}", state=self.state))

    # -- structure -------------------------------------------------------------------------------------------------

    def chart(self, chart: d.Definition, xmlns: str = "") -> None:
        late = any(state.context for state in d.walk_states(chart))

        def inner() -> None:
            self._data(chart.context)
            if not all(isinstance(action, d.Script) for action in chart.entry) or chart.exit:
                self.fault("entry or exit actions of the chart itself")
            if any(transition.delay for transition in chart.transitions):
                self.fault("delayed transitions of the chart itself")
            self._initial(chart)
            self.actions(chart.entry)
            for state in chart.states:
                if state.type != "final":
                    # They come after the state's own, and leave and enter the same.
                    state = msgspec.structs.replace(state, transitions=(*state.transitions, *chart.transitions))
                self._state(state)

        initial = " ".join(chart.initial.target) if chart.initial and not chart.initial.actions else ""
        name = str(chart.meta.get("name", chart.name))
        attributes = {"xmlns": xmlns, "version": "1.0", "name": name, "datamodel": "cel", "initial": initial}
        outer, self.version = self.version, chart.version
        if chart.version != outer:
            attributes |= {f"xmlns:{PREFIX[:-1]}": EXTENSION, f"{PREFIX}version": chart.version}
        self.element("scxml", inner, **attributes, binding="late" if late else "")
        self.version = outer

    def _data(self, declarations: Iterable[d.Declaration]) -> None:
        def inner() -> None:
            for declaration in declarations:
                if declaration.default is UNSET:
                    self.element("data", id=declaration.name, expr=declaration.expr)
                else:
                    self.line(f"<data id={quoteattr(declaration.name)}>{_json_text(declaration.default)}</data>")

        if declarations:
            self.element("datamodel", inner)

    def _state(self, state: d.State) -> None:
        outer, self.state = self.state, state.id
        tag = "state" if state.type in ("atomic", "compound") else state.type
        history = state.history if state.type == "history" else ""

        def inner() -> None:
            self._data(state.context)
            self._initial(state)
            self._blocks("onentry", state.entry, self._timers(state, start=True))
            self._blocks("onexit", state.exit, self._timers(state, start=False))
            for invoke in state.invoke:
                self._invoke(invoke)
            for transition in state.transitions:
                self._transition(state, transition)
            for child in state.states:
                self._state(child)
            if state.output is not None:
                self.element("donedata", lambda: self._payload(state.output))

        initial = state.initial if state.type != "history" else None
        simple = " ".join(initial.target) if initial is not None and not initial.actions else ""
        ours = {f"xmlns:{PREFIX[:-1]}": EXTENSION, f"{PREFIX}status": state.status}
        ours = ours if state.status != "completed" else {}
        self.element(tag, inner, id=state.id, type_=history, initial=simple, **ours)
        self.state = outer

    def _initial(self, state: d.State | d.Definition) -> None:
        initial, history = state.initial, isinstance(state, d.State) and state.type == "history"
        if initial is None or not (history or initial.actions):
            return

        def transition() -> None:
            self.element("transition", lambda: self.actions(initial.actions), target=" ".join(initial.target))

        if history:
            transition()
        else:
            self.element("initial", transition)

    def _timers(self, state: d.State, *, start: bool) -> tuple[d.AnyAction, ...]:
        """The sends that stand for delayed transitions, each with the state's entry and exit."""
        delays = dict.fromkeys(t.delay for t in state.transitions if t.delay)
        names = [_timer(state, delay) for delay in delays]
        if not start:
            return tuple(d.Cancel(sendid=name) for name in names)
        return tuple(d.Send(event=name, id=name, delay=delay) for name, delay in zip(names, delays, strict=True))

    def _blocks(self, tag: str, actions: tuple[d.AnyAction, ...], timers: tuple[d.AnyAction, ...]) -> None:
        loose = tuple(action for action in actions if not isinstance(action, d.Block))
        blocks = [action.actions for action in actions if isinstance(action, d.Block)]
        if loose and blocks:
            self.fault(f"actions beside blocks in {tag}")
        for block in [*blocks, *([loose] if loose else []), *((timer,) for timer in timers)]:
            self.element(tag, lambda block=block: self.actions(block))  # type: ignore[misc]

    def _transition(self, state: d.State, transition: d.Transition) -> None:
        self.element(
            "transition",
            lambda: self.actions(transition.actions),
            event=_timer(state, transition.delay) if transition.delay else " ".join(transition.events),
            cond=self._guard(transition.guard),
            target=" ".join(transition.target),
            type_="internal" if transition.internal else "",
        )

    def _invoke(self, invoke: d.Invoke) -> None:
        def inner() -> None:
            self._params(invoke.data)
            if invoke.chart is not None:
                chart = invoke.chart
                self.element("content", lambda: self.chart(chart))
            elif invoke.contentexpr:
                self.element("content", expr=invoke.contentexpr)
            if invoke.finalize:
                self.element("finalize", lambda: self.actions(invoke.finalize))

        attributes = {"type": invoke.type, "typeexpr": invoke.typeexpr, "src": invoke.src, "srcexpr": invoke.srcexpr}
        forward = "true" if invoke.autoforward else ""
        self.element("invoke", inner, id=invoke.id, idlocation=invoke.idlocation, **attributes, autoforward=forward)

    # -- executable content ----------------------------------------------------------------------------------------

    def actions(self, actions: Iterable[d.AnyAction]) -> None:
        for action in actions:
            self._actions[type(action)](action)

    def _guard(self, guard: d.Guard | None) -> str:
        if isinstance(guard, d.FunctionRef):
            self.fault(f"the Python function {guard.function!r}")
            return ""
        return guard or ""

    def _expr(self, tree: Json) -> str:
        """One expression for a whole value."""
        if _names_function(tree):
            self.fault(f"a Python function in {msgspec.json.encode(tree).decode()}")
            return ""
        return cel_tree(tree)

    def _assign(self, action: d.Assign) -> None:
        if action.function:
            self.fault(f"the Python function {action.function!r}")
        if len(action.values) > 1:
            # SCXML's assigns one after the other; these see the data as it was before.
            self.element("assign", None, xmlns=EXTENSION, values=msgspec.json.encode(action.values).decode())
            return
        for location, tree in action.values.items():
            if tree is None or isinstance(tree, str) or holds_text(tree):
                self.element("assign", location=location, expr=self._expr(tree))
            else:
                self.line(f"<assign location={quoteattr(location)}>{_json_text(tree)}</assign>")

    def _raise(self, action: d.Raise) -> None:
        if action.data is None:
            self.element("raise", event=action.event)
        else:
            self.element("send", lambda: self._payload(action.data), event=action.event, target="#_internal")

    def _send(self, action: d.Send) -> None:
        ns = parse_duration(action.delay) if action.delay else None
        literal = "" if ns is None else f"{ns // 1_000_000}ms" if not _is_time(action.delay) else action.delay
        self.element(
            "send",
            lambda: self._payload(action.data),
            event=action.event,
            eventexpr=action.eventexpr,
            target=action.target,
            targetexpr=action.targetexpr,
            type_=action.processor,
            typeexpr=action.processorexpr,
            id=action.id,
            idlocation=action.idlocation,
            delay=literal,
            delayexpr=action.delay if ns is None else "",
        )

    def _effect(self, tag: str, action: d.Emit | d.Call | d.Perform | d.RunStep, **attributes: str) -> None:
        data = None if isinstance(action, d.RunStep) else action.data
        text = msgspec.json.encode(data).decode() if data is not None else ""
        if _names_function(data):
            self.fault(f"a Python function in {text}")
        retry = d.to_json(action.retry).decode() if action.retry is not None else ""
        cancel = action.cancel if action.cancel != "never" else ""
        how = {"timeout": action.timeout, "retry": retry, "cancel": cancel}
        self.element(tag, None, xmlns=EXTENSION, **attributes, data=text, **how)

    def _if(self, action: d.If) -> None:
        def inner() -> None:
            for index, branch in enumerate(action.branches):
                if index:
                    self.depth -= 1
                    self.element("elseif", cond=self._guard(branch.guard))
                    self.depth += 1
                self.actions(branch.actions)
            if action.otherwise:
                self.depth -= 1
                self.element("else")
                self.depth += 1
                self.actions(action.otherwise)

        self.element("if", inner, cond=self._guard(action.branches[0].guard))

    def _foreach(self, action: d.Foreach) -> None:
        attributes = {"array": action.array, "item": action.item, "index": action.index}
        self.element("foreach", lambda: self.actions(action.actions), **attributes)

    def _payload(self, tree: Json) -> None:
        """What an event carries: a mapping as `<param>`s, anything else as `<content>`."""
        if isinstance(tree, Mapping) and not _names_function(tree):
            self._params(tree)
        elif tree is not None and (isinstance(tree, str) or holds_text(tree)):
            self.element("content", expr=self._expr(tree))
        elif tree is not None:
            self.line(f"<content>{_json_text(tree)}</content>")

    def _params(self, data: Mapping[str, Json]) -> None:
        for name, tree in data.items():
            self.element("param", name=name, expr=self._expr(tree))


def _timer(state: d.State, delay: str) -> str:
    """The event of a delayed transition, which no other transition of the state has."""
    delays = list(dict.fromkeys(t.delay for t in state.transitions if t.delay))
    return f"after.{state.id}.{delays.index(delay)}"


def _json_text(value: Json) -> str:
    return escape(cel_text(value))


def _names_function(tree: Json) -> bool:
    if isinstance(tree, Mapping):
        return set(tree) == {"function"} or any(_names_function(item) for item in tree.values())
    return isinstance(tree, list) and any(_names_function(item) for item in tree)


def _is_time(delay: str) -> bool:
    """Whether it is a CSS2 time, the only literal that SCXML has."""
    return delay.strip("0123456789.") in ("s", "ms")
