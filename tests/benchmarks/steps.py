"""What a step of a workflow costs the pure machine, in workflows of 10, 100 and 1,000 steps; and what compiling does.

Run by hand: `python -m tests.benchmarks.steps`. A step's cost must not grow with their number.
"""

from __future__ import annotations

import time

from statewright.statecharts import Event
from statewright.statecharts.workflows import Workflow

ROUNDS = 7
SIZES = (10, 100, 1_000)


def workflow(shape: str, count: int) -> tuple[Workflow, list[str]]:
    """chain: one after the other. wide: all at once. fan: all but two after the first, the last after all of them."""
    made = Workflow("bench", mode="sequential" if shape == "chain" else "parallel")
    names = [f"s{number}" for number in range(count)]
    for number, name in enumerate(names):
        needed: list[str] = []
        if shape == "fan" and number:
            needed = names[1:-1] if number == count - 1 else names[:1]
        made.add_step(id=name, function="perform", dependencies=needed)
    return made, names


def measure(shape: str, count: int) -> str:
    made, names = workflow(shape, count)
    begun = time.process_time()
    made.validate()
    read = time.process_time()
    chart = made.chart()
    compiled = time.process_time()
    machine = chart.machine
    costs = []
    for _ in range(ROUNDS):
        started = time.process_time()
        snapshot = machine.start({}).snapshot
        for name in names:
            step = machine.step(snapshot, Event(f"done.effect.{name}"))
            snapshot = step.snapshot
        costs.append((time.process_time() - started) / count * 1e6)
        if step.status != "completed":
            raise AssertionError(f"expected {shape} of {count} to complete, it is {step.status}: {step.reason}")
    return (
        f"{shape:6} {count:5}  read {(read - begun) * 1e3:5.0f} ms  compile {(compiled - read) * 1e3:5.0f} ms  "
        f"{len(machine.by_index) - 1:5} states  first run {costs[0]:5.1f} us a step, then {min(costs):5.1f}"
    )


def main() -> None:
    for shape in ("chain", "wide", "fan"):
        for count in SIZES:
            print(measure(shape, count), flush=True)


if __name__ == "__main__":
    main()
