"""The Python door: a chart written in Python reads as it does in YAML, and means the same (equal digests).

    review = chart(
        "review",
        context=ReviewContext,
        initial="draft",
        states=[
            state("draft", on={"submit": to("open", guard="context.amount < 1000")}),
            state("open", on={"approve": to("done", guard=may_approve)}, after={"24h": to(actions=["remind"])}),
            final("done"),
        ],
    )

Each function here returns a plain piece of the written form (see `reader`); `chart` reads the whole and compiles
it. Where the form has `{function: name}` a Python function may stand; it is registered under its own name. Guards
get `(context, event)` and return a bool; functions of `assign` return the fields to change; functions as data
return JSON. The context they get is a read-only mapping with its fields as attributes too (`context.amount`).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import CancelWhen, FinalStatus, Retry, StepStatus
from statewright.statecharts.errors import ChartError, Fault

Tree = dict[str, Any]
GuardLike = str | Callable[..., bool]
ActionLike = str | Tree
Actions = ActionLike | Sequence[ActionLike]
To = str | Tree | Sequence[str | Tree]


def chart(
    name: str,
    *,
    states: Sequence[Tree],
    version: str = "1",
    description: str = "",
    context: type[msgspec.Struct] | Mapping[str, Any] | None = None,
    initial: str | Sequence[str] | Tree | None = None,
    on: Mapping[str, To] | None = None,
    after: Mapping[str, To] | None = None,
    always: To | None = None,
    entry: Actions | None = None,
    exit: Actions | None = None,  # noqa: A002
    subscribe: Sequence[Mapping[str, str]] | None = None,
    meta: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Chart:
    """A chart. `context` is a msgspec Struct class or a mapping of fields to types, as in YAML.

    `functions` are what `{"function": name}` refers to, beside the functions given in place. Raises ChartError with
    all faults.
    """
    fields = struct_fields(context, name) if isinstance(context, type) else context
    tree = _given(
        name=name,
        version=version,
        description=description or None,
        context=fields,
        subscribe=subscribe,
        initial=initial,
        entry=entry,
        exit=exit,
        on=on,
        after=after,
        always=always,
        states=list(states),
        meta=meta,
    )
    return Chart.from_tree(tree, functions)


def state(
    id: str,  # noqa: A002
    *,
    on: Mapping[str, To] | None = None,
    after: Mapping[str, To] | None = None,
    always: To | None = None,
    entry: Actions | None = None,
    exit: Actions | None = None,  # noqa: A002
    initial: str | Sequence[str] | Tree | None = None,
    states: Sequence[Tree] | None = None,
    type: Literal["atomic", "compound", "parallel"] | None = None,  # noqa: A002
    description: str | None = None,
    tags: Sequence[str] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Tree:
    """An atomic state, or a compound one if it has `states`."""
    return _given(
        id=id,
        type=type,
        description=description,
        tags=tags,
        meta=meta,
        initial=initial,
        entry=entry,
        exit=exit,
        on=on,
        after=after,
        always=always,
        states=states,
    )


def parallel(id: str, *, states: Sequence[Tree], **rest: Any) -> Tree:  # noqa: A002
    """A state whose children are all active together. `rest` as in `state`."""
    return state(id, type="parallel", states=states, **rest)


def final(
    id: str,  # noqa: A002
    *,
    output: Any = None,
    entry: Actions | None = None,
    exit: Actions | None = None,  # noqa: A002
    status: FinalStatus | None = None,
) -> Tree:
    """A final state; `output` is the result of its parent, or of the chart (SCXML's donedata). One of the chart itself
    may say that the instance has failed or was cancelled; the context's field `error` says why."""
    return _given(id=id, type="final", entry=entry, exit=exit, output=output, status=status)


def history(
    id: str,  # noqa: A002
    *,
    kind: Literal["shallow", "deep"] = "shallow",
    target: str | Sequence[str] | None = None,
    actions: Actions | None = None,
) -> Tree:
    """A history state; `target` is what it means before its parent was ever left."""
    return _given(id=id, history=kind, target=target, actions=actions)


def to(
    target: str | Sequence[str] | None = None,
    *,
    guard: GuardLike | None = None,
    actions: Actions | None = None,
    internal: bool | None = None,
    description: str | None = None,
) -> Tree:
    """A transition to one or several states, or, without a target, one that only acts."""
    return _given(target=target, guard=guard, actions=actions, internal=internal, description=description)


def assign(function: Callable[..., Mapping[str, Any]] | None = None, /, **values: Any) -> Tree:
    """Set context fields: to CEL texts and other literals, or to what `function(context, event)` returns."""
    return {"assign": function if function is not None else values}


def raise_(event: str, data: Any = None) -> Tree:
    """Put an event on the internal queue."""
    return {"raise": _given(event=event, data=data)}


def send(event: str, *, data: Any = None, delay: str | None = None, id: str | None = None) -> Tree:  # noqa: A002
    """Send this instance an event after `delay` (a duration or a CEL text)."""
    return {"send": _given(event=event, data=data, delay=delay, id=id)}


def cancel(sendid: str) -> Tree:
    """Cancel the delayed send of this id."""
    return {"cancel": sendid}


def emit(
    subject: str,
    data: Any = None,
    *,
    retry: Retry | Mapping[str, Any] | None = None,
    timeout: str | None = None,
    cancel: CancelWhen | None = None,
) -> Tree:
    """Publish a message on the bus."""
    return {"emit": _given(subject=subject, data=data, **_how(retry, timeout, None, cancel))}


def call(
    service: str,
    method: str,
    data: Any = None,
    *,
    retry: Retry | Mapping[str, Any] | None = None,
    timeout: str | None = None,
    heartbeat: str | None = None,
    cancel: CancelWhen | None = None,
) -> Tree:
    """Call a service; the result comes back as an event."""
    return {"call": _given(service=service, method=method, data=data, **_how(retry, timeout, heartbeat, cancel))}


def perform(
    name: str,
    data: Any = None,
    *,
    retry: Retry | Mapping[str, Any] | None = None,
    timeout: str | None = None,
    heartbeat: str | None = None,
    cancel: CancelWhen | None = None,
) -> Tree:
    """Have the handler of this name perform something; the name alone, as a text, does too.

    timeout: of one attempt. heartbeat: the longest time between two signs of life. cancel: "on_exit" to cancel it when
    the state that is entered, or stayed in, is left.
    """
    return {"perform": _given(name=name, data=data, **_how(retry, timeout, heartbeat, cancel))}


def run_step(
    step: str,
    *,
    by: str | None = None,
    retry: Retry | Mapping[str, Any] | None = None,
    timeout: str | None = None,
    heartbeat: str | None = None,
    cancel: CancelWhen | None = None,
) -> Tree:
    """Have this step of the chart's workflow performed, `by` whom is part of the effect's kind. The rest is as in
    `perform`."""
    return {"run_step": _given(step=step, by=by, **_how(retry, timeout, heartbeat, cancel))}


def record(step: str, status: StepStatus) -> Tree:
    """Say how a step of the instance stands."""
    return {"record": {"step": step, "status": status}}


def _how(
    retry: Retry | Mapping[str, Any] | None, timeout: str | None, heartbeat: str | None, cancel: str | None
) -> Tree:
    written = msgspec.to_builtins(retry) if isinstance(retry, Retry) else retry
    return {"retry": written, "timeout": timeout, "heartbeat": heartbeat, "cancel": cancel}


def log(expr: str, label: str | None = None) -> Tree:
    """Log the value of a CEL text."""
    return {"log": _given(expr=expr, label=label)}


def if_(guard: GuardLike, then: Actions, else_: Actions | None = None) -> Tree:
    """Do `then` if the guard holds, otherwise `else_`."""
    return {"if": _given(guard=guard, then=then, **{"else": else_})}


def struct_fields(struct: type[Any], chart_name: str) -> list[Tree]:
    """The context declarations that a msgspec Struct class stands for. Raises ChartError for types that JSON does
    not have.
    """
    if not issubclass(struct, msgspec.Struct):
        raise ChartError(
            [Fault(path="context", message=f"expected a msgspec Struct class, got {struct.__name__}")], chart_name
        )
    declarations, faults = [], []
    for field in msgspec.structs.fields(struct):
        try:
            declaration: Tree = {"name": field.encode_name, "type": _type_text(field.type)}
        except TypeError as error:
            faults.append(Fault(path=f"context.{field.name}", message=str(error)))
            continue
        if field.default is not msgspec.NODEFAULT:
            declaration["default"] = msgspec.to_builtins(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            declaration["default"] = msgspec.to_builtins(field.default_factory())
        declarations.append(declaration)
    if faults:
        raise ChartError(faults, chart_name)
    return declarations


_NAMES = {
    int: "int",
    float: "double",
    str: "string",
    bool: "bool",
    Any: "dyn",
    dict: "map(string, dyn)",
    list: "list(dyn)",
}


def _type_text(hint: Any) -> str:
    """A Python type in the declarations' words."""
    if isinstance(hint, typing.Hashable) and hint in _NAMES:
        return _NAMES[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type_text(args[0])
    if origin in (typing.Union, types.UnionType) and type(None) in args:
        rest = [arg for arg in args if arg is not type(None)]
        return f"{_type_text(rest[0])}?" if len(rest) == 1 else "dyn?"
    if origin in (list, tuple, set, frozenset) and args:
        return f"list({_type_text(args[0])})" if origin is list else _refuse(hint)
    if origin is dict and args[0] is str:
        return f"map(string, {_type_text(args[1])})"
    if origin is Literal and all(isinstance(arg, str) for arg in args):
        return "string"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "map(string, dyn)"
    return _refuse(hint)


def _refuse(hint: Any) -> str:
    raise TypeError(
        f"expected int, float, str, bool, list[...], dict[str, ...], Any or one of these | None, got {hint!r}"
    )


def _given(**items: Any) -> Tree:
    return {key: value for key, value in items.items() if value is not None}
