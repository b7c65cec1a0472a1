"""What the NATS tests share: charts, a server, an engine with open doors, and waiting for a condition."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client as NatsClient

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import Endpoint
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine import Engine
from statewright.statecharts import call, chart, emit, final, state, to

T = TypeVar("T")
WAIT_S = 60.0

LIGHT = chart(
    "light",
    context={"limit": "int"},
    initial="off",
    states=[
        state("off", on={"toggle": to("on"), "never": to("on", guard="context.limit < 0")}),
        state("on", on={"toggle": to("off"), "smash": to("broken")}),
        final("broken"),
    ],
    subscribe=[
        {"subject": "data.processed", "event": "toggle", "instance": "data.workflowInstanceId", "id": "data.job"},
        {"subject": "sensor.*", "event": "toggle", "instance": "data.lamp"},
    ],
)
ORDER = chart(
    "order",
    initial="open",
    context={"answer": {"type": "string", "default": ""}},
    states=[
        state("open", on={"announce": to(actions=[emit("orders.announced", {"n": 1})]), "charge": to("charging")}),
        state(
            "charging",
            entry=[call("billing", "charge", {"amount": "40 + 2"})],
            on={
                "done.effect.billing.charge": to("paid"),
                "error.effect.billing.charge": to("unpaid"),
            },
        ),
        state("paid"),
        state("unpaid"),
    ],
)


async def eventually(check: Callable[[], T | Awaitable[T]], what: str = "the condition") -> T:
    """The first true value of `check`, which is asked until `WAIT_S` have passed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    while True:
        found = check()
        value: Any = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"{what} did not come about within {WAIT_S:g} s, it is {value!r}")
        await asyncio.sleep(0.01)


def url_of(endpoint: Endpoint) -> str:
    """As somebody would type it."""
    return endpoint.url.replace("://", f"://{endpoint.user}:{endpoint.password}@") if endpoint.user else endpoint.url


def store_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


@asynccontextmanager
async def running_server(folder: Path) -> AsyncIterator[EmbeddedServer]:
    server = await EmbeddedServer.start(folder / "server")
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def raw(endpoint: Endpoint) -> AsyncIterator[NatsClient]:
    """A client of the driver, that knows nothing of Statewright."""
    nc = NatsClient()

    async def quiet(_: Exception) -> None: ...

    await nc.connect(
        endpoint.url,
        user=endpoint.user or None,
        password=endpoint.password or None,
        error_cb=quiet,
        reconnect_time_wait=0.05,
        max_reconnect_attempts=-1,
    )
    try:
        yield nc
    finally:
        await nc.close()


@asynccontextmanager
async def serving(folder: Path, url: str = "embedded", **settings: Any) -> AsyncIterator[tuple[Engine, Client]]:
    """An engine with its doors open (on its own server by default) and a client of it."""
    charts = settings.pop("charts", [LIGHT, ORDER])
    async with (
        Engine.open(store_in(folder), charts=charts, nats=url, **settings) as engine,
        await Client.connect(engine.doors.endpoint) as client,
    ):
        yield engine, client


async def known(nc: NatsClient) -> None:
    """Wait until the server knows of the subscriptions made so far. The driver's `flush` writes its PING before what
    is still to be written, so it takes a second one to be sure."""
    await nc.flush()
    await nc.flush()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
