"""Approvals that are driven by what others publish over NATS: `python main.py [FOLDER] [--store URL]`."""

import asyncio
from pathlib import Path
from typing import Any

from statewright.adapters.nats.client import Client
from statewright.engine import Engine
from statewright.examples.command import run
from statewright.examples.reactive_approval.handlers import register
from statewright.examples.reactive_approval.world import AMOUNTS, play
from statewright.statecharts import load_chart

CHART = load_chart(Path(__file__).with_name("chart.yaml"))
PATIENCE_S = 60


async def main(folder: Path, store: str) -> dict[str, list[str]]:
    """Returns what has happened to each order."""
    async with Engine.open(store, charts=[CHART], nats="embedded") as engine:
        register(engine, folder)
        async with await Client.connect(engine.doors.endpoint) as client, asyncio.timeout(PATIENCE_S):
            for order in AMOUNTS:  # The same start again is the instance that there is.
                await client.start("reactive_approval", {"requester": "ann"}, id=order)
            facts = await play(client.connection.nc)
    stories = {order: [told(fact) for fact in found] for order, found in facts.items()}
    for order, story in stories.items():
        print(order, *story, sep="\n    ")
    return stories


def told(fact: dict[str, Any]) -> str:
    event = fact.get("trigger", {}).get("name", "start")
    if fact["type"] == "event_refused":
        return f"{event}: refused, {fact['reason']}"
    return f"{event} -> {', '.join(fact['entered'])}"


if __name__ == "__main__":
    run(main, "Have two orders approved by what a scanner, people and a calendar publish.")
