"""Timers at scale: how late they fire, how fast many that are due at once do, and what a restart among many costs.

Lateness is from the due time to the moment when the commit that records the firing is durable. The restart is of a
process that was killed: `python -m tests.benchmarks.timers fill|restart STORE` are its two halves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from statewright.engine import Engine
from statewright.engine.commits import Commits
from statewright.engine.recorder import Changes
from statewright.statecharts import Chart, chart, state, to
from statewright.statecharts.builder import send
from tests.benchmarks.memory import resident_kb

INSTANCES = 10_000
TIMERS_EACH = 10
DUE_PER_S = 1_000
IDLE_EACH_S = 0.02
LEAD_S = 8.0
"""In which the timers are set, before the first of them is due."""


def pending() -> Chart:
    """Each instance sets one timer when it is told to, and has nine more that are due tomorrow."""
    later = [send(f"later.{n}", delay="24h", id=f"later-{n}") for n in range(1, TIMERS_EACH)]
    wait = send("rung", delay="event.data.wait", id="soon")
    states = [state("waiting", entry=later, on={"set": to(actions=wait), "rung": to(actions=[]), "touch": to()})]
    return chart("pending", states=states)


class Watch(Commits):
    """When each timer that is due soon was fired, durably: told by the engine's commits."""

    def __init__(self, engine: Engine) -> None:
        self.due: dict[str, int] = {}
        self.late_ms: list[float] = []
        self.order: list[int] = []
        self._expected = 0
        self._all = asyncio.Event()
        runtime = engine._running
        self._before, runtime.commits = runtime.commits, self

    def begun(self, changes: Changes) -> None:
        self._before.begun(changes)

    def failed(self, changes: Changes, *, is_certain: bool) -> None:
        self._before.failed(changes, is_certain=is_certain)

    def done(self, changes: Changes) -> None:
        now = time.time_ns()
        for row in changes.timers_set:
            if row.timer_id.startswith("soon"):
                self.due[row.instance_id] = row.due_at
        for instance_id, timer_id in changes.timers_cleared:
            if timer_id.startswith("soon"):
                self.late_ms.append((now - self.due[instance_id]) / 1e6)
                self.order.append(self.due[instance_id])
        if len(self.late_ms) >= self._expected:
            self._all.set()
        self._before.done(changes)

    async def fired(self, count: int) -> None:
        self._expected = count
        if len(self.late_ms) < count:
            self._all.clear()
            await self._all.wait()


async def fill(engine: Engine) -> None:
    """`INSTANCES` instances with `TIMERS_EACH` - 1 timers that are not due."""
    for first in range(0, INSTANCES, 1_000):
        await asyncio.gather(*(engine.start("pending", id=f"i-{n}") for n in range(first, first + 1_000)))


async def lateness(url: str, every_s: float, count: int) -> list[float]:
    """One timer due every `every_s`, `count` of them, among 90,000 that are not; sorted ms."""
    async with Engine.open(url, charts=[pending()]) as engine:
        watch = Watch(engine)
        first_at = time.time() + LEAD_S
        for start in range(0, count, 500):
            page = range(start, min(start + 500, count))
            waits = {n: round((first_at + n * every_s - time.time()) * 1_000) for n in page}
            await asyncio.gather(*(engine.send(f"i-{n}", "set", {"wait": f"{ms}ms"}) for n, ms in waits.items()))
        if time.time() >= first_at:
            raise AssertionError(f"expected {count} timers to be set within {LEAD_S} s")
        await watch.fired(count)
        return sorted(watch.late_ms)


async def at_once(url: str) -> tuple[float, bool]:
    """Seconds to fire `INSTANCES` timers that became due while nobody was there; whether in due order."""
    async with Engine.open(url, charts=[pending()], run_due=False) as engine:
        watch = Watch(engine)
        for first in range(0, INSTANCES, 1_000):
            await asyncio.gather(*(engine.send(f"i-{n}", "set", {"wait": "1ms"}) for n in range(first, first + 1_000)))
        due = watch.due
    began = time.perf_counter()
    async with Engine.open(url, charts=[pending()]) as engine:
        watch = Watch(engine)
        watch.due = due
        await watch.fired(INSTANCES)
        return time.perf_counter() - began, watch.order == sorted(watch.order)


class Restart(msgspec.Struct):
    """Seconds since the process began, and kB of memory."""

    loaded_s: float
    open_s: float
    first_s: float
    all_s: float
    before_kb: float
    open_kb: float


async def restart(url: str, began: float) -> Restart:
    loaded, before = time.time() - began, resident_kb()
    async with Engine.open(url, charts=[pending()]) as engine:
        opened, open_kb = time.time() - began, resident_kb()
        await engine.send("i-0", "touch")
        first = time.time() - began
        await asyncio.gather(*(engine.send(f"i-{n}", "touch") for n in range(INSTANCES)))
        return Restart(loaded, opened, first, time.time() - began, before, open_kb)


def killed_and_restarted(url: str) -> Restart:
    """`fill` in a process that kills itself, then `restart` in another."""
    command = [sys.executable, "-m", "tests.benchmarks.timers"]
    filled = subprocess.run([*command, "fill", url], check=False)
    if filled.returncode != -signal.SIGKILL:
        raise AssertionError(f"expected it to be killed, got {filled.returncode}")
    done = subprocess.run([*command, "restart", url, str(time.time())], stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Restart)


async def fill_and_die(url: str) -> None:
    engine = await Engine.open(url, charts=[pending()]).__aenter__()
    await fill(engine)
    await asyncio.gather(*(engine.send(f"i-{n}", "set", {"wait": "24h"}) for n in range(INSTANCES)))
    os.kill(os.getpid(), signal.SIGKILL)


def measure_timers(folder: Path, seconds: float) -> list[str]:
    """Print the figures; the stores to verify."""
    url = f"sqlite:///{folder}/timers.db"
    found = killed_and_restarted(url)
    print(f"\na killed process, {INSTANCES:,} instances and {INSTANCES * TIMERS_EACH:,} timers pending; the next one, ")
    print(
        f"from its beginning: code loaded {found.loaded_s:.2f} s, engine open {found.open_s:.2f} s, first event", end=""
    )
    print(
        f" acknowledged {found.first_s:.2f} s (bar 1), all served once {found.all_s:.2f} s (bar 5); opening took",
        end="",
    )
    print(f" {(found.open_kb - found.before_kb) / 1024:.1f} MB")
    rounds = (("idle", IDLE_EACH_S, round(seconds / IDLE_EACH_S)), ("1,000 due a second", 1 / DUE_PER_S, 5_000))
    for what, every_s, count in rounds:
        late = asyncio.run(lateness(url, every_s, count))
        p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
        print(f"{what}: {count:,} timers were late by p50 {p50:.2f}, p99 {p99:.2f}, max {late[-1]:.2f} ms")
    took, in_order = asyncio.run(at_once(url))
    print(
        f"{INSTANCES:,} due at once, since before the start, of {INSTANCES * TIMERS_EACH:,}: all fired in {took:.2f} s"
    )
    print(f"         {INSTANCES / took:,.0f} a second, {'in' if in_order else 'NOT in'} due order")
    return [url]


if __name__ == "__main__":
    part, store = sys.argv[1:3]
    if part == "fill":
        asyncio.run(fill_and_die(store))
    else:
        sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(restart(store, float(sys.argv[3])))))
