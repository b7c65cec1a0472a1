"""The engine that the kill test kills: `engine_process.py STORE NATS_URL PERFORMED`.

It says "loaded" when its code is, waits for a line on stdin, opens the engine and says "ready". Each effect appends its
id to the file PERFORMED (one write of a file opened for appending: whole, whoever else writes).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys

from statewright.adapters.nats import doors  # noqa: F401  (loaded before it is needed)
from statewright.adapters.sqlite import store  # noqa: F401
from statewright.engine import EffectCall, Engine
from statewright.statecharts import Chart

HANDLER_S_MAX = 0.02
STEP = {"assign": {"steps": "context.steps + 1"}}
NOTE = {"perform": {"name": "note", "data": {"step": "context.steps"}}}
TICK = {"30ms": {"actions": [{"assign": {"ticks": "context.ticks + 1"}}]}}
CHART = Chart.from_tree(
    {
        "name": "crash",
        "context": {name: {"type": "int", "default": 0} for name in ("steps", "noted", "ticks")},
        "initial": "odd",
        "on": {"done.effect.note": {"actions": [{"assign": {"noted": "context.noted + 1"}}]}},
        "states": {
            "odd": {"on": {"step": {"target": "even", "actions": [STEP, NOTE]}}, "after": TICK},
            "even": {"on": {"step": {"target": "odd", "actions": [STEP, NOTE]}}, "after": TICK},
        },
    }
)
"""Each step changes the state, asks for an effect, cancels a timer and sets another; each result and timer counts."""


async def serve(store_url: str, nats_url: str, performed: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    file = os.open(performed, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def note(call: EffectCall) -> str:
        await asyncio.sleep(random.uniform(0, HANDLER_S_MAX))  # Takes its time, so that it is killed half way, too.
        os.write(file, f"{call.effect_id}\n".encode())
        return call.effect_id

    async with Engine.open(store_url, charts=[CHART], nats=nats_url) as engine:
        engine.handler("note")(note)
        print("ready", flush=True)
        await ended.wait()


if __name__ == "__main__":
    print("loaded", flush=True)
    if sys.stdin.readline():
        asyncio.run(serve(*sys.argv[1:]))
