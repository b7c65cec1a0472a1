"""The kill test of workers on one PostgreSQL and one nats-server.

They die by SIGKILL and come back, and are stopped and woken (SIGSTOP, SIGCONT), at random moments while clients send;
nothing acknowledged is lost or recorded twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
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
from tests.postgres_server import new_url

SEED = 20_240_401
WORKERS = 2
BLOWS = 12
LIMIT_S = 180.0
REQUEST_TIMEOUT_S = 3.0


async def strike(workers: list[EngineProcesses], workload: Workload) -> list[str]:
    """What was done to whom, with the number of requests that were unacknowledged then."""
    lots = random.Random(SEED)
    blows: list[str] = []
    for number in range(BLOWS):
        await workload.until_acknowledged(min(len(workload.acknowledged) + lots.randrange(20, 60), INSTANCES + EVENTS))
        await asyncio.sleep(lots.uniform(0, 0.02))
        victim = number % WORKERS
        pending = len(workload.unacknowledged)
        if number % 3 == 2:
            workers[victim].pause()
            await asyncio.sleep(lots.uniform(3.5, 4.5))  # Longer than a lease: it is taken for dead meanwhile.
            workers[victim].wake()
            blows.append(f"stop {victim} ({pending})")
        else:
            await workers[victim].kill()
            await workers[victim].start(until_ready=False)
            blows.append(f"kill {victim} ({pending})")
    return blows


def is_at_rest(url: str) -> bool:
    """All effects have ended and no timer is left."""
    with psycopg.connect(url) as connection:
        query = (
            "SELECT (SELECT count(*) FROM timers), (SELECT count(*) FROM effects WHERE state IN ('pending', 'running'))"
        )
        return connection.execute(query).fetchone() == (0, 0)


@pytest.mark.integration
async def test_what_was_acknowledged_is_recorded_once_whatever_becomes_of_the_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    store, performed = new_url(), tmp_path / "performed"
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
        try:
            for worker in workers:
                await worker.start()
            starts, events = work()
            workload.put(starts)
            await workload.until_acknowledged(len(starts))
            workload.put(events)
            blows = await strike(workers, workload)
            await workload.until_acknowledged(INSTANCES + EVENTS + PUBLISHED)
            await until(lambda: is_at_rest(store), looking_every_s=0.2)
            await asyncio.gather(*(worker.stop() for worker in workers))
        finally:
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
    assert found.differences == []
    check_acknowledged(workload, facts)
    check_instances(facts)
    check_effects(found, facts, effects)
