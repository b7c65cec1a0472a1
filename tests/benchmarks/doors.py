"""Durable events a second through the NATS doors: engine, nats-server and client are three processes.

The request door: concurrent senders, each waiting for its reply. The JetStream door: a backlog that lies in the stream
is drained; the rate is the log's own, from the first to the last event recorded.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine import Engine, Outcome
from tests.benchmarks.workload import CHART, Run, approval, drive, start_many

READY_S = 20.0
DRAIN_S = 120.0


@asynccontextmanager
async def serving(store: Path, nats: str) -> AsyncIterator[Process]:
    """`statewright serve` on `store`, as in production, without handlers."""
    command = ("-m", "statewright.adapters.cli", "serve", "--json", "--store", f"sqlite:///{store}", "--nats", nats)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, "--chart", str(CHART), stdout=PIPE)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), READY_S)
        if not line:
            raise AssertionError("expected `statewright serve` to become ready, but it ended")
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def prepared(store: Path, instances: int) -> list[str]:
    async with Engine.open(f"sqlite:///{store}", charts=[approval()], run_due=False) as engine:
        return await start_many(engine, instances)


async def request_door(folder: Path, senders: int, seconds: float) -> Run:
    """`senders` concurrent senders over one connection."""
    store = folder / f"requests-{senders}.db"
    ids = await prepared(store, senders)
    server = await EmbeddedServer.start(folder / f"nats-{senders}")
    try:
        async with serving(store, credentials(server)), await Client.connect(server.endpoint, timeout_s=30) as client:

            async def send(instance_id: str, name: str, data: Any, event_id: str) -> Outcome:
                return await client.send(instance_id, name, data, event_id=event_id)

            await drive(send, ids, min(0.5, seconds / 4))
            return await drive(send, ids, seconds)
    finally:
        await server.stop()


async def jetstream_door(folder: Path, instances: int, events: int) -> float:
    """Events a second at which a backlog of `events` is drained from the stream, from the log's own times."""
    store = folder / "jetstream.db"
    ids = await prepared(store, instances)
    server = await EmbeddedServer.start(folder / "nats-jetstream")
    try:
        async with serving(store, credentials(server)):
            pass  # Makes the stream.
        async with await Client.connect(server.endpoint, timeout_s=60) as client:
            await _publish(client, ids, events)
        before = _last_position(store)
        async with serving(store, credentials(server)):
            await _drained(store, before + events)
    finally:
        await server.stop()
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as rows:
        query = "SELECT json_extract(state, '$.time'), topic FROM stored_events WHERE id > ? ORDER BY id"
        times = [time for time, topic in rows.execute(query, (before,)) if topic == "transition_taken"]
    if len(times) != events:
        raise AssertionError(f"expected {events} events recorded as transitions, got {len(times)}")
    return (events - 1) / ((times[-1] - times[0]) / 1e9)


async def _publish(client: Client, ids: list[str], events: int) -> None:
    """The loop's events, in order for each instance, published a page at a time."""
    turns = [
        (instance_id, name, {"by": by}, f"{turn}-{name}")
        for turn in range(events // (2 * len(ids)))
        for name, by in (("request_changes", "bob"), ("resubmit", "ann"))
        for instance_id in ids
    ]
    if len(turns) != events:
        raise AssertionError(f"expected a multiple of {2 * len(ids)} events, got {events}")
    for first in range(0, events, len(ids)):
        page = turns[first : first + len(ids)]
        await asyncio.gather(*(client.publish(who, name, data, event_id=key) for who, name, data, key in page))


def _last_position(store: Path) -> int:
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as rows:
        return int(rows.execute("SELECT max(id) FROM stored_events").fetchone()[0])


async def _drained(store: Path, position: int) -> None:
    async with asyncio.timeout(DRAIN_S):
        while _last_position(store) < position:  # noqa: ASYNC110 (it is another process that works)
            await asyncio.sleep(0.1)


def credentials(server: EmbeddedServer) -> str:
    """The server's URL with what it takes to connect."""
    endpoint = server.endpoint
    scheme, _, rest = endpoint.url.partition("://")
    return f"{scheme}://{endpoint.user}:{endpoint.password}@{rest}" if endpoint.user else endpoint.url
