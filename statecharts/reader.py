"""Reads the written form of a chart (a plain tree, as YAML, JSON and the Python door give it) into a `Definition`.

The written form is the canonical form plus short ways of saying things: `on`, `after` and `always` beside
`transitions`, a target alone for a transition, states as a mapping, one-key actions. Every fault of shape is found
in one reading; what a definition means (targets, types, expressions) is the compiler's business.

Python functions may stand in the tree where the form has `{function: name}`; they are registered under their
`__name__`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import UNSET

from statewright.statecharts import definition as d
from statewright.statecharts.actions_reader import ActionsReader
from statewright.statecharts.context import parse_type
from statewright.statecharts.places import Faults, Path

ID_CHARS_MAX = 256
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
STATE_ID = re.compile(r"[\w.:·-]+")
_DESCRIPTOR = re.compile(r"\*|[^\s.*]+(\.[^\s.*]+)*(\.\*?)?")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
CEL_WORDS = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)

_COMMON = {"description", "meta", "initial", "entry", "exit", "on", "after", "always", "transitions", "states"}
# `$schema` is for editors: where the schema of the document is.
_CHART_KEYS = _COMMON | {"$schema", "name", "version", "expressions", "context", "subscribe"}
_STATE_KEYS = _COMMON | {"id", "type", "tags", "history", "target", "actions", "output", "status", "context", "invoke"}
_TRANSITION_KEYS = {"target", "guard", "actions", "internal", "description"}
_EXPLICIT_KEYS = _TRANSITION_KEYS | {"event", "events", "delay"}
_INVOKE_TEXTS = ("id", "idlocation", "type", "typeexpr", "src", "srcexpr", "contentexpr")
_SUBSCRIPTION_KEYS = {"subject", "event", "eventexpr", "instance", "data", "id"}
_TYPES = ("atomic", "compound", "parallel", "final", "history")


def read_definition(tree: Any, faults: Faults) -> tuple[d.Definition | None, dict[str, Callable[..., Any]]]:
    """The definition (None if it cannot even be put together) and the functions that stood in the tree.

    Its places go to `faults.places`, what is wrong to `faults`.
    """
    reader = _Reader(faults)
    chart = reader.chart(tree)
    return chart, reader.functions


class _Reader(ActionsReader):
    def chart(self, tree: Any, path: Path = ()) -> d.Definition | None:
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a chart, a mapping with name and states, got {self.kind(tree)}")
            return None
        self.known(tree, _CHART_KEYS, path, "the chart")
        name = self.text(tree, "name", path)
        if not _NAME.fullmatch(name):
            self.fault((*path, "name"), f"expected a name of 1 to 128 of A-Z a-z 0-9 _ -, got {tree.get('name')!r}")
        expressions = tree.get("expressions", "strict")
        if expressions not in ("strict", "dynamic"):
            self.fault((*path, "expressions"), f"expected strict or dynamic, got {expressions!r}")
        chart = d.Definition(
            name=name,
            version=self._version(tree, path),
            description=self.text(tree, "description", path),
            expressions=expressions,
            context=self._context(tree.get("context"), (*path, "context")),
            subscribe=self._subscriptions(tree.get("subscribe"), (*path, "subscribe")),
            initial=self._initial(tree.get("initial"), (*path, "initial")),
            entry=self.actions(tree.get("entry"), (*path, "entry")),
            exit=self.actions(tree.get("exit"), (*path, "exit")),
            transitions=self._transitions(tree, path),
            states=self._states(tree.get("states"), (*path, "states")),
            meta=self._meta(tree, path),
        )
        self.places.put(chart, path, "")
        return chart

    def _version(self, tree: Mapping[str, Any], path: Path) -> str:
        version = tree.get("version", "1")
        if isinstance(version, int) and not isinstance(version, bool):
            return str(version)
        if not isinstance(version, str) or not 1 <= len(version) <= 128:
            self.fault((*path, "version"), f"expected a version as a text (put it in quotes), got {version!r}")
            return "1"
        return version

    def _context(self, tree: Any, path: Path) -> tuple[d.Declaration, ...]:
        if tree is None:
            return ()
        if isinstance(tree, list):
            items = [
                (item.get("name", ""), item, i)
                for i, item in enumerate(tree)
                if isinstance(item, Mapping) and isinstance(item.get("name", ""), str)
            ]
            if len(items) != len(tree):
                self.fault(path, "expected each field of the list to be a mapping with name and type")
        elif isinstance(tree, Mapping):
            items = [(name, item, name) for name, item in tree.items()]
        else:
            self.fault(path, f"expected a mapping of field names to types, got {self.kind(tree)}")
            return ()
        if twice := {name for name, _, _ in items if [n for n, _, _ in items].count(name) > 1}:
            self.fault(path, f"the fields {', '.join(sorted(map(str, twice)))} are declared twice")
        return tuple(self._declaration(str(name), item, (*path, key)) for name, item, key in items)

    def _declaration(self, name: str, tree: Any, path: Path) -> d.Declaration:
        if not _FIELD.fullmatch(name) or name in CEL_WORDS or name == "function":
            self.fault(path, f"expected a field name that is an identifier and no reserved word, got {name!r}")
        if isinstance(tree, str):
            tree = {"type": tree}
        elif not isinstance(tree, Mapping):
            self.fault(path, f"expected a type such as int or a mapping with type and default, got {self.kind(tree)}")
            tree = {}
        self.known(tree, {"name", "type", "default", "expr", "description"}, path, f"field {name!r}")
        if tree.get("name", name) != name:
            self.fault((*path, "name"), f"expected no name, or the key {name!r}, got {tree['name']!r}")
        text, default = self.text(tree, "type", path), tree.get("default", UNSET)
        if tree.get("type") != "":
            text = text or "dyn"
        try:
            text = parse_type(text).text
        except ValueError as error:
            self.fault((*path, "type"), str(error))
            text = "dyn"
        # One canonical way of saying each: a nullable field begins as null anyway, and 1 as a double is 1.0.
        if default is None and text.endswith("?"):
            default = UNSET
        elif text in ("double", "double?") and isinstance(default, int) and not isinstance(default, bool):
            default = float(default)
        description = self.text(tree, "description", path)
        expr = self.text(tree, "expr", path)
        declaration = d.Declaration(name=name, type=text, default=default, expr=expr, description=description)
        self.places.put(declaration, path, "")
        return declaration

    def _subscriptions(self, tree: Any, path: Path) -> tuple[d.Subscription, ...]:
        subscriptions = []
        for item, place in self.items(tree, path):
            if not isinstance(item, Mapping):
                self.fault(place, f"expected a mapping with subject, event and instance, got {self.kind(item)}")
                continue
            self.known(item, _SUBSCRIPTION_KEYS, place, "the subscription")
            texts = {key: self.text(item, key, place) for key in _SUBSCRIPTION_KEYS}
            for key in ("subject", "instance"):
                if not texts[key]:
                    self.fault(place, f"expected {key!r}, which is missing")
            if bool(texts["event"]) == bool(texts["eventexpr"]):
                self.fault(place, "expected either 'event' (a name) or 'eventexpr' (a CEL expression)")
            subscription = d.Subscription(**texts | {"data": texts["data"] or "data"})
            self.places.put(subscription, place, "")
            subscriptions.append(subscription)
        return tuple(subscriptions)

    def _states(self, tree: Any, path: Path) -> tuple[d.State, ...]:
        if tree is None:
            return ()
        if isinstance(tree, Mapping):
            return tuple(self._state(str(key), item, (*path, key)) for key, item in tree.items())
        if not isinstance(tree, list):
            self.fault(path, f"expected a mapping of ids to states, got {self.kind(tree)}")
            return ()
        states = []
        for index, item in enumerate(tree):
            if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
                self.fault((*path, index), "expected each state of a list to be a mapping with an id")
                continue
            # Without lines to look up, the id says more than the index.
            key = index if self.places.has_lines else item["id"]
            states.append(self._state(item["id"], item, (*path, key)))
        return tuple(states)

    def _state(self, state_id: str, tree: Any, path: Path) -> d.State:
        self.state, outer = state_id, self.state
        tree = {} if tree is None else tree
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a mapping that says what state {state_id!r} does, got {self.kind(tree)}")
            tree = {}
        if not STATE_ID.fullmatch(state_id) or len(state_id) > ID_CHARS_MAX:
            self.fault(path, f"expected a state id of letters, digits and _ . : - only, got {state_id!r}")
        self.known(tree, _STATE_KEYS, path, f"state {state_id!r}")
        if tree.get("id", state_id) != state_id:
            self.fault((*path, "id"), f"expected no id, or the key {state_id!r}, got {tree['id']!r}")
        kind = self._type(tree, path)
        state = d.State(
            id=state_id,
            type=kind,
            description=self.text(tree, "description", path),
            tags=self.strings(tree.get("tags"), (*path, "tags")),
            meta=self._meta(tree, path),
            context=self._context(tree.get("context"), (*path, "context")),
            initial=self._initial_of(tree, path, kind),
            history="deep" if tree.get("history") == "deep" else "shallow",
            entry=self.actions(tree.get("entry"), (*path, "entry")),
            exit=self.actions(tree.get("exit"), (*path, "exit")),
            invoke=self._invokes(tree.get("invoke"), (*path, "invoke")),
            transitions=self._transitions(tree, path),
            states=self._states(tree.get("states"), (*path, "states")),
            output=self.value(tree.get("output"), (*path, "output")),
            status=self._status(tree, path),
        )
        self.places.put(state, path, state_id)
        self.state = outer
        return state

    def _status(self, tree: Mapping[str, Any], path: Path) -> d.FinalStatus:
        if tree.get("status") is None:
            return "completed"
        return self.choice(tree["status"], typing.get_args(d.FinalStatus), (*path, "status"))  # type: ignore[no-any-return]

    def _invokes(self, tree: Any, path: Path) -> tuple[d.Invoke, ...]:
        invokes = []
        for item, place in self.items(tree, path):
            if not isinstance(item, Mapping):
                self.fault(place, f"expected a mapping that says which child to invoke, got {self.kind(item)}")
                continue
            self.known(item, {*_INVOKE_TEXTS, "chart", "data", "autoforward", "finalize"}, place, "the invoke")
            texts = {key: self.text(item, key, place) for key in _INVOKE_TEXTS}
            chart = None
            if "chart" in item:
                outer, self.state = self.state, ""
                chart = self.chart(item["chart"], (*place, "chart"))
                self.state = outer
            if sum(map(bool, ("chart" in item, texts["src"], texts["srcexpr"], texts["contentexpr"]))) != 1:
                self.fault(place, "expected one of chart, src, srcexpr and contentexpr in the invoke")
            data, autoforward = item.get("data", {}), item.get("autoforward", False)
            if not isinstance(data, Mapping) or not isinstance(autoforward, bool):
                self.fault(place, "expected data to be a mapping and autoforward to be true or false")
                data, autoforward = {}, False
            invoke = d.Invoke(
                **texts,
                chart=chart,
                data={str(key): self.value(value, (*place, "data", str(key))) for key, value in data.items()},
                autoforward=autoforward,
                finalize=self.actions(item.get("finalize"), (*place, "finalize")),
            )
            self.places.put(invoke, place, self.state)
            invokes.append(invoke)
        return tuple(invokes)

    def _type(self, tree: Mapping[str, Any], path: Path) -> d.StateType:
        if "history" in tree and tree["history"] not in ("shallow", "deep"):
            self.fault((*path, "history"), f"expected shallow or deep, got {tree['history']!r}")
        kind = tree.get("type")
        if kind is None:
            return "history" if "history" in tree else "compound" if tree.get("states") else "atomic"
        if kind not in _TYPES:
            self.fault((*path, "type"), f"expected one of {', '.join(_TYPES)}, got {kind!r}")
            return "atomic"
        if kind != "history" and "history" in tree:
            self.fault((*path, "history"), f"expected type history where 'history' is given, got {kind!r}")
        return kind  # type: ignore[no-any-return]

    def _initial_of(self, tree: Mapping[str, Any], path: Path, kind: str) -> d.Initial | None:
        for key in ("target", "actions"):
            if key in tree and kind != "history":
                self.fault((*path, key), f"only a history state has {key!r}; a transition goes under 'on'")
        if kind != "history" or "initial" in tree:
            return self._initial(tree.get("initial"), (*path, "initial"))
        if "target" not in tree:
            return None
        default = d.Initial(
            target=self.strings(tree["target"], (*path, "target")),
            actions=self.actions(tree.get("actions"), (*path, "actions")),
        )
        self.places.put(default, (*path, "target"), self.state)
        return default

    def _initial(self, tree: Any, path: Path) -> d.Initial | None:
        if tree is None:
            return None
        actions: Any = None
        target_path = path
        if isinstance(tree, Mapping):
            self.known(tree, {"target", "actions"}, path, "initial")
            tree, actions, target_path = tree.get("target"), tree.get("actions"), (*path, "target")
        initial = d.Initial(target=self.strings(tree, target_path), actions=self.actions(actions, (*path, "actions")))
        self.places.put(initial, path, self.state)
        return initial

    def _transitions(self, tree: Mapping[str, Any], path: Path) -> tuple[d.Transition, ...]:
        """All of a state's transitions, in the order in which they are written."""
        found: list[d.Transition] = []
        for key in tree:
            place = (*path, key)
            if key == "on":
                for event, item, where in self._by_key(tree[key], place, "events"):
                    found += self._each(item, where, events=self._descriptors(event, where))
            elif key == "after":
                for delay, item, where in self._by_key(tree[key], place, "delays"):
                    found += self._each(item, where, delay=self.delay(delay, where))
            elif key == "always":
                found += self._each(tree[key], place)
            elif key == "transitions":
                for item, where in self.items(tree[key], place):
                    found += self._explicit(item, where)
        return tuple(found)

    def _by_key(self, tree: Any, path: Path, keys: str) -> Iterable[tuple[Any, Any, Path]]:
        if isinstance(tree, Mapping):
            return [(key, item, (*path, key)) for key, item in tree.items()]
        if isinstance(tree, list) and keys == "delays":
            for index, item in enumerate(tree):
                if not isinstance(item, Mapping):
                    self.fault((*path, index), f"expected a transition with its delay, got {self.kind(item)}")
            return [
                (item.get("delay", ""), {k: v for k, v in item.items() if k != "delay"}, (*path, index))
                for index, item in enumerate(tree)
                if isinstance(item, Mapping)
            ]
        self.fault(path, f"expected a mapping of {keys} to transitions, got {self.kind(tree)}")
        return []

    def _each(self, tree: Any, path: Path, *, events: tuple[str, ...] = (), delay: str = "") -> list[d.Transition]:
        if isinstance(tree, list) and not all(isinstance(item, str) for item in tree):
            return [
                t for item, place in self.items(tree, path) for t in self._each(item, place, events=events, delay=delay)
            ]
        if isinstance(tree, str | list):
            tree = {"target": tree}
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a target, a transition or a list of transitions, got {self.kind(tree)}")
            return []
        self.known(tree, _TRANSITION_KEYS, path, "the transition")
        return [self._transition(tree, path, events, delay)]

    def _explicit(self, tree: Any, path: Path) -> list[d.Transition]:
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a transition, a mapping with event and target, got {self.kind(tree)}")
            return []
        self.known(tree, _EXPLICIT_KEYS, path, "the transition")
        if "event" in tree and "events" in tree:
            self.fault(path, "expected either event or events, got both")
        event = tree.get("events", tree.get("event"))
        names = event.split() if isinstance(event, str) else self.strings(event, (*path, "events"))
        events = tuple(name for text in names for name in self._descriptors(text, path))
        delay = self.delay(tree["delay"], (*path, "delay")) if "delay" in tree else ""
        if events and delay:
            self.fault(path, "expected either events or a delay, got both")
        return [self._transition(tree, path, events, delay)]

    def _transition(self, tree: Mapping[str, Any], path: Path, events: tuple[str, ...], delay: str) -> d.Transition:
        internal = tree.get("internal", False)
        if not isinstance(internal, bool):
            self.fault((*path, "internal"), f"expected true or false, got {internal!r}")
        transition = d.Transition(
            events=events,
            delay=delay,
            target=self.strings(tree.get("target"), (*path, "target")),
            guard=self.guard(tree["guard"], (*path, "guard")) if "guard" in tree else None,
            actions=self.actions(tree.get("actions"), (*path, "actions")),
            internal=bool(internal),
            description=self.text(tree, "description", path),
        )
        self.places.put(transition, path, self.state)
        return transition

    def _descriptors(self, text: str, path: Path) -> tuple[str, ...]:
        names = tuple(text.split())
        if not names or not all(_DESCRIPTOR.fullmatch(name) for name in names):
            self.fault(path, f"expected an event name such as submit, error.* or *, got {text!r}")
        return names

    def _meta(self, tree: Mapping[str, Any], path: Path) -> dict[str, Any]:
        meta = tree.get("meta", {})
        if not isinstance(meta, Mapping):
            self.fault((*path, "meta"), f"expected a mapping, got {self.kind(meta)}")
            return {}
        return self.json(meta, (*path, "meta")) or {}
