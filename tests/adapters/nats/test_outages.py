"""When the server is away, was never there, or is less than we would like."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import Endpoint, find_endpoint
from statewright.adapters.nats.server import find_binary
from statewright.engine import Engine
from statewright.engine.errors import InvalidError, UnavailableError
from tests.adapters.nats.support import (
    LIGHT,
    ORDER,
    WAIT_S,
    eventually,
    free_port,
    raw,
    running_server,
    serving,
    store_in,
    url_of,
)

pytestmark = pytest.mark.integration

HANG_S = 15
"""What takes longer hangs."""


async def test_the_doors_come_back_with_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        server = engine.doors.server
        for round_ in range(3):
            pid = server.pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda pid=pid: server.pid not in (0, pid), "another server")
            outcome = await eventually(lambda n=round_: _sent(client, f"r-{n}"), "an answer")
            assert outcome in ("recorded", "duplicate")
            await eventually(lambda n=round_: _published(client, f"p-{n}"), "the stream")
            await client.connection.nc.publish(
                "data.processed", b'{"workflowInstanceId": "l-1", "job": "j-%d"}' % round_
            )
            wanted = {f"{kind}-{round_}" for kind in "rpj"}
            await eventually(lambda wanted=wanted: _has(engine, wanted), "all three")
        assert find_endpoint(engine.store.endpoint_path or "") == engine.doors.endpoint


async def _sent(client: Client, event_id: str) -> str | None:
    try:
        return (await client.send("l-1", "toggle", event_id=event_id)).kind
    except UnavailableError:
        return None


async def _published(client: Client, event_id: str) -> bool:
    try:
        await client.publish("l-1", "toggle", event_id=event_id)
    except UnavailableError:
        return False
    return True


async def _has(engine: Engine, event_ids: set[str]) -> bool:
    return event_ids <= {fact.trigger.id for fact in (await engine.history("l-1"))[1:]}


async def test_the_streams_are_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        js = client.connection.nc.jetstream()
        await eventually(lambda: _published(client, "e-1"), "the stream")
        await eventually(lambda: _has(engine, {"e-1"}), "the first")
        await js.delete_stream("STATEWRIGHT_EVENTS")
        await eventually(lambda: _published(client, "e-2"), "the stream, again")
        await eventually(lambda: _has(engine, {"e-2"}), "the second")
        await js.delete_consumer("STATEWRIGHT_EVENTS", "statewright-engine")
        await client.publish("l-1", "toggle", event_id="e-3")
        await eventually(lambda: _has(engine, {"e-3"}), "the third")


async def test_nobody_answers(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(UnavailableError, match=f"no nats-server answers at nats://127.0.0.1:{port} within 2 s"):
        async with (
            asyncio.timeout(HANG_S),
            Engine.open(store_in(tmp_path), charts=[LIGHT], nats=f"nats://u:s3cret@127.0.0.1:{port}"),
        ):
            pass
    with pytest.raises(UnavailableError, match="no nats-server answers"):
        await Client.connect(f"127.0.0.1:{port}", connect_timeout_s=0.2)
    async with Engine.open(store_in(tmp_path), charts=[LIGHT]) as engine:  # The store was given up.
        await engine.start("light", {"limit": 3})


async def test_somebody_listens_but_says_nothing() -> None:
    closed: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(lambda r, w: closed.append(w), "127.0.0.1", 0)
    async with mute:
        port = mute.sockets[0].getsockname()[1]
        with pytest.raises(UnavailableError, match="no nats-server answers"):
            await Client.connect(f"127.0.0.1:{port}", connect_timeout_s=0.3)
        for writer in closed:
            writer.close()


async def test_a_wrong_password_and_a_wrong_url(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        with pytest.raises(UnavailableError, match="Authorization Violation") as caught:
            await Client.connect(server.endpoint.url.replace("//", "//ann:s3cret@"), connect_timeout_s=0.5)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidError, match="expected a NATS URL"):
        async with Engine.open(store_in(tmp_path), nats="http://localhost"):
            pass


# The driver, cancelled while it opens a connection, may drop a socket that it has just opened; the collector closes it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_giving_up_never_hangs(tmp_path: Path) -> None:
    """The driver may swallow a cancellation that comes at a bad moment, so these give up at all kinds of moments."""
    async with running_server(tmp_path) as server:
        async with asyncio.timeout(WAIT_S):
            assert await _give_up(server.endpoint.url.replace("//", "//ann:wrong@")) == {UnavailableError}
        for _ in range(3):  # Collected here, and not in the middle of another test.
            gc.collect()
            await asyncio.sleep(0)


async def _give_up(url: str) -> set[type]:
    attempts = (Client.connect(url, connect_timeout_s=0.02 + 0.0005 * number) for number in range(400))
    return {type(end) for end in await asyncio.gather(*attempts, return_exceptions=True)}


async def test_a_server_without_an_engine(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, await Client.connect(server.endpoint) as client:
        with pytest.raises(UnavailableError, match="is up, but an engine does not serve it"):
            await client.send("l-1", "toggle")
        with pytest.raises(UnavailableError, match="is up, but JetStream does not serve it"):
            await client.publish("l-1", "toggle")


async def test_a_server_that_goes_while_somebody_waits(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        client = await Client.connect(server.endpoint, timeout_s=0.3)
        await server.stop()
        with pytest.raises(UnavailableError, match="no answer from an engine"):
            await client.send("l-1", "toggle")
        await client.close()


async def test_closing_does_not_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        asyncio.timeout(HANG_S),
        serving(tmp_path, url_of(server.endpoint)) as (engine, client),
    ):
        await client.start("light", {"limit": 3}, id="l-1")
        await server.stop()
        await eventually(lambda: not client.connection.online.is_set(), "the loss of the connection")
        assert (await engine.send("l-1", "toggle")).kind == "recorded", "the engine needs no server"


@asynccontextmanager
async def plain_server(folder: Path) -> AsyncIterator[Endpoint]:
    """A nats-server that nobody configured: no JetStream, no password, its own limits."""
    arguments = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
    process = await asyncio.create_subprocess_exec(find_binary(), *arguments, stderr=asyncio.subprocess.DEVNULL)
    try:
        ports = folder / f"nats-server_{process.pid}.ports"
        text = await eventually(lambda: ports.exists() and ports.read_text(), "the ports file")
        yield Endpoint(json.loads(text)["nats"][0])
    finally:
        process.terminate()
        await process.wait()


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    """All that needs no stream works."""
    async with (
        plain_server(tmp_path) as endpoint,
        raw(endpoint) as nc,
        serving(tmp_path, endpoint.url, charts=[LIGHT, ORDER]) as (engine, client),
    ):
        await client.start("light", {"limit": 3}, id="l-1")
        assert (await client.send("l-1", "toggle")).kind == "recorded"
        await nc.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-1"}')
        await eventually(lambda: _has(engine, {"j-1"}), "the foreign message")
        heard = await nc.subscribe("orders.announced")
        await nc.flush()
        await client.start("order", id="o-1")
        await client.send("o-1", "announce")
        assert (await heard.next_msg(timeout=10)).data == b'{"n":1}'
        with pytest.raises(UnavailableError, match="JetStream"):
            await client.publish("l-1", "toggle")


async def test_the_endpoint_file_lives_as_long_as_the_doors(tmp_path: Path) -> None:
    path = tmp_path / "store.db.endpoint"
    async with serving(tmp_path) as (engine, _):
        endpoint = find_endpoint(path)
        assert endpoint is not None
        assert endpoint.pid == os.getpid()
        assert engine.store.endpoint_path == str(path)
    assert not path.exists()
    async with running_server(tmp_path) as server, serving(tmp_path, url_of(server.endpoint)):
        found = find_endpoint(path)
        assert found is not None
        assert (found.url, found.password) == (server.endpoint.url, server.endpoint.password)
