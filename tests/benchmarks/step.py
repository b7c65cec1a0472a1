"""What one `step` costs, in microseconds an event, beside other libraries on the same charts in the same run.

    python tests/benchmarks/step.py [--rounds N]

Each figure is the best of several rounds. Every chart is driven round a cycle of events, so that each event changes
state; the last table shows that the cost does not follow the number of regions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

from statewright.statecharts import Chart, Event, chart, final, history, parallel, state, to
from tests.benchmarks.peers import (
    Round,
    statemachine_approval,
    statemachine_flat,
    statemachine_nested,
    statemachine_regions,
    transitions_all,
    transitions_approval,
    transitions_flat,
    transitions_nested,
    transitions_regions,
)

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
    two = ["every", "every"]
    rows: list[tuple[str, Round, Round | None, Round | None]] = [
        ("flat", drive(flat(), ["go"], {}), transitions_flat(), statemachine_flat()),
        ("nested, 6 deep", drive(nested(), ["go", "back"], {}), transitions_nested(), statemachine_nested()),
        (
            "parallel, 1 of 3 changes",
            drive(regions(3), ["go1", "back1"], {}),
            transitions_regions(3),
            statemachine_regions(["go1", "back1"]),
        ),
        (
            "parallel, all 3 change",
            drive(regions(3), ["all"], {}),
            transitions_all(3),
            statemachine_regions(two),
        ),
        ("history", drive(remembering(), ["next", "pause", "resume"], {}), None, None),
        (
            "approval, Python guards",
            drive(approval(affordable), APPROVAL_EVENTS, {"amount": 20}),
            transitions_approval(APPROVAL_EVENTS),
            statemachine_approval(APPROVAL_EVENTS),
        ),
        ("approval, CEL guards", drive(approval(cel), APPROVAL_EVENTS, {"amount": 20}), None, None),
    ]
    print(f"{'us an event':<28}{'statewright':>12}{'transitions':>12}{'python-statemachine':>20}")
    for name, ours, *peers in rows:
        shown = [f"{best_us(peer, 3):.1f}" if peer else "-" for peer in peers]
        print(f"{name:<28}{best_us(ours, rounds):>12.1f}{shown[0]:>12}{shown[1]:>20}")
    print()
    for count in (10, 100, 1000):
        middle = count // 2
        run = drive(regions(count), [f"go{middle}", f"back{middle}"], {})
        print(f"{f'{count} regions, one changes':<28}{best_us(run, rounds):>12.1f}")


if __name__ == "__main__":
    main()
