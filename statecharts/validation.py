"""What a definition must be for the algorithm to make sense: ids, kinds, nesting, initials and targets.

Finds all faults in one pass; expressions and functions are the compiler's. A definition that passes yields only legal
configurations (SCXML 3.11).
"""

from __future__ import annotations

import itertools

from statewright.statecharts import definition as d
from statewright.statecharts.actions_reader import suggest
from statewright.statecharts.places import Faults

STATES_MAX = 10_000
STATES_DEPTH_MAX = 100


def validate(definition: d.Definition, faults: Faults) -> bool:
    """Note everything structurally wrong with the definition. False: a bound is exceeded, do not go on with it."""
    return _Validator(definition, faults).run()


class _Validator:
    def __init__(self, definition: d.Definition, faults: Faults) -> None:
        self.definition = definition
        self.faults = faults
        self.states: dict[str, d.State] = {}
        self.parents: dict[str, d.State | None] = {}

    def run(self) -> bool:
        if not self._index():
            return False
        if not any(state.type != "history" for state in self.definition.states):
            self.faults.add(self.definition, "expected at least one state, got none", "states")
        self._initial(self.definition, None)
        for transition in self.definition.transitions:
            self._transition(transition)
        for state in self.states.values():
            self._kind(state)
            self._initial(state, state)
            for transition in state.transitions:
                self._transition(transition)
        return True

    def _index(self) -> bool:
        """Learn all states by id; false if there are too many or they nest too deep."""
        stack: list[tuple[d.State, d.State | None, int]] = [(s, None, 1) for s in reversed(self.definition.states)]
        count = 0
        while stack:
            state, parent, depth = stack.pop()
            count += 1
            if count > STATES_MAX:
                self.faults.add(self.definition, f"expected at most {STATES_MAX} states, got more", "states")
                return False
            if depth > STATES_DEPTH_MAX:
                self.faults.add(state, f"expected states nested at most {STATES_DEPTH_MAX} deep, got more")
                return False
            if (first := self.states.get(state.id)) is not None:
                line = self.faults.places.line(self.faults.places.of(first)[0])
                where = f" (the first is on line {line})" if line else ""
                self.faults.add(state, f"the state id {state.id!r} is given twice{where}; ids are unique in a chart")
            else:
                self.states[state.id] = state
                self.parents[state.id] = parent
            stack.extend((child, state, depth + 1) for child in reversed(state.states))
        return True

    def _kind(self, state: d.State) -> None:
        kind, real = state.type, [child for child in state.states if child.type != "history"]
        if kind in ("atomic", "final", "history") and state.states:
            self.faults.add(
                state, f"expected no states inside a state of type {kind}, got {len(state.states)}", "states"
            )
        if kind in ("compound", "parallel") and not real:
            self.faults.add(state, f"expected states inside a state of type {kind}, got none")
        if kind == "parallel" and (finals := [child.id for child in real if child.type == "final"]):
            self.faults.add(state, f"expected regions in a parallel state, got the final state {finals[0]!r}", "states")
        if kind in ("final", "history") and state.transitions:
            self.faults.add(state.transitions[0], f"expected no transitions from a state of type {kind}")
        if kind == "history":
            for key in ("entry", "exit"):
                if getattr(state, key):
                    self.faults.add(state, f"expected no {key} actions on a history state, which is never entered", key)
            parent = self.parents[state.id]
            begins = [self.states.get(target) for target in parent.initial.target] if parent and parent.initial else []
            if state.initial is None and any(inner is not None and inner.type == "history" for inner in begins):
                message = "expected a history state to have a target, since its parent begins with a history state"
                self.faults.add(state, message)
            if parent is None:
                self.faults.add(
                    state, "expected a history state inside a compound or parallel state, got one at the top"
                )
        if state.status != "completed" and (kind != "final" or self.parents[state.id] is not None):
            message = "expected a status only on a final state of the chart itself"
            where = "inside another" if kind == "final" else f"of type {kind}"
            self.faults.add(state, f"{message}, got one on a state {where}", "status")
        if kind != "final" and state.output is not None:
            self.faults.add(state, f"expected output only on a final state, got one of type {kind}", "output")

    def _initial(self, owner: d.State | d.Definition, state: d.State | None) -> None:
        initial = owner.initial
        if initial is None:
            return
        if state is not None and state.type in ("atomic", "final", "parallel"):
            self.faults.add(state, f"expected no initial on a state of type {state.type}", "initial")
            return
        what = "default target" if state is not None and state.type == "history" else "initial"
        if not initial.target:
            self.faults.add(initial, f"expected the id of a state as {what}, got none")
        inside = self.parents[state.id] if state is not None and state.type == "history" else state
        for target in self._targets(initial, initial.target, what):
            if inside is not None and inside.id not in self._ancestors(target):
                self.faults.add(initial, f"{what} {target.id!r} is not inside {inside.id!r}")
            elif state is not None and state.type == "history":
                self._history_default(initial, state, target)

    def _history_default(self, initial: d.Initial, state: d.State, target: d.State) -> None:
        parent = self.parents[state.id]
        if target.type == "history":
            self.faults.add(initial, f"expected a state as default target, got the history state {target.id!r}")
        elif self.definition.expressions == "dynamic":
            return  # What SCXML's algorithm makes of any descendant is clear (Appendix D), and documents rely on it.
        elif state.history == "shallow" and parent is not None and self.parents[target.id] is not parent:
            self.faults.add(
                initial, f"expected a child of {parent.id!r} as default target of a shallow history, got {target.id!r}"
            )

    def _transition(self, transition: d.Transition) -> None:
        if transition.events and transition.delay:
            self.faults.add(transition, "expected either events or a delay, got both")
        self._targets(transition, transition.target, "target")

    def _targets(self, node: d.Node, ids: tuple[str, ...], what: str) -> list[d.State]:
        """The states of these ids, with a fault for each that is unknown or cannot be active beside the others."""
        found = []
        suffix = ("target",) if isinstance(node, d.Transition) else ()
        for target in ids:
            if target in self.states:
                found.append(self.states[target])
            else:
                self.faults.add(node, f"unknown {what} {target!r}{suggest(target, self.states)}", *suffix)
        for one, other in itertools.combinations(found, 2):
            if one is other or not self._orthogonal(one, other):
                message = f"{what}s {one.id!r} and {other.id!r} cannot be active together: no parallel state parts them"
                self.faults.add(node, message, *suffix)
        return found

    def _orthogonal(self, one: d.State, other: d.State) -> bool:
        line, rest = [one.id, *self._ancestors(one)], [other.id, *self._ancestors(other)]
        common = next((state for state in line if state in rest), None)
        return common is not None and common not in (one.id, other.id) and self.states[common].type == "parallel"

    def _ancestors(self, state: d.State) -> list[str]:
        ancestors = []
        parent = self.parents[state.id]
        while parent is not None:
            ancestors.append(parent.id)
            parent = self.parents[parent.id]
        return ancestors
