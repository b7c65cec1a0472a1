"""The program that the transactions' kill test kills: `transaction_process.py STORE LOG`.

Three executions of three steps each, in one transaction, which is rolled back once all are prepared; each start of the
program says the same again. Whatever a step does is a line in LOG. It says "loaded", waits for a line on stdin, opens
the store, says "ready".
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from statewright.adapters.sqlite import store  # noqa: F401  (loaded before it is needed)
from statewright.engine.workflows import InvalidState, Orchestrator, StepCall
from statewright.statecharts.workflows import Workflow

STEPS = "abc"
EXECUTIONS = ("x", "y", "z")
LOG = Path(sys.argv[2] if len(sys.argv) > 2 else "log")


def play(call: StepCall) -> str:
    with LOG.open("a") as log:
        log.write(f"{call.execution_id} {call.step}\n")
    return call.step


def workflow() -> Workflow:
    found = Workflow("w")
    for step in STEPS:
        found.add_step(id=step, function=play)
        found.add_rollback_step(step, id=f"undo_{step}", function=play)
    return found


async def serve(store_url: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Orchestrator.open(store_url, workflows=[workflow()]) as orchestrator:
        print("ready", flush=True)
        await orchestrator.begin_transaction("1h", id="t")
        try:
            for execution in EXECUTIONS:
                await orchestrator.execute("w", id=execution, transaction="t")
        except InvalidState:
            pass  # It is rolled back already.
        else:
            for execution in EXECUTIONS:
                await orchestrator.wait(execution)
        await orchestrator.rollback_transaction("t", reason="drawn")
        await ended.wait()


if __name__ == "__main__":
    print("loaded", flush=True)
    if sys.stdin.readline():
        asyncio.run(serve(sys.argv[1]))
