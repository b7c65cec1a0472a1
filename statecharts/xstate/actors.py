"""Reads what states invoke: a child machine whose chart is given, or an actor that somebody performs (a promise).

A performed actor is an effect of the name of its `src`. Its result comes back as `done.effect.<src>` or
`error.effect.<src>`, which says nothing of who asked; so only one state at a time may have asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from statewright.statecharts import definition as d
from statewright.statecharts.places import Faults, Path
from statewright.statecharts.scxml.values import literal
from statewright.statecharts.xstate.actions import ContentReader
from statewright.statecharts.xstate.names import Meanings, StateNode, together
from statewright.statecharts.xstate.transitions import ALWAYS_SENT, Draft

_INVOKE_KEYS = {"src", "id", "input", "onDone", "onError"}


class Actor(NamedTuple):
    """One item of an `invoke`. `id` is the child's; a performed actor answers by its `src`."""

    node: StateNode
    place: Path
    src: str
    id: str
    input: Any
    is_child: bool


class Actors(ContentReader):
    def __init__(self, faults: Faults, meanings: Meanings) -> None:
        super().__init__(faults, meanings)
        self.actors: dict[StateNode, list[Actor]] = {}
        self.drafts: dict[StateNode, list[Draft]] = {}
        self.prefixes: set[str] = set()
        """What names of events begin with that may come, as far as the machine says: `a` and `a.b` of `a.b.c`."""
        self.results: tuple[str, ...] = ()
        """Names of the results of performed actors."""

    def is_child(self, tree: Any) -> bool:
        src = tree.get("src") if isinstance(tree, Mapping) else tree
        return isinstance(src, str) and src in self.meanings.children

    def answers(self, node: StateNode) -> Iterator[tuple[Any, Path, str]]:
        """Read what the state invokes: (what follows, where, the event's name) for each onDone and onError."""
        found = self.actors[node] = []
        path = (*node.place, "invoke")
        items = list(self.items(node.config.get("invoke"), path))
        for index, (item, place) in enumerate(items):
            tree: Any = {"src": item} if isinstance(item, str) else item
            src = tree.get("src") if isinstance(tree, Mapping) else None
            if not isinstance(src, str) or not src:
                self.fault(place, f"expected an actor, a mapping whose src is a name, got {self.kind(item)}")
                continue
            if "data" in tree:
                self.fault((*place, "data"), "'data' is XState v4's; v5 says input")
            self.known({k: v for k, v in tree.items() if k != "data"}, _INVOKE_KEYS, place, f"the invoke of {src!r}")
            if node.kind in ("final", "history"):
                self.fault(place, f"expected no invoke in a state of type {node.kind}")
            own = self.text(tree, "id", place) or (node.id or "machine") + (f"-{index}" if len(items) > 1 else "")
            given = self.json(tree.get("input"), (*place, "input"))
            actor = Actor(node, place, src, own, given, self.is_child(tree))
            found.append(actor)
            suffix = f"invoke.{own}" if actor.is_child else f"effect.{src}"
            for key, kind in (("onDone", "done"), ("onError", "error")):
                if key in tree:
                    yield tree[key], (*place, key), f"{kind}.{suffix}"

    def settle(self) -> None:
        """When all states have been looked at: what depends on all of them."""
        actors = [actor for found in self.actors.values() for actor in found]
        performed = [actor for actor in actors if not actor.is_child]
        by_src: dict[str, list[Actor]] = {}
        for actor in performed:
            by_src.setdefault(actor.src, []).append(actor)
        for one, other in (pair for same in by_src.values() for pair in itertools.combinations(same, 2)):
            if together(one.node, other.node):
                where = f"{one.node.said} and {other.node.said} can do so at once"
                message = f"the actor {one.src!r} is invoked twice, {where}: nobody could tell whose result it is"
                self.faults.at(other.place, other.node.id, f"{message}; use two names, or give its chart in children")
        for actor in performed:
            if actor.src in self.performed:
                message = f"{actor.src!r} is an action, too; its result would be taken for the actor's; use two names"
                self.faults.at(actor.place, actor.node.id, message)
        ids = {actor.id for actor in actors if actor.is_child}
        for to, place, state in self.receivers:
            if to.removeprefix("#_") not in {"parent", *ids}:
                known = ", ".join(sorted(ids)) or "none"
                self.faults.at(place, state, f"expected #_parent or the id of an invoked child ({known}), got {to!r}")
        self.results = tuple(f"{kind}.effect.{actor.src}" for actor in performed for kind in ("done", "error"))
        named = {name for drafts in self.drafts.values() for draft in drafts for name in draft.descriptors}
        done = {f"done.state.{node.id}" for node in self.actors if node.children}
        for name in (*ALWAYS_SENT, *named, *self.sent, *self.results, *done):
            parts = name.split(".")
            self.prefixes.update(".".join(parts[:count]) for count in range(1, len(parts)))

    def performances(self, node: StateNode) -> tuple[d.AnyAction, ...]:
        """The effects that a state's entry asks for, one for each actor that is performed."""
        actions = []
        for actor in self.actors.get(node, ()):
            if not actor.is_child:
                action = d.Perform(name=actor.src, data=literal(actor.input), cancel="on_exit")
                self.places.put(action, actor.place, node.id)
                actions.append(action)
        return tuple(actions)

    def invokes(self, node: StateNode) -> tuple[d.Invoke, ...]:
        """The children of a state."""
        invokes = []
        for actor in self.actors.get(node, ()):
            if actor.is_child:
                given = actor.input if actor.input is not None else {}
                if not isinstance(given, dict):
                    self.fault((*actor.place, "input"), f"expected a mapping of the child's fields, got {given!r}")
                    given = {}
                data = {key: literal(value) for key, value in given.items()}
                invoke = d.Invoke(id=actor.id, chart=self.meanings.children[actor.src].definition, data=data)
                self.places.put(invoke, actor.place, node.id)
                invokes.append(invoke)
        return tuple(invokes)
