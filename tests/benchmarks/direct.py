"""Durable events a second through `Engine.send`, by number of concurrent senders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from statewright.engine import Engine, Outcome
from tests.benchmarks.workload import APPROVAL_TURN, SWITCH_TURN, Run, approval, drive, start_many, switch


async def direct(folder: Path, senders: int, seconds: float, *, plain: bool = False) -> Run:
    """A fresh store, `senders` instances with one sender each, of the approval or (`plain`) of the switch. The store is
    left for `verify_store`."""
    chart = switch() if plain else approval()
    return await drive_store(url(folder, chart.name, senders), senders, seconds, plain=plain)


async def drive_store(store: str, senders: int, seconds: float, *, plain: bool = False) -> Run:
    """The same on the fresh store `store`."""
    chart = switch() if plain else approval()
    turn = SWITCH_TURN if plain else APPROVAL_TURN
    async with Engine.open(store, charts=[chart], run_due=False) as engine:
        if plain:
            ids = [f"s-{number}" for number in range(senders)]
            await asyncio.gather(*(engine.start(chart.name, id=one) for one in ids))
        else:
            ids = await start_many(engine, senders)

        async def send(instance_id: str, name: str, data: Any, event_id: str) -> Outcome:
            return await engine.send(instance_id, name, data, event_id=event_id)

        await drive(send, ids, min(0.5, seconds / 4), turn)  # Warm: caches filled, files grown.
        return await drive(send, ids, seconds, turn)


def url(folder: Path, chart: str, senders: int) -> str:
    return f"sqlite:///{folder}/{chart}-{senders}.db"
