"""A request that nobody answers is asked again, of another worker, if that does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.replies import encode_error
from statewright.adapters.nats.requests import QUEUE_GROUP
from statewright.engine.errors import BusyError, InvalidError, UnavailableError
from statewright.engine.requests import Outcome
from statewright.engine.verify import verify_store
from tests.adapters.nats.support import known, raw, running_server, serving, store_in
from tests.crash.processes import EngineProcesses, until
from tests.crash.test_kill import PROGRAM
from tests.postgres_server import new_url

pytestmark = pytest.mark.integration

RECORDED = Outcome("recorded", "", 2, ("on",), "active")
BUSY = encode_error(BusyError("try again later"))


class Door:
    """One that a test answers by hand."""

    def __init__(self, nc: NatsClient, client: Client) -> None:
        self.nc = nc
        self.client = client
        self.asked: list[Msg] = []

    async def take(self, message: Msg) -> None:
        self.asked.append(message)

    async def until_asked(self, times: int) -> None:
        await until(lambda: len(self.asked) >= times)

    async def answer(self, number: int, payload: bytes) -> None:
        await self.nc.publish(self.asked[number].reply, payload)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(tmp_path))
        client = await stack.enter_async_context(await Client.connect(server.endpoint, timeout_s=30))
        door = Door(await stack.enter_async_context(raw(server.endpoint)), client)
        await door.nc.subscribe("statewright.>", cb=door.take)
        await known(door.nc)
        yield door


async def test_what_is_asked_again_is_the_same_and_the_first_answer_counts(door: Door) -> None:
    asking = asyncio.create_task(door.client.send("l-1", "toggle", {"by": "ann"}))
    await door.until_asked(3)
    assert len({(one.subject, one.data, one.reply, str(one.headers)) for one in door.asked}) == 1
    await door.answer(1, msgspec.json.encode(RECORDED))
    assert await asking == RECORDED
    await door.answer(0, encode_error(InvalidError("too late")))
    started = asyncio.create_task(door.client.status("l-1"))
    await until(lambda: door.asked[-1].subject == "statewright.query.status.l-1")
    await door.answer(-1, b'{"id": "l-1"}')
    assert await started == {"id": "l-1"}


async def test_busy_counts_only_when_everybody_says_so(door: Door) -> None:
    """For whoever has said nothing may have recorded it."""
    asking = asyncio.create_task(door.client.send("l-1", "toggle"))
    await door.until_asked(2)
    await door.answer(1, BUSY)
    await door.until_asked(3)
    await door.answer(0, msgspec.json.encode(RECORDED))
    assert await asking == RECORDED

    alone = asyncio.create_task(door.client.send("l-2", "toggle"))
    await until(lambda: door.asked[-1].subject == "statewright.send.l-2")
    await door.answer(-1, BUSY)
    with pytest.raises(BusyError, match="try again later"):
        await alone


async def test_a_duplicate_of_what_was_just_asked_is_what_it_was_the_first_time(door: Door) -> None:
    duplicate = msgspec.structs.replace(RECORDED, kind="duplicate")
    refused = msgspec.structs.replace(duplicate, reason="no transition")
    for number, (event_id, answer, expected) in enumerate(
        ((None, duplicate, "recorded"), (None, refused, "refused"), ("e-1", duplicate, "duplicate"))
    ):
        asking = asyncio.create_task(door.client.send(f"l-{number}", "toggle", event_id=event_id))
        await until(lambda number=number: door.asked[-1:] and door.asked[-1].subject.endswith(f"l-{number}"))
        await door.answer(-1, msgspec.json.encode(answer))
        assert (await asking).kind == expected


async def test_only_so_many_are_asked_again(door: Door) -> None:
    """An engine that is slow because it has too much to do isn't given twice as much for it."""
    many = 3_000
    async with asyncio.TaskGroup() as asking:
        began = asyncio.get_running_loop().time()
        for number in range(many):
            asking.create_task(door.client.status(f"l-{number}"))
        await door.until_asked(many + 1_000)
        for _ in range(2):  # Each would be asked again meanwhile.
            await door.until_asked(len(door.asked) + 10)
        passed_s = asyncio.get_running_loop().time() - began
        assert len(door.asked) <= many * 1.5 + 1_000 + 50 * passed_s
        for message in list(door.asked):
            await door.nc.publish(message.reply, b"{}")


async def test_what_would_do_harm_twice_is_asked_once(door: Door) -> None:
    async with await Client.connect(door.client.connection.endpoint, timeout_s=0.5) as client:
        for asking in (client.control("l-1", "pause"), client.unschedule("s"), client.drop_parked("p")):
            with pytest.raises(UnavailableError, match=r"no answer from an engine at .* within 0.5 s"):
                await asking
        assert len(door.asked) == 3
        with pytest.raises(UnavailableError, match=r"no answer from an engine"):
            await client.status("l-1")
        assert len(door.asked) > 8


async def test_whoever_was_asked_and_went_is_told_of_when_the_time_is_up(tmp_path: Path) -> None:
    """It may have recorded it before it went, so somebody who comes is still asked."""
    async with running_server(tmp_path) as server, await Client.connect(server.endpoint, timeout_s=2) as client:
        async with raw(server.endpoint) as nc:
            asked: list[Msg] = []

            async def take(message: Msg) -> None:
                asked.append(message)

            await nc.subscribe("statewright.send.*", cb=take)
            await known(nc)
            asking = asyncio.create_task(client.send("l-1", "toggle"))
            await until(lambda: asked)
        with pytest.raises(UnavailableError, match="is up, but an engine does not serve it"):
            await asking


async def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, await Client.connect(server.endpoint, timeout_s=60) as client:
        with pytest.raises(UnavailableError, match="is up, but an engine does not serve it"):
            await client.status("l-1")


async def test_one_of_the_queue_group_that_says_nothing_loses_no_request(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as (engine, _),
        await Client.connect(engine.doors.endpoint, timeout_s=30) as client,
        raw(engine.doors.endpoint) as nc,
    ):
        silent: list[Msg] = []

        async def take(message: Msg) -> None:
            silent.append(message)

        for door in ("send", "start", "query.status"):
            await nc.subscribe(f"statewright.{door}.>", queue=QUEUE_GROUP, cb=take)
        await known(nc)
        ids = [f"l-{number}" for number in range(20)]
        await asyncio.gather(*(client.start("light", {"limit": 3}, id=one) for one in ids))
        outcomes = await asyncio.gather(*(client.send(one, "toggle") for one in ids))
        assert {(outcome.kind, outcome.sequence) for outcome in outcomes} == {("recorded", 2)}
        rows = await asyncio.gather(*(client.status(one) for one in ids))
        assert {row["sequence"] for row in rows} == {2}
        assert {message.subject.split(".")[1] for message in silent} == {"send", "start", "query"}
    assert verify_store(store_in(tmp_path)).is_true


async def test_with_one_worker_of_three_stopped_every_request_is_answered(tmp_path: Path) -> None:
    store, performed = new_url(), tmp_path / "performed"
    async with running_server(tmp_path) as server:
        where = server.endpoint
        url = where.url.replace("://", f"://{where.user}:{where.password}@")
        workers = [
            EngineProcesses(PROGRAM, store, url, str(performed), log=tmp_path / f"worker-{number}.log")
            for number in range(3)
        ]
        try:
            for worker in workers:
                await worker.start()
            async with await Client.connect(where, timeout_s=60) as client:
                ids = [f"i-{number}" for number in range(40)]
                await asyncio.gather(*(client.start("crash", id=one) for one in ids[:20]))
                workers[1].pause()
                started = await asyncio.gather(*(client.start("crash", id=one) for one in ids[20:]))
                outcomes = await asyncio.gather(*(client.send(one, "step", event_id="e-1") for one in ids))
                workers[1].wake()
                assert {one.sequence for one in started} == {1}
                # It may have been stopped after it had recorded one, and before it said so.
                assert {outcome.kind for outcome in outcomes} <= {"recorded", "duplicate"}
                again = await asyncio.gather(*(client.send(one, "step", event_id="e-1") for one in ids))
                assert {outcome.kind for outcome in again} == {"duplicate"}
            await asyncio.gather(*(worker.stop() for worker in workers))
        finally:
            for worker in workers:
                await worker.close()
    assert verify_store(store).differences == []
