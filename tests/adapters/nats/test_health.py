"""Health, readiness and signals, asked of a real engine over a real server."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.doors import open_doors
from statewright.adapters.nats.health import Operating, Published, Readiness
from statewright.engine import Engine, ManualClock
from statewright.engine.errors import InvalidError, UnavailableError
from tests.adapters.nats.support import LIGHT, ORDER, eventually, raw, running_server, serving, store_in

pytestmark = pytest.mark.integration


def failing(readiness: Readiness) -> dict[str, str]:
    return {check.name: check.detail for check in readiness.checks if not check.ok}


async def test_an_engine_that_works_is_healthy_and_ready(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        health = await client.health()
        assert (health.status, health.worker) == ("ok", engine.doors._health._worker)
        assert (await client.health(health.worker)) == health
        readiness = await eventually(lambda: ready(client), "readiness")
        assert readiness.worker == health.worker
        assert failing(readiness) == {}
        assert {check.name for check in readiness.checks} == {
            "store",
            "doors",
            "timers",
            "effects",
            "projection nats-history",
        }
        with pytest.raises(UnavailableError, match="an engine called 'another' does not serve it"):
            await client.readiness("another")
        with pytest.raises(InvalidError, match="expected a worker name"):
            await client.readiness("a b")


async def ready(client: Client) -> Readiness | None:
    readiness = await client.readiness()
    return readiness if readiness.ready else None


async def unready(client: Client) -> dict[str, str]:
    return failing(await client.readiness())


async def test_a_store_that_cannot_be_written_makes_it_unready_until_it_can(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await eventually(lambda: ready(client), "readiness")
        writer = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        try:
            said = await eventually(lambda: unready(client), "an unready engine")
        finally:
            writer.close()
        assert said.keys() == {"store"}
        assert (await client.health()).status == "ok", "no reason to start it anew"
        await eventually(lambda: ready(client), "readiness")


async def test_work_that_waits_too_long_makes_it_unready(tmp_path: Path) -> None:
    """A projection that stands still is told with how far it is behind."""

    class Stuck:
        name = "stuck"

        async def position(self) -> int:
            return 0

        async def process(self, facts: object) -> None:
            await asyncio.Event().wait()

    clock = ManualClock()
    async with serving(tmp_path, clock=clock) as (engine, client):
        await engine.attach(Stuck())
        await client.start("light", {"limit": 1}, id="l-1")
        clock.advance(61)
        said = await eventually(lambda: unready(client), "an unready engine")
        assert said["projection stuck"] == "the first of 1 facts waits for 61 s, more than 60 s"


async def test_doors_that_do_not_pull_make_it_unready(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await eventually(lambda: ready(client), "readiness")
        js = client.connection.nc.jetstream()
        await js.delete_stream("STATEWRIGHT_EVENTS")
        await js.add_stream(name="TAKEN", subjects=["statewright.events.>"])
        said = await eventually(lambda: unready(client), "an unready engine")
        assert said["doors"] == "STATEWRIGHT_EVENTS/statewright-engine is not pulled from"


async def test_an_engine_whose_doors_close_says_so_until_its_connection_closes(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, await Client.connect(server.endpoint) as client:
        async with Engine.open(store_in(tmp_path), charts=[LIGHT]) as engine:
            url = server.endpoint.url.replace("//", f"//{server.endpoint.user}:{server.endpoint.password}@")
            doors = await open_doors(engine, url, operating=Operating("w-1"))
            await eventually(lambda: ready(client), "readiness")
            await doors.stop_taking()
            assert await eventually(lambda: unready(client), "closing doors") == {"doors": "the doors are closing"}
            with pytest.raises(UnavailableError, match="an engine does not serve it"):
                await client.send("l-1", "toggle")
            await doors.close()
        with pytest.raises(UnavailableError, match="an engine called 'w-1' does not serve it"):
            await client.health("w-1")


async def test_signals_are_published_and_told_on_demand(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        raw(server.endpoint) as nc,
        Engine.open(store_in(tmp_path), charts=[LIGHT, ORDER]) as engine,
    ):
        inbox = await nc.subscribe("statewright.signals.*")
        await nc.flush()
        url = server.endpoint.url.replace("//", f"//{server.endpoint.user}:{server.endpoint.password}@")
        doors = await open_doors(engine, url, operating=Operating("w-1", signals_every_s=0.05))
        try:
            await engine.start("order", id="o-1")
            await engine.send("o-1", "charge")

            async def with_work() -> Published | None:
                message = await inbox.next_msg(10)
                assert message.subject == "statewright.signals.w-1"
                published = msgspec.json.decode(message.data, type=Published)
                if published.signals.effects:  # As the documentation shows it.
                    assert set(msgspec.json.decode(message.data)["signals"]["effects"]["call"]) == {"due", "open"}
                return published if published.signals.effects else None

            published = await eventually(with_work, "a call that nobody answers")
            assert published.worker == "w-1"
            assert published.signals.recorded == 2
            assert published.signals.effects["call"].open == 1
            async with await Client.connect(server.endpoint) as client:
                assert (await client.signals("w-1")).signals.recorded >= 2
        finally:
            await doors.close()


async def test_a_name_that_is_no_word_of_a_subject_is_refused(tmp_path: Path) -> None:
    async with Engine.open(store_in(tmp_path)) as engine:
        with pytest.raises(InvalidError, match="expected a worker name"):
            await open_doors(engine, operating=Operating("a.b"))
