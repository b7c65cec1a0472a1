"""A server is stopped while it works: what was acknowledged is there, what was accepted is answered, and it ends."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import nats.errors
import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import find_endpoint
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine.errors import UnavailableError
from statewright.engine.verify import verify_store
from tests.adapters.cli.processes import Server, server
from tests.adapters.nats.support import url_of

pytestmark = pytest.mark.integration

CHART = """\
name: counter
context: {total: {type: int, default: 0}}
initial: counting
states:
  counting:
    on:
      add: {actions: [{assign: {total: context.total + 1}}, emit: {subject: counter.added, data: context.total}]}
      work: {actions: [{perform: work}]}
"""
HANDLERS = """\
import asyncio, time

async def for_ever(call):
    print("begun", flush=True)
    await asyncio.sleep(3600)

def in_a_thread(call):
    print("begun", flush=True)
    time.sleep(3600)

async def stubborn(call):
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

FOR_EVER = {"work": for_ever}
IN_A_THREAD = {"work": in_a_thread}
STUBBORN = {"work": stubborn}
"""
SENDERS = 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chart.yaml").write_text(CHART)
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


def effects(folder: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(folder / "statewright.db") as connection:
        return connection.execute("SELECT state, attempt FROM effects WHERE kind = 'perform'").fetchall()


async def test_under_load_nothing_acknowledged_is_lost_and_nothing_accepted_is_left_unanswered(folder: Path) -> None:
    """Senders send until somebody tells them that there is no engine any more. A request that met silence would end in
    a timeout, which is none of the ends that are expected."""
    acknowledged: list[str] = []
    ends: Counter[str] = Counter()
    bus = await EmbeddedServer.start(folder / "bus")
    url = url_of(bus.endpoint)
    try:
        with server(folder, "--chart", "chart.yaml", "--nats", url) as running:
            async with await Client.connect(url, timeout_s=20) as client:
                for number in range(SENDERS):
                    await client.start("counter", id=f"c-{number}")

                async def send(number: int) -> None:
                    count = 0
                    while True:
                        event_id = f"e-{number}-{(count := count + 1)}"
                        try:
                            await client.send(f"c-{number}", "add", event_id=event_id)
                        except UnavailableError as error:
                            ends[
                                "gone" if isinstance(error.__cause__, nats.errors.NoRespondersError) else str(error)
                            ] += 1
                            return
                        acknowledged.append(event_id)
                        if len(acknowledged) == 20 * SENDERS:
                            running.signal(signal.SIGTERM)

                await asyncio.gather(*(send(number) for number in range(SENDERS)))
            assert await asyncio.to_thread(running.ended) == 0
            said = [line["message"] for line in running.lines if line["level"] in ("warning", "error")]
            assert [message for message in said if "nats-cluster.md" not in message] == []
    finally:
        await bus.stop()

    assert ends == {"gone": SENDERS}
    with sqlite3.connect(folder / "statewright.db") as connection:
        recorded = {row[0] for row in connection.execute("SELECT event_id FROM inbox WHERE event_id LIKE 'e-%'")}
        totals = connection.execute("SELECT sum(context ->> 'total') FROM instances").fetchone()[0]
        positions = dict(connection.execute("SELECT application_name, max(notification_id) FROM tracking GROUP BY 1"))
        end = connection.execute("SELECT max(id) FROM stored_events").fetchone()[0]
    assert recorded == set(acknowledged), "whoever was recorded has heard of it, and the other way round"
    assert totals == len(acknowledged)
    assert positions["metrics"] == positions["nats-history"] == end, "projections and history have taken in everything"
    assert verify_store(f"sqlite:///{folder}/statewright.db").differences == []


@pytest.mark.parametrize("handlers", ["FOR_EVER", "IN_A_THREAD"])
async def test_an_effect_that_does_not_end_holds_nobody_up(folder: Path, handlers: str) -> None:
    arguments = ("--chart", "chart.yaml", "--handlers", f"handlers.py:{handlers}", "--shutdown-timeout", "500ms")
    with server(folder, *arguments) as running:
        await work(folder, running)
        running.signal(signal.SIGTERM)
        assert running.ended() == 0
        assert "is put back" in running.until_said("is put back")["message"]
    assert effects(folder) == [("pending", 1)]


async def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    arguments = ("--chart", "chart.yaml", "--handlers", "handlers.py:FOR_EVER", "--shutdown-timeout", "1h")
    with server(folder, *arguments) as running:
        await work(folder, running)
        running.signal(signal.SIGTERM)
        running.until_said("SIGTERM: coming to rest, within 3600 s")
        running.signal(signal.SIGTERM)
        assert running.ended() == 128 + signal.SIGTERM
    assert effects(folder) == [("running", 1)], "the next run puts it back"


async def test_time_ends_what_cannot_be_stopped(folder: Path) -> None:
    arguments = ("--chart", "chart.yaml", "--handlers", "handlers.py:STUBBORN", "--shutdown-timeout", "100ms")
    with server(folder, *arguments) as running:
        await work(folder, running)
        running.signal(signal.SIGINT)
        assert running.ended() == 1
        running.until_said("not at rest after 10.1 s: ending; the next run does the rest")


async def work(folder: Path, running: Server) -> None:
    """Have an effect begun."""
    endpoint = find_endpoint(folder / "statewright.db.endpoint")
    assert endpoint is not None
    async with await Client.connect(endpoint) as client:
        await client.start("counter", id="c")
        await client.send("c", "work")
    assert running.process.stdout is not None
    assert await asyncio.to_thread(running.process.stdout.readline) == "begun\n"
