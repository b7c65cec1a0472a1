"""The kill test of workers on one PostgreSQL and one nats-server.

At random moments, while clients send, workers die by SIGKILL and come back, or are stopped and woken (SIGSTOP,
SIGCONT); the nats-server dies by SIGKILL; so does a process of PostgreSQL, at which all of it starts anew. Nothing
acknowledged is lost or recorded twice.

By hand, with other moments and more blows:

    STATEWRIGHT_CRASH_SEED=7 STATEWRIGHT_CRASH_KILLS=200 pytest -s tests/crash/test_kill_workers.py
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine.tasks import end
from statewright.engine.verify import verify_store
from tests.crash.processes import EngineProcesses, until
from tests.crash.test_kill import (
    EVENTS,
    INSTANCES,
    PROGRAM,
    PUBLISHED,
    all_facts,
    check_acknowledged,
    check_effects,
    check_instances,
    report,
    work,
)
from tests.crash.workload import Workload
from tests.postgres_server import PostgresServer

SEED = int(os.environ.get("STATEWRIGHT_CRASH_SEED", "20240401"))
WORKERS = 2
BLOWS = int(os.environ.get("STATEWRIGHT_CRASH_KILLS", "15"))
KINDS = ("kill", "nats", "kill", "stop", "postgres")
LIMIT_S = 12.0 * max(15, BLOWS)
REQUEST_TIMEOUT_S = 3.0


async def strike(
    workers: list[EngineProcesses], workload: Workload, nats: EmbeddedServer, postgres: PostgresServer
) -> list[str]:
    """What was done to whom, with the number of requests that were unacknowledged then."""
    lots = random.Random(SEED)
    blows: list[str] = []
    for number in range(BLOWS):
        await workload.until_acknowledged(min(len(workload.acknowledged) + lots.randrange(20, 60), INSTANCES + EVENTS))
        await asyncio.sleep(lots.uniform(0, 0.02))
        victim = number // len(KINDS) % WORKERS
        kind, pending = KINDS[number % len(KINDS)], len(workload.unacknowledged)
        if kind == "stop":
            workers[victim].pause()
            await asyncio.sleep(lots.uniform(3.5, 4.5))  # Longer than a lease: it is taken for dead meanwhile.
            workers[victim].wake()
        elif kind == "kill":
            workers[victim].strike_dead()
        elif kind == "nats":
            os.kill(nats.pid, signal.SIGKILL)
        else:
            kill_a_backend(postgres)
        blows.append(f"{kind} {victim if kind in ('stop', 'kill') else ''}({pending})")
    return blows


def kill_a_backend(postgres: PostgresServer) -> None:
    """SIGKILL a process that serves a worker: PostgreSQL then ends all the others, recovers, and takes connections."""
    others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with suppress(psycopg.OperationalError):  # It may still be recovering from the last time.
        pids = [int(str(row[0])) for row in postgres.execute(others)]
        if pids:
            os.kill(pids[0], signal.SIGKILL)


def is_at_rest(url: str) -> bool:
    """All effects have ended and no timer is left."""
    with suppress(psycopg.OperationalError), psycopg.connect(url) as connection:  # It may be recovering.
        query = (
            "SELECT (SELECT count(*) FROM timers), (SELECT count(*) FROM effects WHERE state IN ('pending', 'running'))"
        )
        return connection.execute(query).fetchone() == (0, 0)
    return False


@pytest.mark.integration
async def test_what_was_acknowledged_is_recorded_once_whatever_becomes_of_the_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    postgres = PostgresServer()
    postgres.start()
    store, performed = postgres.new_schema_url(), tmp_path / "performed"
    async with asyncio.timeout(LIMIT_S):
        server = await EmbeddedServer.start(tmp_path / "server")
        where = server.endpoint
        url = where.url.replace("://", f"://{where.user}:{where.password}@")
        workers = [
            EngineProcesses(PROGRAM, store, url, str(performed), log=tmp_path / f"worker-{n}.log")
            for n in range(WORKERS)
        ]
        client = await Client.connect(where, timeout_s=REQUEST_TIMEOUT_S)
        workload = Workload(client)
        upkeep: list[asyncio.Task[None]] = []
        try:
            for worker in workers:
                await worker.start()
            upkeep = [asyncio.create_task(worker.keep_up()) for worker in workers]
            starts, events = work()
            workload.put(starts)
            await workload.until_acknowledged(len(starts))
            workload.put(events)
            blows = await strike(workers, workload, server, postgres)
            await workload.until_acknowledged(INSTANCES + EVENTS + PUBLISHED)
            await until(lambda: is_at_rest(store), looking_every_s=0.2)
            await end(*upkeep)
            await asyncio.gather(*(worker.stop() for worker in workers))
        finally:
            await end(*upkeep)
            await workload.close()
            await client.close()
            for worker in workers:
                await worker.close()
            await server.stop()
    found, facts = verify_store(store), await all_facts(store)
    effects = Counter(performed.read_text().split())
    with capsys.disabled():
        print(f"\nworkers: {', '.join(blows)}")
        report(time.monotonic() - began, [], workload, found, effects)
    postgres.close()
    assert found.differences == []
    check_acknowledged(workload, facts)
    check_instances(facts)
    check_effects(found, facts, effects)
