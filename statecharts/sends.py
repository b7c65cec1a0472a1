"""Compiles sends that name a target, a processor or a place for their id, and the requests to invoke children.

Which sessions a dynamic chart can reach is known when it sends: itself, its parent, its children, and sessions of the
same family (one that was invoked, directly or not, by the same first session). A strict chart, which does not see who
it is, can name any: its host knows. A target that is none at all is an `error.execution`, one that cannot be reached an
`error.communication` (SCXML 1.0, 6.2.4 and C.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from statewright.statecharts import definition as d
from statewright.statecharts.children import Child, child_key, is_of_family
from statewright.statecharts.context import json_type
from statewright.statecharts.dynamic import HTTP_PROCESSOR, SCXML_PROCESSOR, location
from statewright.statecharts.facts import Event, SendEvent, StartChild, TimerSet
from statewright.statecharts.scripts import Place
from statewright.statecharts.step import ActionError, Macrostep

if TYPE_CHECKING:
    from statewright.statecharts.actions import ActionCompiler, Operation, Value
    from statewright.statecharts.machine import ChartState

_PROCESSORS = {
    "": SCXML_PROCESSOR,
    "scxml": SCXML_PROCESSOR,
    SCXML_PROCESSOR: SCXML_PROCESSOR,
    "http://www.w3.org/TR/scxml/": SCXML_PROCESSOR,
    "basichttp": HTTP_PROCESSOR,
    HTTP_PROCESSOR: HTTP_PROCESSOR,
}
_INVOKED = frozenset(("", "scxml", "http://www.w3.org/TR/scxml/", "http://www.w3.org/TR/scxml"))
_INTERNAL = "#_internal"
_SESSION = "#_scxml_"


def compile_send(compiler: ActionCompiler, action: d.Send, where: str) -> Operation:
    """One send. If anything of it fails, nothing is sent, and the error event carries the send's id."""
    what = f"send {action.event or action.eventexpr!r} in {where}"
    name = compiler.name(action.event, action.eventexpr, action, what, "eventexpr")[1]
    target = _text(compiler, action.target, action.targetexpr, action, what, "targetexpr")
    processor = _text(compiler, action.processor, action.processorexpr, action, what, "processorexpr")
    data, _ = compiler.value(action.data, action, what, "data")
    delay = compiler.delay(action.delay, action, what, "delay")[1] if action.delay else None
    place = Place(compiler, action.idlocation, action, what) if action.idlocation else None

    def send(run: Macrostep) -> None:
        run.serial += 1
        timer_id = f"send.{run.serial}"
        sendid = action.id
        if place is not None:
            sendid = timer_id
            place.assign(run, sendid)
        try:
            event, content, after = name(run), data(run), delay(run) if delay is not None else 0
            if not event:
                raise ActionError(f"{what} failed: expected the name of an event")
            kind = _processor(processor(run), what)
            receiver = _receiver(run, target(run), kind, what, delayed=after > 0)
        except ActionError as error:
            raise ActionError(str(error), error.name, sendid) from None
        if receiver is None:
            run.fail(f"{what} failed: no session at {target(run)!r}", "error.communication", sendid)
        elif receiver == _INTERNAL:
            run.enqueue(Event(event, content, "internal", sendid))
        elif receiver and not after:
            run.relate().requests.append(SendEvent(receiver, event, content, sendid, kind))
        else:
            run.timers.append(TimerSet(timer_id, event, after, content, sendid, receiver, kind))

    return send


def compile_invoke(compiler: ActionCompiler, state: ChartState, index: int, invoke: d.Invoke) -> Child:
    """One invoke of `state`."""
    what = f"invoke {invoke.id or index} of state {state.id!r}"
    type_ = _text(compiler, invoke.type, invoke.typeexpr, invoke, what, "typeexpr")
    src = _text(compiler, invoke.src, invoke.srcexpr, invoke, what, "srcexpr")
    content = compiler.value(invoke.contentexpr, invoke, what, "contentexpr")[0] if invoke.contentexpr else None
    data = [(key, compiler.value(tree, invoke, what, "data", key)[0]) for key, tree in invoke.data.items()]
    place = Place(compiler, invoke.idlocation, invoke, what) if invoke.idlocation else None
    key = child_key(state.id, index)

    def request(run: Macrostep) -> StartChild:
        invokeid = invoke.id
        if not invokeid:
            run.serial += 1
            invokeid = f"{state.id}.{run.serial}"
        if place is not None:
            place.assign(run, invokeid)
        if type_(run) not in _INVOKED:
            raise ActionError(f"{what} failed: expected the type scxml, got {type_(run)!r}")
        text = content(run) if content is not None else ""
        if not isinstance(text, str):
            raise ActionError(f"{what} failed: expected the text of a chart as content, got {json_type(text)}")
        return StartChild(invokeid, key, src(run), text, {name: value(run) for name, value in data})

    block = compiler.block(invoke.finalize, state.id, f"finalize of {what}", state.id)
    return Child(key, state, request, block, invoke.autoforward)


def _text(compiler: ActionCompiler, text: str, expr: str, node: d.Node, what: str, key: str) -> Value:
    return compiler.name(text, expr, node, what, key)[1]


def _processor(asked: str, what: str) -> str:
    kind = _PROCESSORS.get(asked)
    if kind is None:
        raise ActionError(f"{what} failed: expected a type of event processor that is there, got {asked!r}")
    return kind


def _receiver(run: Macrostep, target: str, kind: str, what: str, *, delayed: bool) -> str | None:
    """The target as the host is told it ("" is this session), or None if nothing can be reached there."""
    session = run.context.get("_sessionid", "")
    if kind == HTTP_PROCESSOR:
        # Without a server the only address that can be reached is one's own.
        return "" if target == location(session) else None
    if target == _INTERNAL:
        if delayed:
            raise ActionError(f"{what} failed: expected no delay with the target {_INTERNAL}")
        return _INTERNAL
    if not target:
        return ""
    if not target.startswith("#_"):
        raise ActionError(f"{what} failed: expected a target such as #_parent or #_<invokeid>, got {target!r}")
    if target == "#_parent":
        return target if run.machine.strict or _about(run, "parent") else None
    if target.startswith(_SESSION):
        return _other(run, target, session)
    # By the time that a delayed event is due the child may be there, if the chart has any.
    if target.removeprefix("#_") in run.relate().invoked or (delayed and run.machine.children):
        return target
    return None


def _other(run: Macrostep, target: str, session: str) -> str | None:
    asked = target.removeprefix(_SESSION)
    if asked == session:
        return ""
    return target if run.machine.strict or is_of_family(asked, _about(run, "root") or session) else None


def _about(run: Macrostep, what: str) -> str:
    """What an invoked session knows of its family: the ids "parent" and "root" (its first session); "" of one that was
    not invoked."""
    about = run.context.get("_x")
    return about.get(what, "") if isinstance(about, Mapping) else ""
