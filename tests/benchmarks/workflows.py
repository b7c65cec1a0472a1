"""Workflows of many steps, durable on SQLite: compiled and executed through the `Orchestrator`, beside charts by hand.

The steps do nothing, so what is measured is what the engine does around them: time, CPU of the whole process, bytes
(growth of the store's files, and what the process gave to the disk) for each step. What is done once for a workflow,
compiling and registering it, has columns of its own. Memory is measured in processes of their own, so that nothing that
was freed before can hide it. Bars: 1,000 independent steps in 2 s, a chain of 1,000 in 3 s; neither time nor bytes of a
step grow by more than half from 10 to 1,000; 3,000 steps/s with 100 executions of 10; 500 executions at once; 2 kB of
memory a step.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from statewright.engine import EffectCall, Engine
from statewright.engine.recorder import InstanceFilter
from statewright.engine.workflows import Orchestrator
from statewright.statecharts import Chart, chart, final, parallel, record, run_step, state, to
from statewright.statecharts.definition import State
from statewright.statecharts.workflows import Workflow

SIZES = (10, 100, 1_000)
EXECUTIONS, MANY_EXECUTIONS, STEPS = 100, 500, 10
MEMORY_EXECUTIONS, MEMORY_STEPS = 10, 1_000
LOOK_S = 0.005
Shape = Literal["parallel", "sequential", "fan"]


class Ran(msgspec.Struct):
    """What the steps of one run took together. `written`: given to the disk, None where the system doesn't say."""

    steps: int
    seconds: float
    cpu: float
    stored: int
    written: int | None
    compiled: float = 0.0
    opened: float = 0.0
    """Seconds that compiling the workflow took, and opening a store with it (which registers it)."""

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


async def nothing() -> None:
    """A step that does nothing."""


def workflow(steps: int, shape: Shape) -> Workflow:
    """All at once, one after another, or a fan: all but two after the first, the last after all of them."""
    made = Workflow(f"{shape}{steps}", mode="sequential" if shape == "sequential" else "parallel")
    ids = [f"s{number}" for number in range(steps)]
    for number, step in enumerate(ids):
        needed: list[str] = []
        if shape == "fan" and number:
            needed = ids[:1] if number + 1 < steps else ids[1:-1]
        made.add_step(id=step, function=nothing, dependencies=needed)
    return made


async def execute(folder: Path, made: Workflow, steps: int, executions: int = 1) -> Ran:
    """Execute it so often at once through the orchestrator, on a store of its own."""
    path = folder / f"{made.id}-{executions}-compiled.db"
    begun = time.perf_counter()
    made.chart()
    compiled = time.perf_counter()
    async with Orchestrator.open(f"sqlite:///{path}", workflows=[made]) as orchestrator:
        opened = time.perf_counter()
        before, cpu, stored, written = time.perf_counter(), time.process_time(), _stored(path), _written()
        await asyncio.gather(*(orchestrator.execute_and_wait(made.id) for _ in range(executions)))
        seconds, used = time.perf_counter() - before, time.process_time() - cpu
        now = _written()
        given = now - written if now is not None and written is not None else None
        grown = _stored(path) - stored
        return Ran(steps * executions, seconds, used, grown, given, compiled - begun, opened - compiled)


async def memory(folder: Path, steps: int, executions: int) -> tuple[float, float]:
    """Bytes of memory that a step takes: while all are to be done or under way, and when they have been done. Run it in
    a fresh process; what is needed once, for the workflow and the first steps, is there before it looks."""
    blocked = asyncio.Event()
    blocked.set()

    async def wait() -> None:
        await blocked.wait()

    made = Workflow("memory", mode="parallel")
    for number in range(steps):
        made.add_step(id=f"s{number}", function=wait)
    async with Orchestrator.open(f"sqlite:///{folder / 'memory.db'}", workflows=[made]) as orchestrator:
        await orchestrator.execute_and_wait(made.id)
        blocked.clear()
        gc.collect()
        before = _resident()
        ids = [await orchestrator.execute(made.id) for _ in range(executions)]
        await asyncio.sleep(1)
        gc.collect()
        during = _resident() - before
        blocked.set()
        for execution_id in ids:
            await orchestrator.wait(execution_id)
        gc.collect()
        return during / (steps * executions), (_resident() - before) / (steps * executions)


def measure(folder: Path) -> list[str]:
    """Print all figures; the URLs of the stores, to be verified."""
    print("\nworkflows: steps that do nothing, durable on SQLite")
    print(
        f"{'':>24} {'steps':>6} {'s':>7} {'steps/s':>8} {'us CPU':>7} {'stored':>8} {'written':>8}   (a step)", end=""
    )
    print("  compile, open (s)")
    shapes: tuple[Shape, ...] = ("parallel", "sequential", "fan")
    for shape in shapes:
        for steps in SIZES:
            _show(shape, asyncio.run(execute(folder, workflow(steps, shape), steps)))
    for shape in shapes[:2]:
        for executions in (EXECUTIONS, MANY_EXECUTIONS):
            ran = asyncio.run(execute(folder, workflow(STEPS, shape), STEPS, executions))
            _show(f"{executions} of {STEPS} {shape}", ran)
    print("the same as charts made by hand")
    for make in (independent, chain):
        for steps in SIZES:
            _show(make.__name__, asyncio.run(run(folder, make(steps), steps)))
        _show(f"{EXECUTIONS} of {STEPS}", asyncio.run(run(folder, make(STEPS), STEPS, EXECUTIONS)))
    print("memory of a step, bytes (bar 2,000), in fresh processes")
    for executions in (MEMORY_EXECUTIONS, 3 * MEMORY_EXECUTIONS):
        print(f"{executions:>4} executions of {MEMORY_STEPS:,}: {_memory(folder, executions)}")
    print("bars: 1,000 at once in 2 s, a chain of 1,000 in 3 s, 3,000 steps/s with 100 executions of 10")
    return [f"sqlite:///{path}" for path in sorted(folder.glob("*.db"))]


def _memory(folder: Path, executions: int) -> str:
    place = folder / f"memory-{executions}"
    place.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.workflows", str(place), str(MEMORY_STEPS), str(executions)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _show(what: str, ran: Ran) -> None:
    stored = ran.stored / ran.steps
    written = f"{ran.written / ran.steps:>8,.0f}" if ran.written is not None else f"{'':>8}"
    cpu = ran.cpu / ran.steps * 1e6
    print(
        f"{what:>24} {ran.steps:>6,} {ran.seconds:>7.2f} {ran.rate:>8,.0f} {cpu:>7.0f} {stored:>8,.0f} {written}",
        end="",
    )
    print(f"   {ran.compiled:>16.2f} {ran.opened:.2f}" if ran.opened else "", flush=True)


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


if __name__ == "__main__":
    while_running, afterwards = asyncio.run(memory(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
    print(f"{while_running:,.0f} while they run, {afterwards:,.0f} when done")
