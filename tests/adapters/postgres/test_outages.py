"""A server that goes away and comes back under an engine."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from eventsourcing.persistence import OperationalError

from statewright.adapters.postgres.factory import URL, Factory
from statewright.engine.errors import UnavailableError
from statewright.engine.recorder import Changes
from tests.contracts.rows import event, instance
from tests.engine.charts import COUNTER
from tests.engine.worlds import World
from tests.postgres_server import PostgresServer, new_url, shared_server

OF_ENGINES = "FROM pg_stat_activity WHERE application_name = 'statewright'"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
async def test_an_engine_outlives_its_server(server: PostgresServer, tmp_path: Path, how: signal.Signals) -> None:
    world = World(tmp_path, COUNTER, url=server.new_schema_url())
    async with world:
        await world.engine.start("counter", id="c")
        await world.engine.send("c", "add", 1, event_id="e-1")
        server.stop(how)
        with pytest.raises(UnavailableError):
            await world.engine.send("c", "add", 1, event_id="e-2")
        with pytest.raises(UnavailableError):
            await world.engine.status("c")
        server.start()
        assert (await world.engine.send("c", "add", 1, event_id="e-2")).kind == "recorded"
        assert (await world.engine.send("c", "add", 1, event_id="e-1")).kind == "duplicate"
        assert (await world.engine.status("c")).context == '{"total":2,"seen":[1,1]}'


async def test_sessions_that_end_while_idle_cost_no_request(server: PostgresServer, tmp_path: Path) -> None:
    world = World(tmp_path, COUNTER, url=server.new_schema_url())
    async with world:
        await world.engine.start("counter", id="c")
        for n in range(3):
            ended = server.execute(f"SELECT count(pg_terminate_backend(pid, 5000)) {OF_ENGINES}")
            assert ended[0][0] != 0
            assert (await world.engine.send("c", "add", n)).kind == "recorded"


async def test_sessions_that_are_killed_under_load_lose_and_double_nothing(
    server: PostgresServer, tmp_path: Path
) -> None:
    """Each sender repeats an event with its id until it is acknowledged: the outcome of a commit that broke is what the
    log says."""
    world = World(tmp_path, COUNTER, url=server.new_schema_url())
    async with world:
        names = [f"c-{n}" for n in range(8)]
        await asyncio.gather(*(world.engine.start("counter", id=name) for name in names))
        sending = True

        async def send(name: str) -> int:
            sent = 0
            while sending:
                sent += 1
                while True:
                    try:
                        await world.engine.send(name, "add", 1, event_id=f"e-{sent}")
                        break
                    except UnavailableError:
                        continue
            return sent

        senders = [asyncio.create_task(send(name)) for name in names]
        for _ in range(12):
            await asyncio.to_thread(server.execute, f"SELECT pg_terminate_backend(pid) {OF_ENGINES}")
        sending = False
        for name, count in zip(names, await asyncio.gather(*senders), strict=True):
            assert (await world.engine.status(name)).sequence == count + 1


def test_a_session_that_was_lost_is_ended_before_anything_is_read(tmp_path: Path) -> None:
    """The connection breaks while the server still waits to commit: what is read after is final."""
    url = new_url()
    holder, writer = Factory({URL: url}), Factory({URL: url})
    holding, writing = holder.application_recorder(), writer.application_recorder()
    writing.insert_events([event("z", 1)])
    failures: list[Exception] = []

    def write() -> None:
        try:
            writing.insert_events([event("a", 1)], changes=Changes(instances=[instance()]))
        except OperationalError as error:
            failures.append(error)

    with holder.datastore.write() as cursor:
        cursor.execute("LOCK TABLE stored_events IN SHARE MODE")
        cursor.execute("SELECT 1")
        cursor.fetchall()
        thread = Thread(target=write)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while shared_server().execute(waiting) == [(0,)]:
            pass
        connection = writer.datastore._writer
        assert connection is not None
        with socket.socket(fileno=socket.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert len(failures) == 1
        assert writing.select_events("a") == []  # Its session is gone, though the lock is still held.
        assert shared_server().execute(waiting) == [(0,)]
    assert writing.select_events("a") == []
    writing.insert_events([event("a", 1)])
    assert holding.select_instance("a") is None
    holder.close()
    writer.close()
