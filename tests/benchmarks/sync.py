"""What `sync_interval: always` costs at a nats-server: `python -m tests.benchmarks.sync [SECONDS]`.

Events as they are left at the JetStream door (500 bytes; each publisher waits for its ack) and facts as the history
stream takes them (`persist_mode: async`, one ack for a page of 500), with the sync and without, in turns.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from nats.aio.client import Client as NatsClient
from nats.js.api import StreamConfig

from statewright.adapters.nats.streams import EVENTS, HISTORY, replicated
from tests.adapters.nats.secured import server

PAYLOAD = b"x" * 500
PAGE = 500


async def events(nc: NatsClient, seconds: float, publishers: int) -> tuple[float, float]:
    """Messages a second, and the median wait for an ack in ms."""
    js, waits = nc.jetstream(timeout=30), list[float]()
    end = time.perf_counter() + seconds

    async def publish(number: int) -> None:
        while (began := time.perf_counter()) < end:
            await js.publish(f"statewright.events.i{number}", PAYLOAD)
            waits.append(time.perf_counter() - began)

    await asyncio.gather(*(publish(number) for number in range(publishers)))
    return len(waits) / seconds, statistics.median(waits) * 1_000


async def history(nc: NatsClient, seconds: float) -> float:
    """Messages a second."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for _ in range(PAGE - 1):
            await nc.publish("statewright.history.d.i", PAYLOAD)
        await nc.request("statewright.history.d.i", PAYLOAD, timeout=30)
        count += PAGE
    return count / seconds


async def measure(folder: Path, seconds: float) -> None:
    for turn in range(2):
        for sync in ("", ", sync_interval: always"):
            config = f'jetstream {{ store_dir: "STORE"{sync} }}\n'
            async with server(folder, config, f"s{turn}{len(sync)}") as address:
                nc = NatsClient()
                await nc.connect(f"nats://{address}")
                for stream in (EVENTS, HISTORY):
                    config_of: StreamConfig = replicated(stream)
                    await nc.jetstream().add_stream(config_of)
                one, wait = await events(nc, seconds, 1)
                many, _ = await events(nc, seconds, 100)
                facts = await history(nc, seconds)
                name = "always" if sync else "2 min "
                print(
                    f"sync {name}: events {one:,.0f}/s at 1 publisher ({wait:.2f} ms), {many:,.0f}/s at 100; ", end=""
                )
                print(f"history {facts:,.0f}/s")
                await nc.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(measure(Path(home), float(sys.argv[1]) if len(sys.argv) > 1 else 2.0))
