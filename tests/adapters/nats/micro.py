"""Instances of services on the bus, for the tests: with the driver's `nats.micro`, or in JavaScript."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import nats.micro
import pytest
from nats.aio.client import Client as NatsClient
from nats.micro.request import Request, ServiceError
from nats.micro.service import Service

from statewright.adapters.nats.endpoint import Endpoint
from tests.adapters.nats.support import WAIT_S, known, raw, url_of

JAVASCRIPT = Path(__file__).parent / "javascript"


class Answering:
    """An instance under way: how it is can be set, what it was asked is kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.service: Service | None = None

    async def who(self, request: Request) -> None:
        self.asked.append(request.headers)
        await request.respond(msgspec.json.encode(self.name))

    async def refuse(self, request: Request) -> None:
        self.asked.append(request.headers)
        raise ServiceError("422", "no such document")

    async def stumble(self, request: Request) -> None:
        self.asked.append(request.headers)
        raise ServiceError("500", "out of memory")


async def announce(
    nc: NatsClient, service: str, instance: Answering, *, own: bool = True, metadata: Mapping[str, str] | None = None
) -> Answering:
    """Serve `who`, `refuse` and `stumble`; by itself, too, unless not `own`. It goes with its connection, or with
    `instance.service.stop()`."""
    said = dict(metadata or {}) | ({"statewright-instance": instance.name} if own else {})
    config = nats.micro.ServiceConfig(service, "1.0.0", metadata=said, stats_handler=lambda _: instance.data)
    instance.service = await nats.micro.add_service(nc, config)
    methods: dict[str, Callable[[Request], Any]] = {
        "who": instance.who,
        "refuse": instance.refuse,
        "stumble": instance.stumble,
    }
    for name, handler in methods.items():
        subject = f"statewright.calls.{service}.{name}"
        await instance.service.add_endpoint(name=name, subject=subject, handler=handler)
        if own:
            await instance.service.add_endpoint(
                name=f"{name}-own", subject=f"{subject}.{instance.name}", handler=handler
            )
    await known(nc)
    return instance


async def deserted(nc: NatsClient, subject: str) -> None:
    """Wait until the server knows that nobody listens on `subject`. A request that comes before, from anybody, is lost
    with whoever was killed."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await nc.request(subject, timeout=0.2)  # type: ignore[arg-type]  # The driver takes any number.
            except nats.errors.NoRespondersError:
                return
            except nats.errors.TimeoutError:
                continue


@asynccontextmanager
async def answering(endpoint: Endpoint, service: str, name: str, **options: Any) -> AsyncIterator[Answering]:
    """An instance with a connection of its own; leaving is as if its process had been killed."""
    async with raw(endpoint) as nc:
        yield await announce(nc, service, Answering(name), **options)


@asynccontextmanager
async def javascript(endpoint: Endpoint, instance: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`analyzer.js` in a process of its own. Skips the test where it can't run."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (JAVASCRIPT / "node_modules" / "nats").is_dir():
        pytest.skip("npm's NATS client is not installed: make javascript")
    process = await asyncio.create_subprocess_exec(
        node,
        str(JAVASCRIPT / "analyzer.js"),
        url_of(endpoint),
        instance,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
