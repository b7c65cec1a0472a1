"""Workflows of many steps: 1,000 at once, a chain of 1,000, and 100 executions of 10, all durable on SQLite.

The steps do nothing, so what is measured is what the engine does around them: time, CPU of the whole process, bytes
(growth of the store's files, and what the process gave to the disk) and memory for each step. Bars: 1,000 independent
steps in 2 s, a chain of 1,000 in 3 s; neither time nor bytes of a step grow by more than half from 10 to 1,000; 3,000
steps/s with 100 executions of 10; 2 kB of memory a step.

The charts are made by hand, in the way that a workflow compiles.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

import msgspec

from statewright.engine import EffectCall, Engine
from statewright.engine.recorder import InstanceFilter
from statewright.statecharts import Chart, chart, final, parallel, record, run_step, state, to
from statewright.statecharts.definition import State

SIZES = (10, 100, 1_000)
EXECUTIONS, STEPS = 100, 10
LOOK_S = 0.005


class Ran(msgspec.Struct):
    """What the steps of one run took together. `written`: given to the disk, None where the system doesn't say."""

    steps: int
    seconds: float
    cpu: float
    stored: int
    written: int | None

    @property
    def rate(self) -> float:
        return self.steps / self.seconds


def independent(steps: int) -> Chart:
    """All at once: a lane each."""
    lanes = [
        state(
            f"lane{number}", initial=f"s{number}", states=[_step(f"s{number}", f"end{number}"), final(f"end{number}")]
        )
        for number in range(steps)
    ]
    running = parallel("running", states=lanes, on={"done.state.running": to("completed")})
    return chart(f"independent{steps}", initial="running", states=[running, final("completed")])


def chain(steps: int) -> Chart:
    """One after another: a single lane."""
    states = [_step(f"s{number}", f"s{number + 1}" if number + 1 < steps else "completed") for number in range(steps)]
    return chart(f"chain{steps}", initial="s0", states=[*states, final("completed")])


def _step(name: str, after: str) -> State:
    return state(
        name,
        entry=[run_step(name, cancel="on_exit"), record(name, "running")],
        on={f"done.effect.{name}": to(after, actions=[record(name, "completed")])},
    )


async def perform(call: EffectCall) -> None:
    """A step that does nothing."""


async def run(folder: Path, definition: Chart, steps: int, executions: int = 1) -> Ran:
    """Execute it so often at once, on a store of its own."""
    path = folder / f"{definition.name}-{executions}.db"
    async with Engine.open(f"sqlite:///{path}", charts=[definition]) as engine:
        engine.performer("step", perform)
        before, cpu, stored, written = time.perf_counter(), time.process_time(), _stored(path), _written()
        ids = [f"e{number}" for number in range(executions)]
        await asyncio.gather(*(engine.start(definition.name, id=instance_id) for instance_id in ids))
        while await engine.list(InstanceFilter(status="active", limit=1)):  # noqa: ASYNC110 (it looks seldom)
            await asyncio.sleep(LOOK_S)
        seconds, used = time.perf_counter() - before, time.process_time() - cpu
        now = _written()
        given = now - written if now is not None and written is not None else None
        return Ran(steps * executions, seconds, used, _stored(path) - stored, given)


async def memory(folder: Path, steps: int) -> float:
    """Bytes of memory that a step takes while it runs."""
    small, large = independent(10), independent(steps)
    blocked = asyncio.Event()

    async def wait(call: EffectCall) -> None:
        await blocked.wait()

    async with Engine.open(f"sqlite:///{folder / 'memory.db'}", charts=[small, large]) as engine:
        engine.performer("step", wait)
        await engine.start(small.name, id="small")
        await asyncio.sleep(0.2)
        gc.collect()
        before = _resident()
        await engine.start(large.name, id="large")
        await asyncio.sleep(0.5)
        gc.collect()
        return (_resident() - before) / steps


def measure(folder: Path) -> list[str]:
    """Print all figures; the URLs of the stores, to be verified."""
    print("\nworkflows: steps that do nothing, durable on SQLite")
    print(f"{'':>22} {'steps':>6} {'s':>7} {'steps/s':>8} {'us CPU':>7} {'stored':>8} {'written':>8}   (a step)")
    for make in (independent, chain):
        for steps in SIZES:
            _show(make.__name__, asyncio.run(run(folder, make(steps), steps)))
    ran = asyncio.run(run(folder, independent(STEPS), STEPS, EXECUTIONS))
    _show(f"{EXECUTIONS} executions of {STEPS}", ran)
    ran = asyncio.run(run(folder, chain(STEPS), STEPS, EXECUTIONS))
    _show(f"{EXECUTIONS} chains of {STEPS}", ran)
    print(f"memory of a step that runs: {asyncio.run(memory(folder, 1_000)):,.0f} bytes (bar 2,000)")
    print("bars: 1,000 at once in 2 s, a chain of 1,000 in 3 s, 3,000 steps/s with 100 executions of 10")
    return [f"sqlite:///{path}" for path in sorted(folder.glob("*.db")) if path.name != "memory.db"]


def _show(what: str, ran: Ran) -> None:
    stored = ran.stored / ran.steps
    written = f"{ran.written / ran.steps:>8,.0f}" if ran.written is not None else f"{'':>8}"
    cpu = ran.cpu / ran.steps * 1e6
    print(f"{what:>22} {ran.steps:>6,} {ran.seconds:>7.2f} {ran.rate:>8,.0f} {cpu:>7.0f} {stored:>8,.0f} {written}")


def _stored(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _written() -> int | None:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
