"""Guards as trees, until it is known what they become: one CEL text, or one Python function.

Only CEL can ask which states are active (`In`), and only Python can call the user's functions, so a guard that needs
both cannot be carried over: `GuardError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from statewright.statecharts import definition as d
from statewright.statecharts.scxml.values import cel_text


class GuardError(Exception):
    """The guard asks for what CEL has and for what Python has. The message says which."""


class Cel(NamedTuple):
    """A CEL text."""

    text: str


class Named(NamedTuple):
    """An event's name fits an XState descriptor."""

    descriptor: str


class Calls(NamedTuple):
    """A registered function says yes."""

    name: str
    function: Callable[..., Any]
    params: Any = None


class AllOf(NamedTuple):
    parts: tuple[Guard, ...]


class AnyOf(NamedTuple):
    parts: tuple[Guard, ...]


class Not(NamedTuple):
    part: Guard


Guard = Cel | Named | Calls | AllOf | AnyOf | Not


def active(state_id: str) -> Cel:
    return Cel(f"In({cel_text(state_id)})")


def both(one: Guard | None, other: Guard | None) -> Guard | None:
    """One guard that holds when both do; None holds always."""
    if one is None or other is None:
        return other if one is None else one
    return AllOf((*(one.parts if isinstance(one, AllOf) else (one,)), other))


def build(guard: Guard, functions: dict[str, Callable[..., Any]]) -> d.Guard:
    """The guard as the model has it; what it calls goes to `functions`. Raises GuardError."""
    called = sorted({leaf.name for leaf in _leaves(guard) if isinstance(leaf, Calls)})
    if not called:
        return _text(guard)
    if texts := sorted({leaf.text for leaf in _leaves(guard) if isinstance(leaf, Cel)}):
        names, asked = ", ".join(map(repr, called)), ", ".join(map(repr, texts))
        raise GuardError(f"expected guards all in CEL where one is needed, got {asked} beside the Python {names}")
    name, function = _title(guard), _function(guard)
    functions[name] = function
    return d.FunctionRef(function=name)


def bound(name: str, params: Any) -> str:
    """The name under which a function with its parameters is registered."""
    return name if params is None else f"{name}({json.dumps(params, ensure_ascii=False, sort_keys=True)})"


def bind(function: Callable[..., Any], params: Any) -> Callable[..., Any]:
    return function if params is None else lambda context, event: function(context, event, params)


def _leaves(guard: Guard) -> list[Cel | Named | Calls]:
    if isinstance(guard, AllOf | AnyOf):
        return [leaf for part in guard.parts for leaf in _leaves(part)]
    return _leaves(guard.part) if isinstance(guard, Not) else [guard]


def _text(guard: Guard) -> str:
    if isinstance(guard, Cel):
        return guard.text
    if isinstance(guard, Named):
        base = guard.descriptor.removesuffix(".*")
        same = f"event.name == {cel_text(base)}"
        return same if base == guard.descriptor else f"({same} || event.name.startsWith({cel_text(base + '.')}))"
    if isinstance(guard, Not):
        return f"!({_text(guard.part)})"
    assert isinstance(guard, AllOf | AnyOf)
    if not guard.parts:
        return "true" if isinstance(guard, AllOf) else "false"
    return (" && " if isinstance(guard, AllOf) else " || ").join(
        f"({_text(part)})" if isinstance(part, Cel | AllOf | AnyOf) and len(guard.parts) > 1 else _text(part)
        for part in guard.parts
    )


def _title(guard: Guard) -> str:
    if isinstance(guard, Calls):
        return bound(guard.name, guard.params)
    if isinstance(guard, AllOf | AnyOf):
        return f"{'and' if isinstance(guard, AllOf) else 'or'}({', '.join(map(_title, guard.parts))})"
    return f"not({_title(guard.part)})" if isinstance(guard, Not) else _text(guard)


def _function(guard: Guard) -> Callable[..., Any]:
    if isinstance(guard, Calls):
        return bind(guard.function, guard.params)
    if isinstance(guard, Named):
        return lambda context, event: fits(event.name, guard.descriptor)
    if isinstance(guard, Not):
        part = _function(guard.part)
        return lambda context, event: not part(context, event)
    assert isinstance(guard, AllOf | AnyOf)
    parts = [_function(part) for part in guard.parts]
    judge = all if isinstance(guard, AllOf) else any
    return lambda context, event: judge(part(context, event) for part in parts)


def fits(event: str, descriptor: str) -> bool:
    """Whether an event's name fits an XState descriptor: itself, `a.*` (which `a` fits, too) or `*`."""
    base = descriptor.removesuffix(".*")
    return descriptor in ("*", event) or (base != descriptor and (event == base or event.startswith(f"{base}.")))


def state_value(value: Any) -> list[list[str]]:
    """The paths of keys in a state value: `"a.b"`, `{"a": "b"}`, `{"a": {"b": {}, "c": "d"}}`. Raises ValueError."""
    if isinstance(value, str):
        return [value.split(".")]
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"expected a state value such as 'a.b' or {{'a': 'b'}}, got {value!r}")
    return [[key, *path] for key, inner in value.items() for path in (state_value(inner) if inner else [[]])]
