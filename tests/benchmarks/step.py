"""What one `step` costs, in microseconds an event, beside `transitions` nested on the same charts in the same run.

    python tests/benchmarks/step.py [--rounds N]

Each figure is the best of several rounds. Every chart is driven round a cycle of events, so that each event changes
state; the last table shows that the cost does not follow the number of regions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

from transitions.extensions.nesting import HierarchicalMachine

from statewright.statecharts import Chart, Event, chart, final, history, parallel, state, to

CYCLES = 400


def affordable(context: Mapping[str, Any], event: Event) -> bool:
    return bool(context["amount"] < 1000)


def approval(guard: Any) -> Chart:
    """The shape of a document approval: flat, guards, effects on entry, a timer."""
    return chart(
        "approval",
        context={"amount": "int", "round": {"type": "int", "default": 0}},
        initial="draft",
        states=[
            state("draft", on={"submit": to("submitted", guard=guard)}),
            state("submitted", on={"assign": "under_review"}),
            state(
                "under_review",
                entry=["notify_reviewer"],
                after={"24h": to(actions=["remind"]), "72h": "escalated"},
                on={"approve": to("approved", guard=guard), "reject": "rejected", "change": "changes_requested"},
            ),
            state("escalated", on={"approve": "approved"}),
            state("changes_requested", on={"submit": "submitted"}),
            state("approved", on={"reopen": "draft"}),
            state("rejected", on={"reopen": "draft"}),
            final("archived"),
        ],
    )


APPROVAL_EVENTS = ["submit", "assign", "change", "submit", "assign", "approve", "reopen"]


def flat() -> Chart:
    return chart("flat", states=[state(f"s{i}", on={"go": f"s{(i + 1) % 8}"}) for i in range(8)])


def nested() -> Chart:
    def level(depth: int, name: str) -> list[dict[str, Any]]:
        if depth == 0:
            return [state(f"{name}x", on={"go": f"{name}y"}), state(f"{name}y", on={"back": f"{name}x"})]
        return [state(f"{name}{depth}", states=level(depth - 1, f"{name}{depth}"))]

    return chart("nested", states=[state("top", states=level(4, "n"), on={"go": to(), "back": to()})])


def regions(count: int) -> Chart:
    parts = [
        state(
            f"r{i}",
            states=[
                state(f"a{i}", on={f"go{i}": f"b{i}", "all": f"b{i}"}),
                state(f"b{i}", on={f"back{i}": f"a{i}", "all": f"a{i}"}),
            ],
        )
        for i in range(count)
    ]
    return chart("regions", states=[parallel("p", states=parts)])


def remembering() -> Chart:
    """A compound state that is left and entered again through its history."""
    inner = [state("a", on={"next": "b"}), state("b", on={"next": "a"}), history("h", target="a")]
    return chart(
        "history", states=[state("work", states=inner, on={"pause": "rest"}), state("rest", on={"resume": "h"})]
    )


def drive(subject: Chart, names: list[str], context: dict[str, Any]) -> Callable[[], int]:
    """A round of `CYCLES` cycles; returns how many events it was. Each event must have changed something."""
    machine = subject.machine
    start = machine.start(context).snapshot
    cycle = [Event(name) for name in names]

    def run() -> int:
        snapshot, step = start, machine.step
        for _ in range(CYCLES):
            for event in cycle:
                outcome = step(snapshot, event)
                if outcome.reason:
                    raise RuntimeError(outcome.reason)
                snapshot = outcome.snapshot
        return CYCLES * len(cycle)

    return run


class Model:
    """What a `HierarchicalMachine` moves. The machine gives it its triggers as methods."""

    amount = 20

    def affordable(self) -> bool:
        return self.amount < 1000


def drive_transitions(states: list[Any], rows: list[Any], initial: str, names: list[str]) -> Callable[[], int]:
    model = Model()
    HierarchicalMachine(model, states=states, transitions=rows, initial=initial, auto_transitions=False)
    triggers = [getattr(model, name) for name in names]

    def run() -> int:
        for _ in range(CYCLES // 4):
            for trigger in triggers:
                trigger()
        return CYCLES // 4 * len(triggers)

    return run


def transitions_flat() -> Callable[[], int]:
    rows = [["go", f"s{i}", f"s{(i + 1) % 8}"] for i in range(8)]
    return drive_transitions([f"s{i}" for i in range(8)], rows, "s0", ["go"])


def transitions_nested() -> Callable[[], int]:
    tree: list[Any] = ["x", "y"]
    path = []
    for name in ("n4", "n3", "n2", "n1", "top"):
        tree = [{"name": name, "children": tree, "initial": tree[0] if isinstance(tree[0], str) else tree[0]["name"]}]
        path.insert(0, name)
    prefix = "_".join(path)
    rows = [["go", f"{prefix}_x", f"{prefix}_y"], ["back", f"{prefix}_y", f"{prefix}_x"]]
    return drive_transitions(tree, rows, f"{prefix}_x", ["go", "back"])


def transitions_regions(count: int) -> Callable[[], int]:
    parts = [{"name": f"r{i}", "children": ["a", "b"], "initial": "a"} for i in range(count)]
    rows = [
        row
        for i in range(count)
        for row in ([f"go{i}", f"p_r{i}_a", f"p_r{i}_b"], [f"back{i}", f"p_r{i}_b", f"p_r{i}_a"])
    ]
    return drive_transitions([{"name": "p", "parallel": parts}], rows, "p", [f"go{count // 2}", f"back{count // 2}"])


def transitions_all(count: int) -> Callable[[], int]:
    parts = [{"name": f"r{i}", "children": ["a", "b"], "initial": "a"} for i in range(count)]
    pairs = [("a", "b"), ("b", "a")]
    rows = [["all", f"p_r{i}_{source}", f"p_r{i}_{target}"] for i in range(count) for source, target in pairs]
    return drive_transitions([{"name": "p", "parallel": parts}], rows, "p", ["all"])


def transitions_approval() -> Callable[[], int]:
    states = ["draft", "submitted", "under", "escalated", "changes", "approved", "rejected"]
    rows = [
        {"trigger": "submit", "source": "draft", "dest": "submitted", "conditions": "affordable"},
        ["assign", "submitted", "under"],
        {"trigger": "approve", "source": "under", "dest": "approved", "conditions": "affordable"},
        ["change", "under", "changes"],
        ["submit", "changes", "submitted"],
        ["reopen", "approved", "draft"],
    ]
    return drive_transitions(states, rows, "draft", APPROVAL_EVENTS)


def best_us(run: Callable[[], int], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        count = run()
        best = min(best, (time.perf_counter() - began) / count * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    print_table(parser.parse_args().rounds)


def print_table(rounds: int) -> None:
    """Measure and print all rows, each the best of `rounds` rounds."""
    cel = "context.amount < 1000"
    rows: list[tuple[str, Callable[[], int], Callable[[], int] | None]] = [
        ("flat", drive(flat(), ["go"], {}), transitions_flat()),
        ("nested, 6 deep", drive(nested(), ["go", "back"], {}), transitions_nested()),
        ("parallel, 1 of 3 changes", drive(regions(3), ["go1", "back1"], {}), transitions_regions(3)),
        ("parallel, all 3 change", drive(regions(3), ["all"], {}), transitions_all(3)),
        ("history", drive(remembering(), ["next", "pause", "resume"], {}), None),
        (
            "approval, Python guards",
            drive(approval(affordable), APPROVAL_EVENTS, {"amount": 20}),
            transitions_approval(),
        ),
        ("approval, CEL guards", drive(approval(cel), APPROVAL_EVENTS, {"amount": 20}), None),
    ]
    print(f"{'us an event':<28}{'statewright':>12}{'transitions':>12}")
    for name, ours, theirs in rows:
        compared = f"{best_us(theirs, 3):>12.1f}" if theirs else f"{'-':>12}"
        print(f"{name:<28}{best_us(ours, rounds):>12.1f}{compared}")
    print()
    for count in (10, 100, 1000):
        middle = count // 2
        run = drive(regions(count), [f"go{middle}", f"back{middle}"], {})
        print(f"{f'{count} regions, one changes':<28}{best_us(run, rounds):>12.1f}")


if __name__ == "__main__":
    main()
