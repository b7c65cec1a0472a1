"""What an idle instance costs in memory, and what compiling a large chart costs in time.

    python -m tests.benchmarks.memory

Memory is the growth of a fresh process (RSS, after gc) when 10,000 stored instances are loaded as the engine keeps
them, per instance, with an empty context; a second figure has a pending timer in each.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from statewright.engine import Engine, ManualClock
from statewright.engine.residents import Resident, load_resident
from statewright.statecharts import Chart, chart, state, to

INSTANCES = 10_000


def idle() -> Chart:
    return chart("idle", states=[state("waiting", on={"go": "going"}), state("going", on={"stop": "waiting"})])


def timed() -> Chart:
    return chart("timed", states=[state("waiting", after={"24h": "late"}), state("late")])


def large(count: int) -> Chart:
    """`count` states: twenty at the top, each with nested ones and transitions among them."""
    inner = count // 20 - 1
    return chart(
        "large",
        states=[
            state(
                f"s{i}",
                on={"up": f"s{(i + 1) % 20}"},
                states=[
                    state(
                        f"s{i}-{k}", on={"go": to(f"s{i}-{(k + 1) % inner}", guard=f"event.data.n < {i * inner + k}")}
                    )
                    for k in range(inner)
                ],
            )
            for i in range(20)
        ],
    )


def resident_kb() -> float:
    """The resident set in kB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def store(url: str, subject: Chart) -> None:
    async with Engine.open(url, charts=[subject], clock=ManualClock()) as engine:
        await asyncio.gather(*(engine.start(subject.name, id=f"i-{n}") for n in range(INSTANCES)))


async def bytes_per_instance(url: str, subject: Chart) -> float:
    """In a process that has held no instances before: what it frees could be used again, and nothing would grow."""
    async with Engine.open(url, charts=[subject], clock=ManualClock(), run_due=False) as engine:
        load_resident(engine.log, engine.definitions, "i-0")
        kept: list[Resident | None] = [None] * INSTANCES
        before = resident_kb()
        for n in range(INSTANCES):
            kept[n] = load_resident(engine.log, engine.definitions, f"i-{n}")
        return (resident_kb() - before) * 1024 / INSTANCES


def measure(url: str, make: Callable[[], Chart]) -> float:
    return asyncio.run(bytes_per_instance(url, make()))


def compile_s(count: int) -> float:
    """The first time, with every expression new."""
    definition = large(count).definition
    began = time.perf_counter()
    Chart(definition)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="statewright-bench-") as name:
        for make in (idle, timed):
            url = f"sqlite:///{Path(name) / make.__name__}.db"
            asyncio.run(store(url, make()))
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                per_instance = fresh.submit(measure, url, make).result()
            print(f"memory of an idle instance, chart '{make.__name__}': {per_instance:,.0f} bytes (bar 1,000)")
    print(f"a chart of 1,000 states compiles in {compile_s(1_000):.2f} s (bar 1)")


if __name__ == "__main__":
    main()
