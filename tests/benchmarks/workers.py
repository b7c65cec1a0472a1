"""One and two workers on one PostgreSQL and one nats-server, under the same load.

    python -m tests.benchmarks.workers [--seconds 5] [--rounds 3] [--senders 200]

The document approval through the request door; the workers are `statewright serve`, without handlers. PostgreSQL
syncs. Rounds are interleaved. Beside the rates: microseconds of CPU an event of each process, the backends of
PostgreSQL together, so that it can be seen what the machine's cores are spent on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
from msgspec.structs import replace

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine import Engine, Outcome
from statewright.engine.verify import verify_store
from tests.benchmarks.doors import Served, credentials, serving
from tests.benchmarks.postgres import DURABLE
from tests.benchmarks.workload import approval, cpu_s, drive, start_many
from tests.postgres_server import PostgresServer

SETTLE_S = 5.0
"""Until the partitions are shared."""


async def measure(folder: Path, postgres: PostgresServer, workers: int, senders: int, seconds: float) -> Served:
    url = postgres.new_schema_url()
    async with Engine.open(url, charts=[approval()], run_due=False) as engine:
        ids = await start_many(engine, senders)
    server = await EmbeddedServer.start(Path(tempfile.mkdtemp(dir=folder)))
    try:
        async with AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(serving(url, credentials(server), "--worker", f"w{number}"))
                for number in range(workers)
            ]
            client = await stack.enter_async_context(await Client.connect(server.endpoint, timeout_s=30))

            async def send(instance_id: str, name: str, data: Any, event_id: str) -> Outcome:
                outcome = await client.send(instance_id, name, data, event_id=event_id)
                # Handed on to a worker that took longer than two seconds, and decided by both.
                return replace(outcome, kind="recorded") if outcome.kind == "duplicate" else outcome

            await drive(send, ids, SETTLE_S)
            groups = {
                "workers": [process.pid for process in processes],
                "PostgreSQL": _family(postgres.pid),
                "nats-server": [server.pid],
                "client": [os.getpid()],
            }
            before = {name: sum(map(cpu_s, pids)) for name, pids in groups.items()}
            run = await drive(send, ids, seconds)
            cpu = {name: (sum(map(cpu_s, pids)) - before[name]) / run.events * 1e6 for name, pids in groups.items()}
    finally:
        await server.stop()
    found = verify_store(url)
    if not found.is_true:
        raise SystemExit(f"the store is not true to itself: {found.differences[:5]}")
    return Served(run, cpu)


def _family(pid: int) -> list[int]:
    """A process and its children, all the way down."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each timed run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--senders", type=int, default=200)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="statewright-bench-"))
    postgres = PostgresServer(**DURABLE)
    rates: dict[int, list[float]] = {1: [], 2: []}
    try:
        postgres.start()
        for _ in range(given.rounds):
            for workers, measured in rates.items():
                run, cpu = uvloop.run(measure(folder, postgres, workers, given.senders, given.seconds))
                measured.append(run.rate)
                shares = ", ".join(f"{name} {us:,.0f}" for name, us in cpu.items())
                p50, p99 = run.percentile_ms(50), run.percentile_ms(99)
                print(f"{workers} workers: {run.rate:,.0f} events/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms", end="; ")
                print(f"us of CPU an event: {shares}")
    finally:
        postgres.close()
        shutil.rmtree(folder)
    one, two = (statistics.median(measured) for measured in rates.values())
    print(
        f"two workers do {two / one:.2f} times what one does ({os.cpu_count()} cores; medians of {given.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
