"""History: every fact, in order, at least once, on the subject of its instance."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy

from statewright.engine import Engine
from statewright.engine.events import AnyFact, TransitionTaken
from statewright.statecharts import chart, parallel, state
from tests.adapters.nats.support import LIGHT, eventually, raw, running_server, serving, store_in, url_of

pytestmark = pytest.mark.integration


async def published(nc: NatsClient) -> list[tuple[str, str, AnyFact]]:
    """All that is in the stream: (subject, message id, fact)."""
    js = nc.jetstream()
    last = (await js.stream_info("STATEWRIGHT_HISTORY")).state.last_seq
    messages = [await js.get_msg("STATEWRIGHT_HISTORY", seq) for seq in range(1, last + 1)]
    return [
        (str(m.subject), (m.headers or {})["Nats-Msg-Id"], msgspec.json.decode(m.data or b"", type=AnyFact))
        for m in messages
    ]


async def has(nc: NatsClient, count: int) -> bool:
    """Whether the stream holds so many facts; it may still be missing, or its server coming up."""
    try:
        state = (await nc.jetstream().stream_info("STATEWRIGHT_HISTORY")).state
    except (nats.errors.Error, TimeoutError):
        return False
    assert state.messages <= count
    return bool(state.messages == count)


async def test_every_fact_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        live = await nc.subscribe("statewright.history.light.l-1")
        for instance_id in ("l-1", "l-2"):
            await client.start("light", {"limit": 3}, id=instance_id)
            await client.send(instance_id, "toggle")
            await client.send(instance_id, "never")
        await eventually(lambda: has(nc, 6), "six facts")
        found = await published(nc)
        for instance_id in ("l-1", "l-2"):
            mine = [entry for entry in found if entry[0] == f"statewright.history.light.{instance_id}"]
            assert [fact for _, _, fact in mine] == list(await engine.history(instance_id))
            assert [message_id for _, message_id, _ in mine] == [f"{instance_id}:{n}" for n in (1, 2, 3)]
        seen = [msgspec.json.decode((await live.next_msg()).data)["sequence"] for _ in range(3)]
        assert seen == [1, 2, 3], "a core subscriber sees the same"


async def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Facts recorded while there was no bus come after those that were published, each once."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("light", {"limit": 3}, id="l-1")
            await eventually(lambda: has(nc, 1), "the start")
        async with Engine.open(store_in(tmp_path), charts=[LIGHT]) as engine:
            for _ in range(1_200):  # More than one page of the follower.
                await engine.send("l-1", "toggle")
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, client):
            await eventually(lambda: has(nc, 1_201), "all facts")
            assert [fact.sequence for _, _, fact in await published(nc)] == list(range(1, 1_202))
            await client.send("l-1", "toggle")
            await eventually(lambda: has(nc, 1_202), "one more")


async def test_a_fact_lists_all_active_states_however_many(tmp_path: Path) -> None:
    """Also where the log only says which have changed, whether it was followed from the beginning or not."""
    wide = chart(
        "wide",
        initial="all",
        states=[
            parallel(
                "all",
                states=[
                    state(f"r{n}", initial=f"r{n}.on", states=[state(f"r{n}.on", on={f"go{n}": final}), state(final)])
                    for n, final in ((n, f"r{n}.off") for n in range(40))
                ],
            )
        ],
    )
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        async with Engine.open(store_in(tmp_path), charts=[wide]) as engine:
            await engine.start("wide", id="w")
            expected = [(await engine.send("w", f"go{n}")).configuration for n in range(3)]
            expected.append(expected[-1])
            await engine.send("w", "nothing")
            expected.append((await engine.send("w", "go3")).configuration)
            facts = await engine.history("w", after=1)
            assert [getattr(fact, "configuration", ()) for fact in facts] == [()] * 5
        async with serving(tmp_path, url_of(server.endpoint), charts=[wide]) as (engine, client):
            await eventually(lambda: has(nc, 6), "six facts")
            expected.append((await client.send("w", "go4")).configuration)
            await eventually(lambda: has(nc, 7), "one more")
            found = [fact for _, _, fact in await published(nc)]
    assert [fact.configuration for fact in found[1:] if isinstance(fact, TransitionTaken)] == [
        tuple(one) for at, one in enumerate(expected) if at != 3
    ]


async def test_a_new_server_gets_everything(tmp_path: Path) -> None:
    async with running_server(tmp_path / "one") as server, serving(tmp_path, url_of(server.endpoint)) as (_, client):
        await client.start("light", {"limit": 3}, id="l-1")
        await eventually(lambda: has(client.connection.nc, 1), "the start")
    async with running_server(tmp_path / "two") as server, serving(tmp_path, url_of(server.endpoint)) as (_, client):
        await client.send("l-1", "toggle")
        await eventually(lambda: has(client.connection.nc, 2), "both facts")


async def test_a_stream_that_takes_no_more_is_told_of_once_and_completed_when_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told(what: str) -> int:
        return sum(f"history waits for its stream{what}" in message for message in caplog.messages)

    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        js = nc.jetstream()
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("light", {"limit": 3}, id="l-1")
            await eventually(lambda: has(nc, 1), "the start")
            config = (await js.stream_info("STATEWRIGHT_HISTORY")).config
            await js.update_stream(config.evolve(max_msgs=3, discard=DiscardPolicy.NEW))
            refusals: list[str] = []

            async def refused(message: Msg) -> None:
                refusals.append(message.subject)

            await nc.subscribe("statewright.history.>", cb=refused)
            await asyncio.gather(*(client.send("l-1", "toggle") for _ in range(20)))
            await eventually(lambda: len(refusals) > 100, "several attempts")
            assert told("; trying again: stream STATEWRIGHT_HISTORY did not take fact l-1:4: max") == told("") == 1

            await js.update_stream(config.evolve(max_msgs=-1))
            await eventually(lambda: has(nc, 21), "all facts")
            await eventually(lambda: told(": over after"), "the end")
            assert [fact.sequence for _, _, fact in await published(nc)] == list(range(1, 22))


async def test_history_goes_on_in_a_stream_that_is_bounded_by_its_owner(tmp_path: Path) -> None:
    """It need not keep what was published: what has been dropped there doesn't come again."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        js = nc.jetstream()
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("light", {"limit": 3}, id="l-1")
            await client.send("l-1", "toggle")
            await eventually(lambda: has(nc, 2), "two facts")
            config = (await js.stream_info("STATEWRIGHT_HISTORY")).config
            await js.update_stream(config.evolve(max_msgs=1))
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.send("l-1", "toggle")
            await eventually(lambda: last_is(nc, 3), "the third")
        await js.purge_stream("STATEWRIGHT_HISTORY")
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.send("l-1", "toggle")
            await eventually(lambda: last_is(nc, 4), "the fourth")
            message = await js.get_msg("STATEWRIGHT_HISTORY", 4)
            assert (message.headers or {})["Nats-Msg-Id"] == "l-1:4"


async def last_is(nc: NatsClient, sequence: int) -> bool:
    """Whether the last message of the stream has this number, the numbers of those that were dropped included."""
    return bool((await nc.jetstream().stream_info("STATEWRIGHT_HISTORY")).state.last_seq == sequence)


async def test_what_another_store_left_hides_nothing(tmp_path: Path) -> None:
    """A new store begins at position 1 again, where the stream of the server's earlier one has long been."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        for number, instance_id in enumerate(("l-1", "l-2")):
            folder = tmp_path / instance_id
            folder.mkdir()
            async with serving(folder, url_of(server.endpoint)) as (_, client):
                await client.start("light", {"limit": 3}, id=instance_id)
                await client.send(instance_id, "toggle")
                await eventually(lambda number=number: has(nc, 2 * number + 2), "all facts")
        assert [message_id for _, message_id, _ in await published(nc)] == ["l-1:1", "l-1:2", "l-2:1", "l-2:2"]


async def test_no_death_of_the_server_loses_or_reorders(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        await client.start("light", {"limit": 3}, id="l-1")
        server = engine.doors.server

        async def load() -> None:
            for number in range(1_500):
                await engine.send("l-1", "toggle", event_id=f"e-{number}")

        loading = asyncio.create_task(load())
        for at in (200, 700, 1_200):
            await eventually(lambda at=at: _is_at(engine, at), f"sequence {at}")
            pid = server.pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda pid=pid: server.pid not in (0, pid), "another server")
        await loading
        await eventually(lambda: nc.is_connected, "the reconnection")
        await eventually(lambda: has(nc, 1_501), "all facts")
        sequences = [fact.sequence for _, _, fact in await published(nc)]
        assert sequences == list(range(1, 1_502))


async def _is_at(engine: Engine, sequence: int) -> bool:
    return (await engine.status("l-1")).sequence >= sequence
