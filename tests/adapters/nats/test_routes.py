"""Requests find the worker that looks after their instance, and are decided without it when it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import Endpoint
from statewright.adapters.nats.routes import HAND_ON_TIMEOUT_S
from statewright.engine import Engine
from statewright.engine.partitions import partition_of
from statewright.engine.verify import verify_store
from tests.adapters.nats.support import LIGHT, raw, running_server, url_of
from tests.engine.worlds import until
from tests.postgres_server import new_url

pytestmark = pytest.mark.integration


@asynccontextmanager
async def two_workers(tmp_path: Path, *, doors: int) -> AsyncIterator[tuple[Engine, Engine, Client, Endpoint]]:
    """Two workers of which `doors` have their doors open, a client, and where the nats-server is."""
    store = new_url()
    async with running_server(tmp_path) as server, AsyncExitStack() as stack:
        url = url_of(server.endpoint)
        workers = [
            await stack.enter_async_context(Engine.open(store, charts=[LIGHT], nats=url if number < doors else None))
            for number in range(2)
        ]
        one, other = workers

        def shared() -> bool:
            names = {worker.shares.worker for worker in workers if worker.shares is not None}
            return all(worker.shares is not None and set(worker.shares.owners.values()) == names for worker in workers)

        await until(shared, "the partitions to be shared")
        yield one, other, await stack.enter_async_context(await Client.connect(url)), server.endpoint
    assert verify_store(store).differences == []


def of_worker(engine: Engine, count: int) -> list[str]:
    """Ids of instances that `engine` looks after."""
    shares = engine.shares
    assert shares is not None
    ids = (f"l-{number}" for number in range(10_000))
    partitions = engine.recorder.partitions
    return [
        one
        for one, _ in zip(
            (one for one in ids if shares.owner_of(partition_of(one, partitions)) == shares.worker),
            range(count),
            strict=False,
        )
    ]


async def test_each_request_is_decided_by_whoever_looks_after_its_instance(tmp_path: Path) -> None:
    async with two_workers(tmp_path, doors=2) as (one, other, client, _):
        ids = of_worker(one, 20) + of_worker(other, 20)
        for instance_id in ids:
            await client.start("light", {"limit": 3}, id=instance_id)
        outcomes = await asyncio.gather(*(client.send(one, "toggle", event_id="e-1") for one in ids))
        assert {(outcome.kind, outcome.sequence) for outcome in outcomes} == {("recorded", 2)}
        refused = await asyncio.gather(*(client.send(one, "nonsense", event_id="e-2") for one in ids))
        assert {outcome.kind for outcome in refused} == {"refused"}
        assert (await client.control(ids[-1], "pause")).status == "paused"


async def test_without_the_other_it_is_decided_here(tmp_path: Path) -> None:
    """The other worker lives, but nobody listens to its name."""
    async with two_workers(tmp_path, doors=1) as (_, other, client, _):
        for instance_id in of_worker(other, 5):
            await client.start("light", {"limit": 3}, id=instance_id)
            assert (await client.send(instance_id, "toggle", event_id="e-1")).kind == "recorded"


async def test_what_the_other_does_not_answer_is_decided_here_in_time(tmp_path: Path) -> None:
    """It is silent, and answers what was asked first when it is too late."""
    async with two_workers(tmp_path, doors=1) as (_, other, client, where), raw(where) as nc:
        assert other.shares is not None
        heard: list[Msg] = []

        async def listen(message: Msg) -> None:
            heard.append(message)

        ids = of_worker(other, 5)
        for instance_id in ids:
            await client.start("light", {"limit": 3}, id=instance_id)
        await nc.subscribe(f"statewright.workers.{other.shares.worker}.>", cb=listen)
        await nc.flush()
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcomes = await asyncio.gather(
            *(client.send(one, "toggle", {"by": "ann"}, event_id="e-1", actor="ann") for one in ids)
        )
        assert [outcome.kind for outcome in outcomes] == ["recorded"] * 5
        assert loop.time() - began >= HAND_ON_TIMEOUT_S
        asked = [message.subject.rpartition(".")[2] for message in heard]
        assert (asked[:5], set(asked)) == (ids, set(ids))  # While nobody answers, the client asks again.
        assert {(message.headers or {})["ce-id"] for message in heard} == {"e-1"}
        await nc.publish(heard[0].reply, b'{"kind": "refused"}')
        await nc.flush()
        assert (await client.send(ids[0], "toggle", {"by": "ann"}, event_id="e-1", actor="ann")).kind == "duplicate"
