"""Reads a machine configuration of XState v5 into a definition.

All faults are found in one reading, each with its place in the configuration. The machine itself is the chart. If it is
parallel, invokes a child or has a history, it is a state inside the chart (of the machine's name): a chart can't do so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from statewright.statecharts import definition as d
from statewright.statecharts.places import Faults, Path
from statewright.statecharts.reader import CEL_WORDS
from statewright.statecharts.scxml.values import literal
from statewright.statecharts.xstate import guards as g
from statewright.statecharts.xstate import transitions as t
from statewright.statecharts.xstate.actors import Actors
from statewright.statecharts.xstate.names import Meanings, StateNode, Targets, legal, name_states, split

_NAME_CHARS = re.compile(r"[^A-Za-z0-9_-]+")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_STATE_KEYS = {"id", "type", "initial", "states", "on", "always", "after", "entry", "exit", "invoke", "onDone"}
_STATE_KEYS |= {"history", "target", "tags", "meta", "description", "output"}
_MACHINE_KEYS = (_STATE_KEYS - {"history", "target"}) | {"context", "version", "types", "schemas", "$schema"}
_TRANSITION_KEYS = {"target", "guard", "actions", "reenter", "description", "meta"}
_EARLIER = {
    "cond": "guard",
    "internal": "reenter",
    "in": "the guard stateIn",
    "data": "output, or input in an invoke",
    "onEntry": "entry",
    "onExit": "exit",
    "activities": "invoke",
}
"""What XState v4 called it: what v5 does."""


def read_xstate(
    tree: Any, faults: Faults, meanings: Meanings, name: str = ""
) -> tuple[d.Definition | None, dict[str, Callable[..., Any]]]:
    """The definition and the functions it refers to; None if the tree is no machine configuration at all."""
    reader = Reader(faults, meanings)
    return reader.machine(tree, name), reader.functions


class Contents(NamedTuple):
    """The actions of a state itself."""

    entry: tuple[d.AnyAction, ...]
    exit: tuple[d.AnyAction, ...]
    initial: tuple[d.AnyAction, ...]


class Reader(Actors):
    def __init__(self, faults: Faults, meanings: Meanings) -> None:
        super().__init__(faults, meanings)
        self.contents: dict[StateNode, Contents] = {}
        self.done_names: dict[str, str] = {}
        """What XState calls the events of states that are done: what they are called here."""

    def machine(self, tree: Any, name: str) -> d.Definition | None:
        if not isinstance(tree, Mapping):
            self.fault((), f"expected a machine configuration, a mapping with id and states, got {self.kind(tree)}")
            return None
        own_id = self.text(tree, "id", ()) or name or "machine"
        self.source = self.root = root = StateNode(own_id, tree, (), None)
        self.targets = Targets(root, own_id)
        invokes_child = any(self.is_child(item) for item, _ in self.items(tree.get("invoke"), ()))
        if root.kind == "parallel" or invokes_child or any(n.kind == "history" for n in root.children.values()):
            # The machine becomes a state: it has an id like the others, and a final state beside it.
            root.id = legal(own_id)
        for node, message in name_states(root):
            self.faults.at(node.place, node.id, message)
        for node in self.targets.twice:
            self.faults.at((*node.place, "id"), node.id, f"the id {node.config['id']!r} is given twice")
        if clash := next((node for node in root.below() if root.id and node.id == root.id), None):
            self.faults.at(clash.place, clash.id, f"expected another key than the machine's, got {clash.key!r}")
        nodes = [root, *root.below()]
        own = {node: node.config.get("id") or ".".join((own_id, *node.keys)) for node in nodes}
        self.done_names = {f"xstate.done.state.{own[node]}": f"done.state.{node.id}" for node in nodes if node.id}
        for node in nodes:
            self._looked_at(node)
        self.settle()
        state = self._state(root)
        chart_name = _NAME_CHARS.sub("-", name or own_id)[:128].strip("-") or "machine"
        meta = {} if root.id else dict(state.meta) | ({"tags": list(state.tags)} if state.tags else {})
        chart = d.Definition(
            name=chart_name,
            version=self._version(tree),
            description="" if root.id else state.description,
            context=self._context(tree.get("context"), ("context",)),
            initial=None if root.id else state.initial,
            entry=() if root.id else state.entry,
            exit=() if root.id else state.exit,
            transitions=() if root.id else state.transitions,
            states=self._enclosed(state) if root.id else state.states,
            meta=meta,
        )
        self.places.put(chart, (), "")
        return chart

    def _version(self, tree: Mapping[str, Any]) -> str:
        version = tree.get("version", "1")
        if isinstance(version, str) and 1 <= len(version) <= 128:
            return version
        self.fault(("version",), f"expected a version as a text of at most 128 characters, got {version!r}")
        return "1"

    def _enclosed(self, machine: d.State) -> tuple[d.State, ...]:
        """The machine as a state, and the final state that ends the chart when it is done."""
        final_id = f"{machine.id}.done"
        ends = d.Transition(events=(f"done.state.{machine.id}",), target=(final_id,))
        given = self.root.config.get("output")
        output = literal(given) if given is not None else "event.data" if machine.type == "compound" else None
        final = d.State(id=final_id, type="final", output=output)
        for node in (ends, final):
            self.places.put(node, (), machine.id)
        enclosed = msgspec.structs.replace(machine, transitions=(ends, *machine.transitions), output=None)
        self.places.put(enclosed, (), machine.id)
        return enclosed, final

    def _context(self, tree: Any, path: Path) -> tuple[d.Declaration, ...]:
        if not isinstance(tree, Mapping | None):
            self.fault(path, f"expected a context that is a mapping of fields to first values, got {self.kind(tree)}")
            return ()
        given: Mapping[str, Any] = tree or {}
        declarations = []
        for field in dict.fromkeys((*given, *self.meanings.types)):
            place = (*path, field)
            if not isinstance(field, str) or not _FIELD.fullmatch(field) or field in CEL_WORDS or field == "function":
                self.fault(place, f"expected a field name that is an identifier and no word of CEL's, got {field!r}")
                continue
            value = self.json(given[field], place) if field in given else UNSET
            text = self.meanings.types.get(field) or _type_of(value)
            if value is None:
                value = UNSET
            elif text in ("double", "double?") and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            declaration = d.Declaration(name=field, type=text, default=value)
            self.places.put(declaration, place, "")
            declarations.append(declaration)
        return tuple(declarations)

    # -- states ------------------------------------------------------------------------------------------------

    def _looked_at(self, node: StateNode) -> None:
        """Check the state's own words and draft its transitions; what they become depends on those of all states."""
        self.source, self.state = node, node.id
        config, place = node.config, node.place
        self._known(config, _MACHINE_KEYS if node is self.root else _STATE_KEYS, place, node.said)
        kind = config.get("type")
        if kind is not None and kind != node.kind:
            self.fault((*place, "type"), f"expected atomic, compound, parallel, final or history, got {kind!r}")
        states = config.get("states")
        if states is not None and not isinstance(states, Mapping):
            self.fault((*place, "states"), f"expected a mapping of keys to states, got {self.kind(states)}")
        for key, inner in states.items() if isinstance(states, Mapping) else ():
            if not isinstance(inner, Mapping):
                self.fault((*place, "states", key), f"expected a mapping that is a state, got {self.kind(inner)}")
        if node.kind == "compound" and node.initial is None:
            said = config.get("initial")
            self.fault((*place, "initial"), f"expected in {node.said} the key of its initial state, got {said!r}")
        if node.kind == "final" and node.parent is not None and node.parent.kind == "parallel":
            self.fault(place, "expected no final state right inside a parallel one; each region has its own")
        if node.kind == "parallel" and ("onDone" in config or node is self.root):
            for child in node.children.values():
                if child.kind == "parallel":
                    self.fault(
                        child.place, f"expected no parallel region in {node.said}, which is to be done some time"
                    )
        if node is self.root and "onDone" in config:
            self.fault((*place, "onDone"), "the machine is over when it is done: its onDone is never taken; remove it")
        initial = config.get("initial")
        self.contents[node] = Contents(
            entry=self.content(config.get("entry"), (*place, "entry")),
            exit=self.content(config.get("exit"), (*place, "exit")),
            initial=self.content(initial.get("actions"), (*place, "initial", "actions"))
            if isinstance(initial, Mapping)
            else (),
        )
        self.drafts[node] = t.ordered(self._drafted(node))

    def _known(self, config: Mapping[str, Any], keys: set[str], place: Path, what: str) -> None:
        for key in config:
            if key in _EARLIER and key not in keys:
                self.fault((*place, key), f"{key!r} is XState v4's; v5 says {_EARLIER[key]}")
            elif key not in keys:
                self.known({key: None}, keys, place, what)

    def _state(self, node: StateNode) -> d.State:
        self.source, self.state = node, node.id
        config, place = node.config, node.place
        meta = config.get("meta", {})
        if not isinstance(meta, Mapping):
            self.fault((*place, "meta"), f"expected a mapping, got {self.kind(meta)}")
            meta = {}
        state = d.State(
            id=node.id,
            type=node.kind,  # type: ignore[arg-type]
            description=self.text(config, "description", place),
            tags=self.strings(config.get("tags"), (*place, "tags")),
            meta=self.json(meta, (*place, "meta")) or {},
            initial=self._history(node) if node.kind == "history" else self._initial(node),
            history="deep" if config.get("history") == "deep" else "shallow",
            entry=(*self.contents[node].entry, *self.performances(node)),
            exit=self.contents[node].exit,
            invoke=self.invokes(node),
            transitions=tuple(self._transition(draft) for draft in self.drafts[node]),
            output=self._output(node),
            states=tuple(self._state(child) for child in node.children.values()),
        )
        self.places.put(state, place, node.id)
        return state

    def _output(self, node: StateNode) -> Any:
        given, place = node.config.get("output"), (*node.place, "output")
        if node is self.root:
            return None
        if given is not None and node.kind != "final":
            self.fault(place, f"expected an output of a final state or the machine only, got one of {node.said}")
        if node.kind == "final" and node.parent is self.root and not self.root.id and "output" in self.root.config:
            given, place = self.root.config["output"], ("output",)
        return literal(self.json(given, place))

    def _initial(self, node: StateNode) -> d.Initial | None:
        given = node.config.get("initial")
        if node.kind != "compound" or node.initial is None:
            if given is not None and node.kind != "compound":
                self.fault((*node.place, "initial"), f"expected no initial in a state of type {node.kind}")
            return None
        place = (*node.place, "initial")
        if isinstance(given, Mapping):
            self._known(given, {"target", "actions"}, place, "initial")
        initial = d.Initial(target=(node.initial.id,), actions=self.contents[node].initial)
        self.places.put(initial, place, node.id)
        return initial

    def _history(self, node: StateNode) -> d.Initial | None:
        if node.config.get("history", True) not in (True, False, "shallow", "deep"):
            self.fault((*node.place, "history"), f"expected shallow or deep, got {node.config['history']!r}")
        if node.config.get("target") is None:
            return None
        initial = d.Initial(target=tuple(target.id for target in self._resolved(node.config["target"], node.place)))
        self.places.put(initial, (*node.place, "target"), node.id)
        return initial

    # -- transitions -------------------------------------------------------------------------------------------

    def _drafted(self, node: StateNode) -> Iterator[t.Draft]:
        config, place = node.config, node.place
        for key in ("on", "after"):
            if not isinstance(config.get(key, {}), Mapping):
                self.fault((*place, key), f"expected a mapping to transitions, got {self.kind(config[key])}")
        on, after = config.get("on"), config.get("after")
        for event, tree in on.items() if isinstance(on, Mapping) else ():
            descriptor = self._descriptor(str(event), (*place, "on", event))
            yield from self._drafts(tree, (*place, "on", event), descriptor)
        if "onDone" in config:
            yield from self._drafts(config["onDone"], (*place, "onDone"), f"done.state.{node.id}")
        for tree, where, descriptor in self.answers(node):
            yield from self._drafts(tree, where, descriptor)
        for delay, tree in after.items() if isinstance(after, Mapping) else ():
            where = (*place, "after", delay)
            yield from self._drafts(tree, where, "", self.delay_text(delay, where))
        if "always" in config:
            yield from self._drafts(config["always"], (*place, "always"))

    def _descriptor(self, event: str, path: Path) -> str:
        """The event's name in ours: XState's own names for what is done and failed are not the same."""
        if event == "*":
            return event
        if event in self.done_names:
            return self.done_names[event]
        if event in ("done.*", "error.*"):
            self.fault(path, f"expected another descriptor than {event!r}: the engine's own events fit it")
        base = event.removesuffix(".*")
        return event if self.is_event(base, path) else "event"

    def _drafts(self, tree: Any, path: Path, descriptor: str = "", delay: str = "") -> Iterator[t.Draft]:
        if tree is None:
            self.fault(path, "expected a target, a transition or a list of transitions, got null")
        for item, place in self.items(tree, path):
            given: Any = {"target": item} if isinstance(item, str) else item
            if not isinstance(given, Mapping):
                self.fault(place, f"expected a target or a transition, got {self.kind(item)}")
                continue
            self._known(given, _TRANSITION_KEYS, place, "the transition")
            reenter = given.get("reenter", False)
            if not isinstance(reenter, bool):
                self.fault((*place, "reenter"), f"expected true or false, got {reenter!r}")
            targets = self._resolved(given.get("target"), place)
            actions = self.content(given.get("actions"), (*place, "actions"))
            if self.root in targets and not self.root.id:
                targets, actions = self._restart(targets, actions, place)
            yield t.Draft(
                source=self.source,
                place=place,
                descriptors=(descriptor,) if descriptor else (),
                delay=delay,
                targets=targets,
                guard=self.guard_tree(given["guard"], (*place, "guard")) if given.get("guard") is not None else None,
                actions=actions,
                reenter=reenter is True,
                description=self.text(given, "description", place),
            )

    def _resolved(self, tree: Any, place: Path) -> tuple[StateNode, ...]:
        found = []
        for text in self.strings(tree, (*place, "target")):
            target = self.targets.resolve(text, self.source)
            if target is not None:
                found.append(target)
                continue
            hint = ""
            if self.source is self.root and (child := self.root.walk(split(text))) is not None:
                hint = f"; did you mean {'.' + '.'.join(child.keys)!r}?"
            self.fault((*place, "target"), f"unknown target {text!r} of {self.source.said}{hint}")
        return tuple(found)

    def _restart(
        self, targets: tuple[StateNode, ...], actions: tuple[d.AnyAction, ...], place: Path
    ) -> tuple[tuple[StateNode, ...], tuple[d.AnyAction, ...]]:
        """A transition to the machine itself begins it anew: it leads where the machine begins."""
        initial = self.root.initial
        if len(targets) != 1 or initial is None or any(self.root.config.get(key) for key in ("entry", "exit", "after")):
            self.fault(
                (*place, "target"), "the machine as a target cannot be carried over: its entry would not run again"
            )
            return (), actions
        return (initial,), (*actions, *self.contents[self.root].initial)

    def _transition(self, draft: t.Draft) -> d.Transition:
        shape = t.form(draft, self.root)
        if shape.fault:
            hint = "SCXML would leave it and enter it again, and its entry, exit, timers or history would notice"
            self.fault(draft.place, f"the transition {shape.fault} in XState; {hint}")
        guard = t.narrowed(draft, self.prefixes, self.results, self.root)
        for rival in t.rivals(draft, self.drafts, self.root):
            guard = g.both(guard, g.Not(rival))
        transition = d.Transition(
            events=draft.descriptors,
            delay=draft.delay,
            target=tuple(target.id for target in shape.targets),
            guard=self.built(guard, (*draft.place, "guard")),
            actions=draft.actions,
            internal=shape.internal,
            description=draft.description,
        )
        self.places.put(transition, draft.place, draft.source.id)
        return transition


def _type_of(value: Any) -> str:
    """The type of a context field by its first value; null may become anything."""
    kinds = {bool: "bool", int: "int", float: "double", str: "string", list: "list(dyn)", dict: "map(string, dyn)"}
    return kinds.get(type(value), "dyn?" if value is None else "dyn")
