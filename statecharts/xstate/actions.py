"""Reads a machine configuration's actions and guards: what is named, and what XState has built in.

XState's built-in actions and guards are functions in JavaScript; in JSON they are objects of the same `type`, with what
the function was called with as fields (or as `params`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from statewright.statecharts import definition as d
from statewright.statecharts.actions_reader import ActionsReader
from statewright.statecharts.durations import format_duration, parse_duration
from statewright.statecharts.places import Faults, Path
from statewright.statecharts.scxml.values import cel_text, literal
from statewright.statecharts.xstate import guards as g
from statewright.statecharts.xstate.names import Meanings, StateNode, Targets

_EVENT = re.compile(r"[^\s.*]+(\.[^\s.*]+)*")
_OWN = ("done.state.", "done.invoke.", "done.effect.", "error.invoke.", "error.effect.", "xstate.")
"""How the names of events begin that nobody but the engine sends."""
_BUILT_IN = {
    "xstate.assign": {"assignment"},
    "xstate.raise": {"event", "delay", "id"},
    "xstate.sendTo": {"to", "event", "delay", "id"},
    "xstate.cancel": {"sendId"},
    "xstate.log": {"value", "label"},
    "xstate.emit": {"event"},
}
_COMBINED = {"and": "guards", "or": "guards", "not": "guards", "stateIn": "stateValue"}


class ContentReader(ActionsReader):
    """Reading with faults, as its base does. `source` is the state that is being read."""

    source: StateNode
    root: StateNode
    targets: Targets

    def __init__(self, faults: Faults, meanings: Meanings) -> None:
        super().__init__(faults)
        self.meanings = meanings
        self.performed: dict[str, Path] = {}
        """The plain actions by name, with where the first of each is."""
        self.sent: set[str] = set()
        """The names of events that actions raise or send."""
        self.receivers: list[tuple[str, Path, str]] = []
        """(the `to` of a send, where, the state), to be looked at when all actors are known."""

    # -- actions -----------------------------------------------------------------------------------------------

    def content(self, tree: Any, path: Path) -> tuple[d.AnyAction, ...]:
        """The actions of an entry, an exit or a transition; each has its place."""
        found = []
        for item, place in self.items(tree, path):
            action = self._one(item, place)
            if action is not None:
                self.places.put(action, place, self.state)
                found.append(action)
        return tuple(found)

    def _one(self, item: Any, path: Path) -> d.AnyAction | None:
        tree: Any = {"type": item} if isinstance(item, str) else item
        kind = tree.get("type") if isinstance(tree, Mapping) else None
        if not isinstance(kind, str) or not kind:
            self.fault(path, f"expected an action, a name or {{type, params}}, got {self.kind(item)}")
            return None
        if kind.startswith("xstate."):
            return self._built_in(kind, tree, path)
        self.known(tree, {"type", "params"}, path, f"action {kind!r}")
        params = self.json(tree.get("params"), (*path, "params"))
        meaning = self.meanings.functions.get(kind)
        if isinstance(meaning, str):
            self.fault(
                path, f"expected a function or a mapping of fields for action {kind!r}, got the text {meaning!r}"
            )
        elif isinstance(meaning, Mapping):
            if params is not None:
                self.fault((*path, "params"), f"expected a function for action {kind!r}, which has params")
            return d.Assign(values={str(key): self.value(value, path) for key, value in meaning.items()})
        elif meaning is not None:
            name = g.bound(kind, params)
            self.functions[name] = g.bind(meaning, params)
            return d.Assign(function=name)
        self.performed.setdefault(kind, path)
        return d.Perform(name=kind, data=literal(params))

    def _built_in(self, kind: str, tree: Mapping[str, Any], path: Path) -> d.AnyAction | None:
        if kind not in _BUILT_IN:
            self.fault(path, f"the action {kind!r} cannot be carried over; expected one of {', '.join(_BUILT_IN)}")
            return None
        params = tree.get("params", {})
        if not isinstance(params, Mapping):
            self.fault((*path, "params"), f"expected a mapping, got {self.kind(params)}")
            return None
        given = {**{k: v for k, v in tree.items() if k not in ("type", "params")}, **params}
        self.known(given, _BUILT_IN[kind], path, repr(kind))
        if kind == "xstate.assign":
            values = given.get("assignment")
            if not isinstance(values, Mapping) or not values:
                self.fault(path, "expected in xstate.assign an assignment, a mapping of fields to their new values")
                return None
            return d.Assign(values={str(key): literal(self.json(value, path)) for key, value in values.items()})
        if kind == "xstate.cancel":
            return d.Cancel(sendid=self._required(given, "sendId", path))
        if kind == "xstate.log":
            value = given.get("value", "")
            return d.Log(expr=cel_text(self.json(value, path)), label=self.text(given, "label", path))
        name, data = self._event(given.get("event"), path)
        if kind == "xstate.emit":
            return d.Emit(subject=name, data=data)
        return self._send(kind, name, data, given, path)

    def _send(self, kind: str, name: str, data: Any, given: Mapping[str, Any], path: Path) -> d.AnyAction:
        self.sent.add(name)
        own_id = self.text(given, "id", path)
        delay = self.delay_text(given["delay"], (*path, "delay")) if given.get("delay") is not None else ""
        if kind == "xstate.raise":
            return d.Send(event=name, data=data, delay=delay, id=own_id) if delay else d.Raise(event=name, data=data)
        to = self._required(given, "to", path)
        self.receivers.append((to, (*path, "to"), self.state))
        return d.Send(event=name, data=data, delay=delay, id=own_id, target=f"#_{to.removeprefix('#_')}")

    def _required(self, given: Mapping[str, Any], key: str, path: Path) -> str:
        if not (value := self.text(given, key, path)):
            self.fault(path, f"expected {key!r}, a text, which is missing")
        return value

    def _event(self, tree: Any, path: Path) -> tuple[str, Any]:
        """The name of an event that is sent, and its data: all that it has beside its type."""
        event: Any = {"type": tree} if isinstance(tree, str) else tree
        name = event.get("type") if isinstance(event, Mapping) else None
        if not isinstance(name, str) or not self.is_event(name, (*path, "event")):
            if not isinstance(name, str):
                self.fault(path, f"expected an event, a name or a mapping with its type, got {self.kind(tree)}")
            return "event", None
        data = self.json({key: value for key, value in event.items() if key != "type"}, (*path, "event"))
        return name, literal(data or None)

    def is_event(self, name: str, path: Path) -> bool:
        """Whether it can be the name of an event; if not, that is noted."""
        if not _EVENT.fullmatch(name):
            self.fault(path, f"expected an event name without spaces, empty parts and '*' inside, got {name!r}")
        elif f"{name}.".startswith(_OWN) or name in ("error.execution", "error.communication"):
            self.fault(
                path, f"expected an event of the user's, got {name!r}: only the engine sends events of such names"
            )
        else:
            return True
        return False

    def delay_text(self, tree: Any, path: Path) -> str:
        """A delay in milliseconds, or the name of one that is given."""
        if isinstance(tree, str) and not tree.isdecimal():
            if tree not in self.meanings.delays:
                self.fault(path, f"expected in delays what the delay {tree!r} is, got nothing for it")
                return "0s"
            meaning = self.meanings.delays[tree]
            return self.delay(meaning, path)
        text = self.delay(tree, path)
        delay_ns = parse_duration(text)
        if delay_ns is None:
            self.fault(path, f"expected a delay in whole milliseconds, or the name of one, got {tree!r}")
        return format_duration(delay_ns or 0)

    # -- guards ------------------------------------------------------------------------------------------------

    def guard_tree(self, tree: Any, path: Path) -> g.Guard:
        given: Any = {"type": tree} if isinstance(tree, str) else tree
        kind = given.get("type") if isinstance(given, Mapping) else None
        if not isinstance(kind, str) or not kind:
            self.fault(path, f"expected a guard, a name or {{type, params}}, got {self.kind(tree)}")
            return g.AllOf(())
        short = kind.removeprefix("xstate.")
        if short in _COMBINED and (short != kind or kind not in self.meanings.functions):
            params = given.get("params")
            given = {**given, **(params if isinstance(params, Mapping) else {})}
            self.known(given, {"type", "params", _COMBINED[short]}, path, f"guard {kind!r}")
            return self._combined(short, given.get(_COMBINED[short]), (*path, _COMBINED[short]))
        self.known(given, {"type", "params"}, path, f"guard {kind!r}")
        meaning = self.meanings.functions.get(kind)
        params = self.json(given.get("params"), (*path, "params"))
        if callable(meaning):
            return g.Calls(kind, meaning, params)
        if isinstance(meaning, str):
            if params is not None:
                self.fault((*path, "params"), f"expected a function for guard {kind!r}, which has params, got CEL")
            return g.Cel(meaning)
        got = f"got {self.kind(meaning)}" if meaning is not None else "got nothing for it"
        self.fault(path, f"expected in functions what the guard {kind!r} is, a CEL text or a function, {got}")
        return g.AllOf(())

    def _combined(self, kind: str, tree: Any, path: Path) -> g.Guard:
        if kind == "stateIn":
            return self._state_in(tree, path)
        parts = tuple(self.guard_tree(item, place) for item, place in self.items(tree, path))
        if not parts or (kind == "not" and len(parts) != 1):
            self.fault(path, f"expected {'one guard' if kind == 'not' else 'guards'} in {kind!r}, got {len(parts)}")
            return g.AllOf(())
        return g.Not(parts[0]) if kind == "not" else g.AllOf(parts) if kind == "and" else g.AnyOf(parts)

    def _state_in(self, tree: Any, path: Path) -> g.Guard:
        if isinstance(tree, str) and tree.startswith("#"):
            found = [(tree, self.targets.resolve(tree, self.source))]
        else:
            try:
                found = [(".".join(keys), self.root.walk(keys)) for keys in g.state_value(tree)]
            except ValueError as error:
                self.fault(path, str(error))
                return g.AllOf(())
        for text, node in found:
            if node is None:
                self.fault(path, f"unknown state {text!r} in stateIn")
        return g.AllOf(tuple(g.active(node.id) for _, node in found if node is not None and node.id))

    def built(self, guard: g.Guard | None, path: Path) -> d.Guard | None:
        """The guard as the model has it."""
        functions: dict[str, Callable[..., Any]] = {}
        try:
            return g.build(guard, functions) if guard is not None else None
        except g.GuardError as error:
            self.fault(path, str(error))
            return None
        finally:
            self.functions.update(functions)
