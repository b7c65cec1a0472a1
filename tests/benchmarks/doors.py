"""Durable events a second through the NATS doors: engine, nats-server and client are three processes.

The request door: concurrent senders, each waiting for its reply. The JetStream door: a backlog that lies in the stream
is drained; the rate is the log's own, from the first to the last event recorded. Beside it the limit: the same messages
pulled and acked by nats-py, on uvloop as the engine is, with nothing done about them.
By hand: `python -m tests.benchmarks.run --only doors`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine import Engine, Outcome
from statewright.engine.verify import verify_store
from tests.benchmarks.workload import CHART, Run, approval, cpu_s, drive, start_many

PULLED = 256
"""Messages asked for at a time, as the engine does."""
READY_S = 60.0
DRAIN_S = 120.0


@asynccontextmanager
async def serving(store: Path | str, nats: str, *arguments: str) -> AsyncIterator[Process]:
    """`statewright serve` on `store` (a file, or a URL), as in production, without handlers."""
    url = store if isinstance(store, str) else f"sqlite:///{store}"
    command = ("-m", "statewright.adapters.cli", "serve", "--json", "--store", url, "--nats", nats, *arguments)
    quiet = {**os.environ, "STATEWRIGHT_LOG_LEVEL": "error"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--chart", str(CHART), stdout=PIPE, env=quiet
    )
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


class Served(NamedTuple):
    """What one run through a door has come to."""

    run: Run
    cpu_us: dict[str, float]
    """Microseconds of CPU an event, by process."""


async def request_door(folder: Path, senders: int, seconds: float) -> Served:
    """`senders` concurrent senders over one connection."""
    store = folder / f"requests-{senders}.db"
    ids = await prepared(store, senders)
    server = await EmbeddedServer.start(folder / f"nats-{senders}")
    try:
        async with (
            serving(store, credentials(server)) as process,
            await Client.connect(server.endpoint, timeout_s=30) as client,
        ):

            async def send(instance_id: str, name: str, data: Any, event_id: str) -> Outcome:
                return await client.send(instance_id, name, data, event_id=event_id)

            await drive(send, ids, min(0.5, seconds / 4))
            pids = {"serve": process.pid, "nats-server": server.pid, "client": os.getpid()}
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            run = await drive(send, ids, seconds)
            return Served(run, {name: (cpu_s(pid) - before[name]) / run.events * 1e6 for name, pid in pids.items()})
    finally:
        await server.stop()


async def jetstream_door(folder: Path, instances: int, events: int) -> tuple[float, float]:
    """Events a second at which a backlog of `events` is drained from the stream, from the log's own times; and
    microseconds of the engine's CPU an event."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    store = folder / "jetstream.db"
    ids = await prepared(store, instances)
    server = await EmbeddedServer.start(folder / "nats")
    try:
        async with serving(store, credentials(server)):
            pass  # Makes the stream.
        async with await Client.connect(server.endpoint, timeout_s=60) as client:
            await _publish(client, ids, events)
        before = _last_position(store)
        async with serving(store, credentials(server)) as process:
            cpu, drained = cpu_s(process.pid), _last_position(store) - before
            await _drained(store, before + events)
            cpu_us = (cpu_s(process.pid) - cpu) / (events - drained) * 1e6
    finally:
        await server.stop()
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as rows:
        query = "SELECT json_extract(state, '$.time'), topic FROM stored_events WHERE id > ? ORDER BY id"
        times = [time for time, topic in rows.execute(query, (before,)) if topic == "transition_taken"]
    if len(times) != events:
        raise AssertionError(f"expected {events} events recorded as transitions, got {len(times)}")
    found = verify_store(f"sqlite:///{store}")
    if not found.is_true:
        raise AssertionError(f"the store is not true to itself: {found.differences[:5]}")
    return (events - 1) / ((times[-1] - times[0]) / 1e9), cpu_us


async def bare_pull(folder: Path, instances: int, events: int) -> tuple[float, float]:
    """The same for nats-py alone: as many messages of the same kind, pulled and acked."""
    server = await EmbeddedServer.start(Path(tempfile.mkdtemp(dir=folder)) / "nats")
    try:
        async with await Client.connect(server.endpoint, timeout_s=60) as client:
            js = client.connection.nc.jetstream(timeout=60)
            await js.add_stream(name="BARE", subjects=["statewright.events.*"])
            await _publish(client, [f"d-{number}" for number in range(instances)], events)
            subscription = await js.pull_subscribe("statewright.events.*", "bare", stream="BARE")
            cpu, began, acked = time.process_time(), time.perf_counter(), 0
            while acked < events:
                for message in await subscription.fetch(PULLED, timeout=10):
                    await message.ack()
                    acked += 1
            await client.connection.nc.flush()
            return acked / (time.perf_counter() - began), (time.process_time() - cpu) / acked * 1e6
    finally:
        await server.stop()


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
