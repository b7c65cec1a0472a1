"""The engine that the schedules' kill test kills: `schedule_process.py STORE BEGAN`.

Its clock runs 60 times as fast as the wall's since `BEGAN` (seconds since the epoch): a minute takes a second, and it
goes on while nobody runs. It says "loaded", waits for a line on stdin, opens the engine, says "ready".
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time

from statewright.adapters.sqlite import store  # noqa: F401  (loaded before it is needed)
from statewright.engine import Engine
from statewright.engine.clock import SECOND_NS
from statewright.statecharts import chart, state

FASTER = 60
CHART = chart("tick", states=[state("waiting")])


class FastClock:
    """The wall clock, hurried on."""

    def __init__(self, began: float) -> None:
        self._began = began

    def now(self) -> int:
        return int((self._began + (time.time() - self._began) * FASTER) * SECOND_NS)

    async def sleep_until(self, due_at: int) -> None:
        await asyncio.sleep(max(due_at - self.now(), 0) / SECOND_NS / FASTER)


async def serve(store_url: str, began: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Engine.open(store_url, charts=[CHART], clock=FastClock(float(began))) as engine:
        await engine.schedule("tick", "* * * * *", id="every-minute", catch_up="all")
        print("ready", flush=True)
        await ended.wait()


if __name__ == "__main__":
    print("loaded", flush=True)
    if sys.stdin.readline():
        asyncio.run(serve(*sys.argv[1:]))
