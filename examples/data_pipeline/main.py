"""Runs the pipeline over a CSV file of 5,000 orders, some of them wrong, and shows how far it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from statewright.engine.workflows import ExecutionStatus, ExecutionTimeout, Orchestrator
from statewright.examples.command import run
from statewright.examples.data_pipeline.workflow import pipeline
from statewright.examples.files import write

ORDERS = 5_000
WIDTH = 40
REDRAWN_EVERY_S = 0.05


async def main(folder: Path, store: str) -> dict[str, Any]:
    write(folder / "orders.csv", orders())
    async with Orchestrator.open(store, workflows=[pipeline]) as orchestrator:
        # The same id and input again is the same execution: started again after a crash, this goes on with it.
        source = {"folder": str(folder), "source": "orders.csv"}
        execution = await orchestrator.execute("data_pipeline", source, id="orders")
        status = await watch(orchestrator, execution)
        saved = await orchestrator.step_result(execution, "save")
    print(f"{status.status}: {saved.data}")
    return {"status": status.status, "saved": saved.data}


async def watch(orchestrator: Orchestrator, execution: str) -> ExecutionStatus:
    """Its status at the end; until then, on a terminal, how far it is."""
    if not sys.stdout.isatty():
        return await orchestrator.wait(execution)
    while True:
        try:
            status = await orchestrator.wait(execution, timeout=REDRAWN_EVERY_S)
        except ExecutionTimeout:
            draw(await orchestrator.status(execution))
        else:
            draw(status)
            print()
            return status


def draw(status: ExecutionStatus) -> None:
    print(f"\r{bar(status)}", end="\033[K", flush=True)


def bar(status: ExecutionStatus) -> str:
    """`[########------------]  40 % transform`."""
    done = round(status.progress * WIDTH)
    doing = ", ".join(status.current_steps) or status.status
    return f"[{'#' * done}{'-' * (WIDTH - done)}] {status.progress:4.0%} {doing}"


def orders() -> str:
    """The orders, each time the same: every 50th has a price that is none, every 70th is there twice."""
    lines = ["number,customer,country,quantity,price"]
    for number in range(1, ORDERS + 1):
        customer, country = f" customer {number % 97} ", ("ch", " DE", "fr ")[number % 3]
        price = "unknown" if number % 50 == 0 else f"{number % 89}.{number % 100:02}"
        line = f"{number},{customer},{country},{number % 7 + 1},{price}"
        lines += [line, line] if number % 70 == 0 else [line]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main, "Orders from a CSV file into a database, in five steps.")
