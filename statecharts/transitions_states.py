"""The states of a `transitions` configuration: nesting, names and ids.

`transitions` calls a nested state by its path from the top, `A_1`, and from within `A` by the rest, `1`. Here ids are
unique in the whole chart: a state's id is its own name where no other state has that name, else its path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum, EnumMeta
from typing import Any

from statewright.statecharts.actions_reader import ActionsReader
from statewright.statecharts.places import Faults, Path
from statewright.statecharts.reader import ID_CHARS_MAX, STATE_ID

ITSELF = "itself"
"""`A.itself`: in compound state A and in none of its states, which `transitions` knows and SCXML does not."""

_NESTING = ("children", "states", "parallel")
_STATE_KEYS = {
    *("name", "on_enter", "on_exit", "on_final", "ignore_invalid_triggers", "final", "initial", "tags", "label"),
    *("timeout", "on_timeout", "transitions", *_NESTING),
}


class Named:
    """One state as it is configured; the root stands for the machine. `tree` is {} for a state given by its name."""

    __slots__ = ("begins", "children", "entered", "id", "member", "name", "parallel", "parent", "path", "tree")

    def __init__(self, name: str, path: Path, parent: Named | None, tree: Mapping[str, Any]) -> None:
        self.name = name
        self.path = path
        self.parent = parent
        self.tree = tree
        self.member: Enum | None = None
        self.id = ""
        self.children: list[Named] = []
        self.parallel = False
        self.begins: Named | None = None
        """The child that its `initial` names."""
        self.entered = False
        """Something leads to it, not just to a state inside."""

    @property
    def final(self) -> bool:
        return self.tree.get("final") is True

    @property
    def line(self) -> list[Named]:
        """Itself and all around it, inside out, the root last."""
        line, state = [], self
        while state.parent is not None:
            line.append(state)
            state = state.parent
        return [*line, state]

    def below(self) -> Iterator[Named]:
        """All states inside, in document order. (Nesting is bounded where the configuration is read.)"""
        for child in self.children:
            yield child
            yield from child.below()

    def child(self, name: str) -> Named | None:
        return next((child for child in self.children if child.name == name), None)

    def enter(self) -> None:
        """Note that something leads here: with a state its initial states and, of a parallel state around it, all
        regions are entered."""
        stack = [self, *(s for state in self.line if state.parent and state.parent.parallel for s in _beside(state))]
        while stack:
            state = stack.pop()
            if not state.entered:
                state.entered = True
                stack += state.children if state.parallel else [state.begins] if state.begins else []


def _beside(state: Named) -> list[Named]:
    return [other for other in state.parent.children if other is not state] if state.parent else []


def is_nested(states: Any) -> bool:
    """Whether these can only be states of a `HierarchicalMachine`."""
    listed = list(states) if isinstance(states, list | tuple | EnumMeta) else [states]
    for item in listed:
        if isinstance(item, Mapping) and not {*_NESTING, "initial"}.isdisjoint(item):
            return True
        if isinstance(item, Enum) and isinstance(item.value, EnumMeta | Mapping):
            return True
    return False


class StatesReader(ActionsReader):
    """Reads states into a tree of `Named`; resolves the names that transitions call them by."""

    def __init__(self, faults: Faults, separator: str, nested: bool) -> None:
        super().__init__(faults)
        self.separator = separator
        self.nested = nested
        self.root = Named("", (), None, {})

    def states(self, tree: Any, path: Path, parent: Named) -> None:
        """Add the states of a list (or an enumeration) to `parent`."""
        for item, place in self.items(list(tree) if isinstance(tree, EnumMeta) else tree, path):
            self._add(item, place, parent)

    def give_ids(self) -> None:
        counts = Counter(state.name for state in self.root.below())
        for state in self.root.below():
            own = counts[state.name] == 1
            state.id = state.name if own else self.separator.join(s.name for s in reversed(state.line[:-1]))

    def resolve(self, reference: Any, path: Path, scope: Named, what: str) -> Named | None:
        """The state that `reference` (a name, path or enum member) means inside `scope`, or else inside the machine."""
        if isinstance(reference, Enum):
            found = next((state for state in self.root.below() if state.member is reference), None)
            if found is not None:
                return found
            reference = reference.name
        if not isinstance(reference, str):
            self.fault(path, f"expected the name of a state as {what}, got {self.kind(reference)}")
            return None
        found = self._walk(reference, scope) or self._walk(reference, self.root)
        if found is None:
            where = f" in {scope.id!r} or at the top" if scope.parent else ""
            self.fault(path, f"unknown {what} {reference!r}{where}; expected one of {self._known(scope)}")
        return found

    def full_name(self, state: Named) -> str:
        """What `transitions` calls the state."""
        return self.separator.join(s.name for s in reversed(state.line[:-1]))

    def _walk(self, reference: str, scope: Named) -> Named | None:
        state: Named | None = scope
        for name in reference.split(self.separator) if self.nested else [reference]:
            state = state.child(name) if state is not None else None
        return state

    def _known(self, scope: Named) -> str:
        names = [self.full_name(state) for state in (scope if scope.parent else self.root).below()]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def _add(self, item: Any, path: Path, parent: Named) -> None:
        tree, member = self._settings(item, path)
        name = member.name if member is not None else tree.get("name")
        if not isinstance(name, str) or not name:
            self.fault(path, f"expected a state (a name, a mapping with a name, an enum member), got {_said(item)}")
            return
        names = name.split(self.separator) if self.nested else [name]
        if len(names) > 1 and not isinstance(item, str):
            self.fault(path, f"expected a name without {self.separator!r}, which parts nested names, got {name!r}")
            return
        for outer in names[:-1]:
            parent = parent.child(outer) or self._new(outer, path, parent, {})
        if parent.child(names[-1]) is not None:
            self.fault(path, f"the state {name!r} is given twice")
            return
        state = self._new(names[-1], path, parent, tree)
        state.member = member
        self._inside(state)

    def _settings(self, item: Any, path: Path) -> tuple[Mapping[str, Any], Enum | None]:
        """What is said of the state, with its name, and the enum member that it stands for."""
        if isinstance(item, Enum):
            if self.nested and isinstance(item.value, EnumMeta):
                return {"name": item.name, "children": item.value}, item
            return ({"name": item.name, **item.value} if isinstance(item.value, Mapping) else {"name": item.name}), item
        if isinstance(item, Mapping):
            name = item.get("name")
            return item, name if isinstance(name, Enum) else None
        return {"name": item}, None

    def _new(self, name: str, path: Path, parent: Named, tree: Mapping[str, Any]) -> Named:
        if not STATE_ID.fullmatch(name) or len(name) > ID_CHARS_MAX:
            self.fault(path, f"expected a state's name of letters, digits and _ . : - only, got {name!r}")
        state = Named(name, path, parent, tree)
        parent.children.append(state)
        return state

    def _inside(self, state: Named) -> None:
        tree, path = state.tree, state.path
        outer, self.state = self.state, state.name
        self.known(tree, _STATE_KEYS, path, f"a state of `transitions` ({state.name!r})")
        if not isinstance(tree.get("final", False), bool):
            self.fault((*path, "final"), f"expected true or false, got {self.kind(tree['final'])}")
        given = [key for key in _NESTING if tree.get(key)]
        if len(given) > 1:
            self.fault(path, f"expected one of {', '.join(_NESTING)}, got {' and '.join(given)}")
        for key in given[:1]:
            inner = tree[key]
            if not self.nested:
                self.fault((*path, key), "expected no states inside a state of a flat machine")
            elif not isinstance(inner, list | tuple | EnumMeta | str | Mapping | Enum):
                self.fault((*path, key), f"expected a list of states, got {self.kind(inner)}")
            else:
                self.states(inner, (*path, key), state)
        state.parallel = given[:1] == ["parallel"]
        if state.final and state.children:
            self.fault((*path, "final"), "expected no states inside a final state; let one of its states be final")
        if not state.parallel:
            self._begins(state, tree.get("initial"), (*path, "initial"))
        self.state = outer

    def _begins(self, state: Named, tree: Any, path: Path) -> None:
        """One name: where it begins. The names of all its states: it is parallel."""
        names = [item.name if isinstance(item, Enum) else item for item, _ in self.items(tree, path)]
        children = [child.name for child in state.children]
        if unknown := [name for name in names if name not in children]:
            self.fault(path, f"expected a state directly inside {state.name!r} as initial, got {unknown[0]!r}")
        elif len(names) == 1:
            state.begins = state.child(names[0])
        elif names and set(names) != set(children):
            missing = ", ".join(name for name in children if name not in names)
            message = "a parallel state is in all of its states, or begins with one"
            self.fault(path, f"expected one name, or all (without {missing} here): {message}")
        else:
            state.parallel = bool(names)


def _said(item: Any) -> str:
    if isinstance(item, Mapping):
        return "a mapping without one"
    return repr(item) if isinstance(item, str | int | float | None) else type(item).__name__
