"""The work that is measured: the document approval of the examples, with its guards, timers and effects.

One loop is two events, `request_changes` and `resubmit`: each takes a transition through the parallel review, evaluates
guards, sets or cancels two timers, assigns, and names a notification. Effects are recorded, and performed only where a
benchmark says so.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from statewright.engine import Engine, Outcome
from statewright.statecharts import Chart, Event, chart, load_chart, state, to

CHART = Path(__file__).parents[2] / "examples" / "document_approval" / "chart.yaml"
Send = Callable[[str, str, Any, str], Awaitable[Outcome]]
"""(instance, event name, data, event id) -> outcome once it is durable."""


class Run(msgspec.Struct):
    """What one timed run did: events acknowledged as recorded, and each one's latency in seconds."""

    events: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1e3


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(one) / statistics.median(other)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has taken, from Linux's /proc: what a busy machine disturbs less than the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def approval() -> Chart:
    return load_chart(CHART)


def switch() -> Chart:
    """Two states and a Python guard: what the engine costs when the chart costs next to nothing."""

    def positive(context: Mapping[str, Any], event: Event) -> bool:
        return bool(context["n"] > 0)

    turned = {"off": "on", "on": "off"}
    states = [state(one, on={"turn": to(other, guard=positive)}) for one, other in turned.items()]
    return chart("switch", context={"n": {"type": "int", "default": 1}}, states=states)


async def start_many(engine: Engine, count: int, prefix: str = "d") -> list[str]:
    """`count` instances, under review, ready for the loop."""
    ids = [f"{prefix}-{number}" for number in range(count)]
    for first in range(0, count, 1_000):
        page = ids[first : first + 1_000]
        await asyncio.gather(*(engine.start("document_approval", {"amount": 900}, id=one) for one in page))
        await asyncio.gather(*(_bring_to_review(engine, one) for one in page))
    return ids


async def _bring_to_review(engine: Engine, instance_id: str) -> None:
    await engine.send(instance_id, "submit", {"by": "ann"}, event_id="submit")
    outcome = await engine.send(instance_id, "assign", {"reviewer": "bob"}, event_id="assign")
    if "under_review" not in outcome.configuration:
        raise AssertionError(f"expected {instance_id} under review, got {outcome}")


Turn = Sequence[tuple[str, Any]]
"""The events of one loop, in order: (name, data)."""
APPROVAL_TURN: Turn = (("request_changes", {"by": "bob"}), ("resubmit", {"by": "ann"}))
SWITCH_TURN: Turn = (("turn", {"by": "ann"}),)


async def drive(send: Send, ids: Sequence[str], seconds: float, events: Turn = APPROVAL_TURN) -> Run:
    """One sender an instance, each sending its next event when the last is acknowledged, for `seconds`."""
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def one(instance_id: str) -> None:
        turn = 0
        while time.perf_counter() < deadline:
            turn += 1
            for name, data in events:
                sent = time.perf_counter()
                outcome = await send(instance_id, name, data, f"{turn}-{name}-{sent:.9f}")
                latencies.append(time.perf_counter() - sent)
                if outcome.kind != "recorded":
                    raise AssertionError(f"expected {name} of {instance_id} to be recorded, got {outcome}")

    began = time.perf_counter()
    await asyncio.gather(*map(one, ids))
    return Run(len(latencies), time.perf_counter() - began, latencies)
