"""Analyses two tables of measurements: a small one as a whole, a large one by a sample."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from statewright.engine.workflows import Orchestrator
from statewright.examples.command import run
from statewright.examples.conditional_analysis.steps import COLUMN, STEPS
from statewright.examples.files import write
from statewright.statecharts.workflows import load_workflow

WORKFLOW = load_workflow(Path(__file__).with_name("workflow.yaml"))
LIMIT = 1_000
"""Of a table with more rows a sample is analysed."""
TOLERANCE = 20.0
TABLES = {"small": (200, 10.0), "large": (5_000, 30.0)}
"""How many rows each has, and how widely they are spread."""


async def main(folder: Path, store: str) -> dict[str, Any]:
    for name, (rows, spread) in TABLES.items():
        write(folder / f"{name}.csv", measurements(name, rows, spread))
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=STEPS) as orchestrator:
        # Under ids of our own: started again after a crash, these are the executions that there are already.
        for name in TABLES:
            what = {"folder": folder, "source": f"{name}.csv", "limit": LIMIT, "tolerance": TOLERANCE}
            await orchestrator.execute("conditional_analysis", what, id=name)
        await asyncio.gather(*(orchestrator.wait(name) for name in TABLES))
        return {name: await show(orchestrator, name) for name in TABLES}


async def show(orchestrator: Orchestrator, execution: str) -> dict[str, Any]:
    """Prints which way an analysis went; returns it, without the times."""
    status = await orchestrator.status(execution)
    results = await orchestrator.step_results(execution)
    print(f"{execution}: {status.status}")
    for step, result in results.items():
        print(f"  {step:<8} {result.status:<9} {result.data if result.status == 'completed' else ''}".rstrip())
    return {
        "status": status.status,
        "error": status.error,
        "steps": {step: [result.status, result.data] for step, result in results.items()},
    }


def measurements(name: str, rows: int, spread: float) -> str:
    """The table, each time the same."""
    lots = random.Random(name)
    return "\n".join([COLUMN, *(f"{lots.gauss(100, spread):.2f}" for _ in range(rows)), ""])


if __name__ == "__main__":
    run(main, "How many rows there are decides which analysis runs.")
