"""Data to try a chart with: contexts to start with and data of events that may make its guards true or false.

Nothing is solved. The texts of guards and actions are searched for the fields they ask for and the constants that they
compare them with; what is tried are those constants, their neighbours, what the context holds just then, and one or two
plain values of the declared type. Whether a sample does what is wanted, the chart's own evaluator says.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import Json

SAMPLES_MAX = 120
"""Data tried for one event in one situation."""
CONTEXTS_MAX = 40
VALUES_MAX = 12
"""Values tried for one field."""

STRINGS = ("a", "b", "c")
ABSENT: Any = object()
"""A field that an event does not have."""

_DATA = re.compile(r"\b_?event\.data((?:\.[A-Za-z_]\w*|\[\s*[\"'][^\"']+[\"']\s*\])*)(\s*\()?")
_KEY = re.compile(r"[A-Za-z_][^.\[\]\"']*|[^.\[\]\"'\s]+")
_FIELD = re.compile(r"\bcontext\.([A-Za-z_]\w*)")
_STRING = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")
_HAS = re.compile(r"\bhas\s*\(\s*_?event\.data((?:\.\w+)+)\s*\)")

Path = tuple[str, ...]


class Samples:
    """What to try on one chart."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        owners: list[d.Definition | d.State] = [chart.definition, *d.walk_states(chart.definition)]
        self._transitions = [transition for owner in owners for transition in owner.transitions]
        self._anyway = [text for owner in owners for text in _texts((owner.entry, owner.exit))]
        self._anyway += [text for t in self._transitions if not t.events for text in _texts((t.guard, t.actions))]
        guards = [text for t in self._transitions for text in self._guard_texts(t)]
        branches = [a.branches for a in d.walk_actions(chart.definition) if isinstance(a, d.If)]
        self._asking = [*guards, *_texts(branches), *(t.delay for t in self._transitions if t.delay)]
        self._assigned = _assigned(chart.definition)
        self._of_event: dict[str, tuple[list[str], list[Path], list[Path]]] = {}

    @property
    def asked(self) -> frozenset[str] | None:
        """The context fields that guards and delays ask for; None if that can't be told."""
        functions = any(isinstance(t.guard, d.FunctionRef) for t in self._transitions)
        if functions or not self.chart.machine.strict:
            return None
        return frozenset(name for text in self._asking for name in _FIELD.findall(text))

    def contexts(self) -> Iterator[dict[str, Json]]:
        """Contexts to start with, the plainest first: only what must be given, then one field another."""
        declared = {item.name: item for item in self.chart.definition.context}
        base: dict[str, Json] = {}
        for name, item in declared.items():
            if item.default is msgspec.UNSET and not item.type.endswith("?") and self.chart.machine.strict:
                base[name] = _plain(item.type)[0]
        yield base
        count = 0
        known = {n: i.default for n, i in declared.items() if i.default is not msgspec.UNSET} | base
        for name in sorted(self.asked or declared, key=list(declared).index):
            texts = [text for text in self._asking if name in _FIELD.findall(text)]
            for value in self._values(texts, known, declared[name].type.rstrip("?")):
                count += 1
                if _fits(declared[name].type, value) and value != known.get(name) and count <= CONTEXTS_MAX:
                    yield base | {name: value}

    def data(self, event: str, context: Mapping[str, Json]) -> list[Json]:
        """Data for an event that arrives in this context, the plainest first."""
        found = self._of_event.get(event)
        if found is None:
            found = self._of_event[event] = self._look_at(event)
        texts, paths, optional = found
        if not paths:
            return [None]
        choices = []
        for path in paths:
            mentioning = [text for text in texts if path in _paths(text)]
            values = self._values(mentioning, context, self._assigned.get(path, ""))
            choices.append([ABSENT, *values] if path in optional else values)
        samples = [_built(paths, chosen) for chosen in _nearest_first(choices)]
        return [*samples, None]

    def _look_at(self, event: str) -> tuple[list[str], list[Path], list[Path]]:
        handlers = self.chart.machine.handlers(event).by_bit.values()
        orders = sorted({candidate.transition.order for candidates in handlers for candidate in candidates})
        texts: list[str] = []
        for order in orders:
            transition = self._transitions[order]
            texts += [*self._guard_texts(transition), *_texts(transition.actions)]
        texts += self._anyway
        paths = list(dict.fromkeys(path for text in texts for path in _paths(text)))
        if len(paths) > 1 and () in paths:
            paths.remove(())
        optional = [tuple(_KEY.findall(path)) for text in texts for path in _HAS.findall(text)]
        return texts, paths, optional

    def _guard_texts(self, transition: d.Transition) -> list[str]:
        guard = transition.guard
        if isinstance(guard, d.FunctionRef):
            fields = self.chart.machine.context_type.fields
            return _function_texts(self.chart.functions.get(guard.function), fields)
        return [guard] if guard is not None else []

    def _values(self, texts: Iterable[str], context: Mapping[str, Json], declared: str) -> list[Json]:
        types = {item.name: item.type.rstrip("?") for item in self.chart.definition.context}
        values: list[Json] = list(_plain(declared)) if declared else []
        kinds: list[str] = []
        for text in texts:
            values += _literals(text)
            for name in _FIELD.findall(text):
                value = context.get(name)
                values += value if isinstance(value, list) else [value]
                if isinstance(value, int) and not isinstance(value, bool):
                    values += [value - 1, value + 1]
                # What is put into a field is what guards ask it for later.
                values += [v for asking in self._asking if name in _FIELD.findall(asking) for v in _literals(asking)]
                kind = types.get(name, "")
                kinds.append(kind.removeprefix("list(").rstrip(")?") if kind.startswith("list(") else kind)
        if not declared:
            kinds += ["string"] if any(isinstance(value, str) for value in values) or not values else []
            for kind in dict.fromkeys(kinds):
                values += _plain(kind)
            values += [True, False, 1]
        return _unique(values)[:VALUES_MAX]


def _texts(node: Any) -> Iterator[str]:
    """All strings in a part of a definition, expressions among them."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, d.Node):
        for name in node.__struct_fields__:
            yield from _texts(getattr(node, name))
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)


def _function_texts(function: Any, fields: Collection[str]) -> list[str]:
    """What a Python guard compares with, as texts like those of expressions: its constants, and keys of the data."""
    code = getattr(function, "__code__", None)
    constants = [c for c in getattr(code, "co_consts", ()) if isinstance(c, str | int | float) and c is not True]
    constants = [c for c in constants if c is not False and c != getattr(function, "__doc__", None)]
    names = [*getattr(code, "co_names", ()), *constants]
    asked = [f"context.{name}" for name in dict.fromkeys(names) if name in fields]
    keys = [c for c in constants if isinstance(c, str) and c.isidentifier() and c not in fields]
    about = " ".join([*map(repr, constants), *asked])
    return [f"event.data.{key} {about}" for key in keys] or [about]


def _paths(text: str) -> list[Path]:
    paths = []
    for path, called in _DATA.findall(text):
        keys = tuple(_KEY.findall(path))
        paths.append(keys[:-1] if called else keys)
    return paths


def _assigned(definition: d.Definition) -> dict[Path, str]:
    """The declared types of the fields that data of events are assigned to as they are."""
    types = {item.name: item.type for item in definition.context}
    found: dict[Path, str] = {}
    for action in d.walk_actions(definition):
        for name, value in action.values.items() if isinstance(action, d.Assign) else ():
            if isinstance(value, str) and "event.data." in value:
                whole = _DATA.fullmatch(value.strip())
                paths = _paths(value) if whole or value.lstrip().startswith("has(") else []
                for path in paths:
                    found.setdefault(path, types.get(name, "").rstrip("?"))
    return {path: kind for path, kind in found.items() if kind not in ("", "dyn")}


def _literals(text: str) -> list[Json]:
    strings = [match[1:-1] for match in _STRING.findall(text)]
    found: list[Json] = list(strings)
    for number in _NUMBER.findall(_STRING.sub("''", text)):
        value = float(number) if "." in number else int(number)
        found += [value, value - 1, value + 1]
    return found


def _plain(kind: str) -> tuple[Json, ...]:
    if kind.startswith("list("):
        inner = _plain(kind[5:-1])
        return ([], [inner[0]], list(inner[:2]))
    if kind.startswith("map("):
        return ({},)
    return {"int": (1, 0), "double": (1.0, 0.0), "bool": (True, False), "dyn": (None,), "": ()}.get(kind, STRINGS)


def _fits(kind: str, value: Json) -> bool:
    wanted = {"int": int, "double": float, "string": str, "bool": bool}.get(kind.rstrip("?"))
    if wanted is None:
        return isinstance(value, list) == kind.startswith("list(")
    return type(value) is wanted


def _unique(values: Iterable[Json]) -> list[Json]:
    seen: dict[str, Json] = {}
    for value in values:
        if value is not None:
            seen.setdefault(msgspec.json.encode(value).decode(), value)
    return list(seen.values())


def _built(paths: Sequence[Path], values: Sequence[Json]) -> Json:
    """Data with these values at these paths."""
    built: dict[str, Json] = {}
    for path, value in zip(paths, values, strict=True):
        if not path:
            return value
        here = built
        for key in path[:-1]:
            inner = here.setdefault(key, {})
            here = inner if isinstance(inner, dict) else {}
        if value is not ABSENT and not isinstance(here.get(path[-1]), dict):
            here[path[-1]] = value
    return built


def _nearest_first(choices: Sequence[Sequence[Json]]) -> Iterator[tuple[Json, ...]]:
    """Combinations of one value of each, those of the first values first; at most `SAMPLES_MAX`."""
    if not all(choices):
        return
    first = (0,) * len(choices)
    heap, seen = [(0, first)], {first}
    for _ in range(SAMPLES_MAX):
        if not heap:
            return
        _, at = heapq.heappop(heap)
        yield tuple(choices[number][index] for number, index in enumerate(at))
        for number, index in enumerate(at):
            onward = (*at[:number], index + 1, *at[number + 1 :])
            if index + 1 < len(choices[number]) and onward not in seen:
                seen.add(onward)
                heapq.heappush(heap, (sum(onward), onward))
