"""PostgreSQL: a server started for the occasion, with `fsync` on and its defaults but for the size of its cache.

The limits beside the engine's figures, on the same server in the same run: a commit of one row by psycopg, and rows of
the size of our events into one table by one `unnest` insert a commit.
By hand: `python -m tests.benchmarks.run --only postgres`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg

from statewright.adapters.postgres import arrays
from statewright.adapters.postgres.arrays import Blobs, Integers, Texts
from tests.benchmarks.direct import drive_store
from tests.benchmarks.raw_sqlite import STATE_BYTES, _id, _state
from tests.benchmarks.workload import Run
from tests.postgres_server import PostgresServer

BATCHES = (1, 100, 1_000)
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "4GB"}


def raw_inserts(url: str, batch: int, seconds: float) -> Run:
    """Commits of `batch` rows into a table with an identity, one statement each."""
    with psycopg.connect(url, autocommit=True) as connection:
        arrays.register(connection.adapters)
        connection.execute("DROP TABLE IF EXISTS raw")
        connection.execute(
            "CREATE TABLE raw (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, originator_id text,"
            " originator_version bigint, topic text, state bytea)"
        )
        insert = (
            "INSERT INTO raw (originator_id, originator_version, topic, state) SELECT * FROM unnest(%s, %s, %s, %s)"
        )
        values = (
            Texts(map(_id, range(batch))),
            Integers([1] * batch),
            Texts(["transition_taken"] * batch),
            Blobs([_state(STATE_BYTES).encode()] * batch),
        )
        return _timed(lambda: connection.execute(insert, values, prepare=True), batch, seconds)


def _timed(commit: Callable[[], object], batch: int, seconds: float) -> Run:
    for _ in range(20):
        commit()
    latencies: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds:
        commit()
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return Run(len(latencies) * batch, now - began, latencies)


def measure(seconds: float, check: Callable[[str], None], shown: Callable[[Run], str]) -> None:
    server = PostgresServer(**DURABLE)
    try:
        server.start()
        print("\nPostgreSQL: rows/s and p50, p99 of a commit in ms, one table, one connection")
        raw = {batch: raw_inserts(server.url(), batch, seconds) for batch in BATCHES}
        for batch in BATCHES:
            print(f"{batch:>8} {shown(raw[batch]):>32}")
        print("Engine.send on PostgreSQL, document approval: events/s, with p50 and p99 of the acknowledgement in ms")
        for senders in (1, 100, 1_000):
            url = server.new_schema_url()
            run = asyncio.run(drive_store(url, senders, seconds))
            print(f"{senders:>8} {shown(run):>32}")
            check(url)
            if senders == 1:
                print(
                    f"         p50 is {run.percentile_ms(50) / raw[1].percentile_ms(50):.1f} times the commit's, bar 3"
                )
            if senders == 100:
                print(f"         {run.rate:,.0f} events/s, bar 15,000; {run.rate / raw[100].rate:.1%} of one table")
    finally:
        server.close()
