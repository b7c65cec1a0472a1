"""Durable events a second through `Engine.send`, by number of concurrent senders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from statewright.engine import Engine, Outcome
from tests.benchmarks.workload import Run, approval, drive, start_many


async def direct(folder: Path, senders: int, seconds: float) -> Run:
    """A fresh store, `senders` instances with one sender each. The store is left for `verify_store`."""
    async with Engine.open(url(folder, senders), charts=[approval()], run_due=False) as engine:
        ids = await start_many(engine, senders)

        async def send(instance_id: str, name: str, data: Any, event_id: str) -> Outcome:
            return await engine.send(instance_id, name, data, event_id=event_id)

        await drive(send, ids, min(0.5, seconds / 4))  # Warm: caches filled, files grown.
        return await drive(send, ids, seconds)


def url(folder: Path, senders: int) -> str:
    return f"sqlite:///{folder}/direct-{senders}.db"
