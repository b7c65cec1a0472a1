"""What the names in a machine configuration mean, and what its states are called in ours.

XState's keys are unique among siblings only, our ids in the whole chart. An id is the state's key if no other state has
it, else its path (`legal.waiting`); what an id cannot hold (spaces, dots) becomes `_`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from statewright.statecharts.chart import Chart
from statewright.statecharts.places import Path

Meaning = Callable[..., Any] | str | Mapping[str, Any]
"""A function; a CEL text (of a guard); a mapping of fields to CEL texts (of an assign)."""

_ILLEGAL = re.compile(r"[^\w:·-]+")
_DOT = re.compile(r"(?<!\\)\.")
_KINDS = ("atomic", "compound", "parallel", "final", "history")


class Meanings(NamedTuple):
    """What `from_xstate` was given."""

    functions: Mapping[str, Meaning]
    delays: Mapping[str, int | str] = {}
    children: Mapping[str, Chart] = {}
    types: Mapping[str, str] = {}


class StateNode:
    """One state of the configuration. `keys` lead to it from the machine, whose own are empty; `id` is ours."""

    def __init__(self, key: str, config: Mapping[str, Any], place: Path, parent: StateNode | None) -> None:
        self.key = key
        self.config = config
        self.place = place
        self.parent = parent
        self.id = ""
        self.keys: tuple[str, ...] = (*parent.keys, key) if parent is not None else ()
        self.children: dict[str, StateNode] = {}
        states = config.get("states")
        for child, its in states.items() if isinstance(states, Mapping) else ():
            inner = its if isinstance(its, Mapping) else {}
            self.children[str(child)] = StateNode(str(child), inner, (*place, "states", child), self)

    @property
    def kind(self) -> str:
        """XState's rule: what `type` says, else what the state has."""
        kind = self.config.get("type")
        if kind in _KINDS:
            return str(kind)
        return "compound" if self.children else "history" if self.config.get("history") else "atomic"

    @property
    def said(self) -> str:
        return repr(".".join(self.keys)) if self.keys else "the machine"

    @property
    def initial(self) -> StateNode | None:
        """The state that it begins in; None if it says none, or one that is not there."""
        initial = self.config.get("initial")
        target = initial.get("target") if isinstance(initial, Mapping) else initial
        if isinstance(target, list) and len(target) == 1:
            target = target[0]
        return self.walk(split(target.removeprefix("."))) if isinstance(target, str) else None

    def walk(self, keys: list[str]) -> StateNode | None:
        """The state at the end of `keys` from here."""
        node: StateNode | None = self
        for key in keys:
            node = node.children.get(key) if node is not None else None
        return node

    def ancestors(self) -> Iterator[StateNode]:
        """Its proper ancestors, the nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def below(self) -> Iterator[StateNode]:
        """All states inside, in document order."""
        for child in self.children.values():
            yield child
            yield from child.below()

    def is_inside(self, other: StateNode) -> bool:
        return other in self.ancestors()


def common_ancestor(nodes: list[StateNode]) -> StateNode | None:
    """XState's least common ancestor: the nearest proper ancestor of the first that all the others are inside."""
    return next((a for a in nodes[0].ancestors() if all(node.is_inside(a) for node in nodes[1:])), None)


def together(one: StateNode, other: StateNode) -> bool:
    """Whether the two can be active at once."""
    if one is other or one.is_inside(other) or other.is_inside(one):
        return True
    common = common_ancestor([one, other])
    return common is not None and common.kind == "parallel"


def split(path: str) -> list[str]:
    """The keys in a path such as `a.b`; a dot in a key is written `\\.`."""
    return [key.replace("\\.", ".") for key in _DOT.split(path)]


def legal(key: str) -> str:
    return _ILLEGAL.sub("_", key)


def name_states(root: StateNode) -> Iterator[tuple[StateNode, str]]:
    """Give every state its id; each that cannot have one of its own comes back with the reason."""
    nodes = list(root.below())
    counts = Counter(legal(node.key) for node in nodes)
    taken: dict[str, StateNode] = {}
    for node in nodes:
        own = legal(node.key)
        node.id = own if counts[own] == 1 else ".".join(map(legal, node.keys))
        if not own.strip("_"):
            yield node, f"expected a key with letters or digits, got {node.key!r}"
        elif taken.setdefault(node.id, node) is not node:
            yield node, f"the states {taken[node.id].said} and {node.said} would both be {node.id!r}; rename one"


class Targets:
    """Resolves XState's ways to say a target: `sibling`, `sibling.child`, `.child`, `#id`, `#id.child`."""

    def __init__(self, root: StateNode, machine_id: str) -> None:
        self.root = root
        self.twice: list[StateNode] = []
        """Those whose `id` another state has already."""
        self._by_id: dict[str, StateNode] = {}
        for node in [root, *root.below()]:
            own = node.config.get("id")
            if node is not root and isinstance(own, str) and self._by_id.setdefault(own, node) is not node:
                self.twice.append(node)
        for node in [root, *root.below()]:
            self._by_id.setdefault(".".join((machine_id, *node.keys)), node)

    def resolve(self, text: str, source: StateNode) -> StateNode | None:
        if text.startswith("#"):
            if (found := self._by_id.get(text[1:])) is not None:
                return found
            first, *rest = split(text[1:])
            found = self._by_id.get(first)
            return found.walk(rest) if found is not None else None
        if text.startswith("."):
            return source.walk(split(text[1:]))
        return source.parent.walk(split(text)) if source.parent is not None else None
