"""The same charts as other Python libraries run them: `transitions` nested, and python-statemachine's `StateChart`.

Each function gives a round of events, which returns how many it was. python-statemachine is installed by `make bench`
(dependency group `bench`); without it its column stays empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transitions.extensions.nesting import HierarchicalMachine

try:
    from statemachine import State, StateChart
except ImportError:
    StateChart = None

CYCLES = 100
Round = Callable[[], int]


class Model:
    """What a `HierarchicalMachine` moves. The machine gives it its triggers as methods."""

    amount = 20

    def affordable(self) -> bool:
        return self.amount < 1000


def transitions_round(states: list[Any], rows: list[Any], initial: str, names: list[str]) -> Round:
    model = Model()
    HierarchicalMachine(model, states=states, transitions=rows, initial=initial, auto_transitions=False)
    return _round([getattr(model, name) for name in names])


def transitions_flat() -> Round:
    rows = [["go", f"s{i}", f"s{(i + 1) % 8}"] for i in range(8)]
    return transitions_round([f"s{i}" for i in range(8)], rows, "s0", ["go"])


def transitions_nested() -> Round:
    tree: list[Any] = ["x", "y"]
    path: list[str] = []
    for name in ("n4", "n3", "n2", "n1", "top"):
        tree = [{"name": name, "children": tree, "initial": tree[0] if isinstance(tree[0], str) else tree[0]["name"]}]
        path.insert(0, name)
    prefix = "_".join(path)
    rows = [["go", f"{prefix}_x", f"{prefix}_y"], ["back", f"{prefix}_y", f"{prefix}_x"]]
    return transitions_round(tree, rows, f"{prefix}_x", ["go", "back"])


def transitions_regions(count: int) -> Round:
    parts = [{"name": f"r{i}", "children": ["a", "b"], "initial": "a"} for i in range(count)]
    rows = [
        row
        for i in range(count)
        for row in ([f"go{i}", f"p_r{i}_a", f"p_r{i}_b"], [f"back{i}", f"p_r{i}_b", f"p_r{i}_a"])
    ]
    return transitions_round([{"name": "p", "parallel": parts}], rows, "p", [f"go{count // 2}", f"back{count // 2}"])


def transitions_all(count: int) -> Round:
    parts = [{"name": f"r{i}", "children": ["a", "b"], "initial": "a"} for i in range(count)]
    pairs = [("a", "b"), ("b", "a")]
    rows = [["all", f"p_r{i}_{source}", f"p_r{i}_{target}"] for i in range(count) for source, target in pairs]
    return transitions_round([{"name": "p", "parallel": parts}], rows, "p", ["all"])


def transitions_approval(names: list[str]) -> Round:
    states = ["draft", "submitted", "under", "escalated", "changes", "approved", "rejected"]
    rows = [
        {"trigger": "submit", "source": "draft", "dest": "submitted", "conditions": "affordable"},
        ["assign", "submitted", "under"],
        {"trigger": "approve", "source": "under", "dest": "approved", "conditions": "affordable"},
        ["change", "under", "changes"],
        ["submit", "changes", "submitted"],
        ["reopen", "approved", "draft"],
    ]
    return transitions_round(states, rows, "draft", names)


def statemachine_flat() -> Round | None:
    if StateChart is None:
        return None

    class Flat(StateChart):  # type: ignore[misc]
        s0, s1, s2, s3 = State(initial=True), State(), State(), State()
        s4, s5, s6, s7 = State(), State(), State(), State()
        go = s0.to(s1) | s1.to(s2) | s2.to(s3) | s3.to(s4) | s4.to(s5) | s5.to(s6) | s6.to(s7) | s7.to(s0)

    return _statemachine_round(Flat(), ["go"])


def statemachine_nested() -> Round | None:
    if StateChart is None:
        return None

    class Nested(StateChart):  # type: ignore[misc]
        class top(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
            class n1(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                class n2(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                    class n3(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                        class n4(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                            x, y = State(initial=True), State()
                            go = x.to(y)
                            back = y.to(x)

    return _statemachine_round(Nested(), ["go", "back"])


def statemachine_regions(names: list[str]) -> Round | None:
    """Three regions; `names` are the events sent, in turn."""
    if StateChart is None:
        return None

    class Regions(StateChart):  # type: ignore[misc]
        class p(State.Parallel):  # type: ignore[misc, name-defined]  # noqa: N801
            class r0(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                a0, b0 = State(initial=True), State()
                every = a0.to(b0) | b0.to(a0)

            class r1(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                a1, b1 = State(initial=True), State()
                every = a1.to(b1) | b1.to(a1)
                go1 = a1.to(b1)
                back1 = b1.to(a1)

            class r2(State.Compound):  # type: ignore[misc, name-defined]  # noqa: N801
                a2, b2 = State(initial=True), State()
                every = a2.to(b2) | b2.to(a2)

    return _statemachine_round(Regions(), names)


def statemachine_approval(names: list[str]) -> Round | None:
    if StateChart is None:
        return None

    class Approval(StateChart):  # type: ignore[misc]
        amount = 20
        draft, submitted, under, changes, approved = State(initial=True), State(), State(), State(), State()
        submit = draft.to(submitted, cond="affordable") | changes.to(submitted)
        assign = submitted.to(under)
        approve = under.to(approved, cond="affordable")
        change = under.to(changes)
        reopen = approved.to(draft)

        def affordable(self) -> bool:
            return self.amount < 1000

    return _statemachine_round(Approval(), names)


def _statemachine_round(machine: Any, names: list[str]) -> Round:
    before = set(machine.configuration_values)
    machine.send(names[0])
    if set(machine.configuration_values) == before:
        raise RuntimeError(f"{type(machine).__name__} did not react to {names[0]!r}")
    for name in names[1:]:
        machine.send(name)
    return _round([getattr(machine, name) for name in names])


def _round(triggers: list[Callable[[], Any]]) -> Round:
    def run() -> int:
        for _ in range(CYCLES):
            for trigger in triggers:
                trigger()
        return CYCLES * len(triggers)

    return run
