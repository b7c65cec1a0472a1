"""How long `check` and `testgen` take on charts of about 200 states, in seconds: the best of several rounds.

python -m tests.benchmarks.exploring [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from statewright.statecharts import Chart, chart, final, parallel, state, to
from statewright.statecharts.check import check
from statewright.statecharts.exploration import explore
from statewright.statecharts.testgen import generate

STATES = 200


def flat() -> Chart:
    """A long procedure: each step goes on, back, or is given up; some wait, some ask for data."""
    steps = []
    for number in range(STATES):
        last = number == STATES - 1
        onward = "done" if last else f"s{number + 1}"
        on: dict[str, Any] = {
            "next": [to(onward, guard=f"context.amount < {number + 100}"), to("given_up")],
            "back": f"s{max(number - 1, 0)}",
        }
        steps.append(state(f"s{number}", on=on, after={"24h": onward} if number % 3 == 0 else {}))
    ends = [final("done"), final("given_up")]
    return chart("flat", context={"amount": "int"}, initial="s0", states=[*steps, *ends])


def regions(count: int) -> Chart:
    """Regions of ten states each, side by side: ever more configurations."""
    parts = []
    for region in range(count):
        inner = [
            state(f"r{region}s{number}", on={f"go{region}": f"r{region}s{(number + 1) % 10}"}) for number in range(10)
        ]
        parts.append(state(f"r{region}", states=inner))
    return chart("regions", states=[parallel("p", states=parts, on={"stop": "over"}), final("over")], initial="p")


def print_table(rounds: int) -> None:
    charts = {"flat": flat(), "2 regions of 10": regions(2), "20 regions of 10": regions(20)}
    print(f"{'chart':>20} {'states':>7} {'configurations':>15} {'explore':>9} {'check':>9} {'testgen':>9}")
    for name, subject in charts.items():
        exploration = explore(subject.definition)
        count = len(subject.machine.by_index) - 1
        found = f"{len(exploration.nodes)}{'' if exploration.is_complete else '+'}"
        explored = best(rounds, lambda subject=subject: explore(subject.definition))
        checked = best(rounds, lambda subject=subject: check(subject))
        generated = best(1, lambda subject=subject: generate(subject, "CHART"))
        print(f"{name:>20} {count:>7} {found:>15} {explored:>8.2f}s {checked:>8.2f}s {generated:>8.2f}s")


def best(rounds: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    print_table(parser.parse_args().rounds)
