"""The doors of an engine on NATS: opened together, closed in the order that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import os

from statewright.adapters.nats.admission import Admission
from statewright.adapters.nats.connection import CONNECT_TIMEOUT_S, Connection, connect
from statewright.adapters.nats.durability import warn_unless_durable
from statewright.adapters.nats.endpoint import Endpoint, NatsOptions, remove_endpoint, write_endpoint
from statewright.adapters.nats.health import HealthDoors, Operating
from statewright.adapters.nats.history import History
from statewright.adapters.nats.inbound import Inbound
from statewright.adapters.nats.operations import OperationDoors
from statewright.adapters.nats.performers import CALL_TIMEOUT_S, Performers
from statewright.adapters.nats.requests import RequestDoors, ensure_one_store
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine.engine import Engine
from statewright.engine.errors import InvalidError
from statewright.engine.shares import Shares
from statewright.engine.tasks import end

EMBEDDED = "embedded"
"""Given in place of a URL: start a server of our own, beside the store."""

INBOUND = "inbound"
"""The task of reading JetStream and foreign subjects, which one worker of a store does."""

_LOG = logging.getLogger("statewright.nats")


class Doors:
    """Open doors. `endpoint` says how the server is reached; `server` is the embedded one, if there is one."""

    def __init__(self, engine: Engine, endpoint: Endpoint, server: EmbeddedServer | None) -> None:
        self._engine = engine
        self._path = engine.store.endpoint_path
        self._connection: Connection | None = None
        self._requests: RequestDoors | None = None
        self._inbound: Inbound | None = None
        self._operations: OperationDoors | None = None
        self._history: History | None = None
        self._health: HealthDoors | None = None
        self._shift: asyncio.Task[None] | None = None
        self.endpoint = endpoint
        self.server = server

    async def open(self, connect_timeout_s: float, call_timeout_s: float, operating: Operating) -> None:
        """Used by `open_doors`."""
        engine = self._engine
        admission = Admission(engine.clock, os.environ)
        connection = await connect(self.endpoint, name="statewright engine", timeout_s=connect_timeout_s)
        self._connection = connection
        store = await engine.on_reader(lambda: engine.store.identity)
        await ensure_one_store(connection, store)
        if self.server is not None:
            self.server.on_moved = self._moved
        else:
            await warn_unless_durable(self.endpoint.url)
        performers = Performers(connection, engine.clock, call_timeout_s)
        engine.performer("emit", performers.emit)
        engine.performer("call", performers.call)
        self._history = History(engine, connection)
        await engine.attach(self._history)
        if engine.shares is None:
            self._inbound = Inbound(engine, connection, admission)
            await self._inbound.open()
        else:
            engine.shares.want(INBOUND)
            turns = self._take_turns(engine.shares, connection, admission)
            self._shift = asyncio.create_task(turns, name="inbound")
        self._requests = RequestDoors(engine, connection, admission, store)
        await self._requests.open()
        self._operations = OperationDoors(engine, connection)
        await self._operations.open()
        self._health = HealthDoors(engine, connection, operating, self._faults)
        await self._health.open()
        await connection.nc.flush()  # Whoever reads the endpoint finds the doors open.
        if self._path is not None:
            write_endpoint(self._path, self.endpoint)

    async def stop_taking(self) -> None:
        """Take no more requests and events; answer and ack what was taken. The connection stays, for effects and
        history. Idempotent."""
        if self._path is not None:
            remove_endpoint(self._path, os.getpid())
        await end(self._shift)
        inbound, self._inbound = self._inbound, None
        requests, self._requests = self._requests, None
        operations, self._operations = self._operations, None
        await asyncio.gather(*(door.close() for door in (requests, operations, inbound) if door is not None))

    async def close(self) -> None:
        """Take no more, answer and ack what was taken, close the connection, stop our server. Idempotent."""
        await self.stop_taking()
        health, self._health = self._health, None
        if health is not None:
            await health.close()
        history, self._history = self._history, None
        if history is not None:
            await history.close()
        if self._connection is not None:
            await self._connection.close()
        server, self.server = self.server, None
        if server is not None:
            await server.stop()

    async def _take_turns(self, shares: Shares, connection: Connection, admission: Admission) -> None:
        """Of the workers of a store, one reads what nobody waits for: so events are taken in their order."""
        while True:
            changed = asyncio.ensure_future(shares.changed())
            try:
                if shares.does(INBOUND) and self._inbound is None:
                    self._inbound = Inbound(self._engine, connection, admission)
                    await self._inbound.open()
                elif not shares.does(INBOUND) and self._inbound is not None:
                    inbound, self._inbound = self._inbound, None
                    await inbound.close()
                await changed
            except Exception:
                _LOG.exception("the doors for those who do not wait can't be opened or closed now")
                await asyncio.sleep(1)
            finally:
                changed.cancel()

    def _faults(self) -> list[str]:
        """What is not open."""
        if self._requests is None:
            return ["the doors are closing"]
        stalled = (
            self._inbound.stalled if self._inbound is not None else []
        )  # Another worker may be the one that pulls.
        return [f"{name} is not pulled from" for name in stalled]

    def _moved(self, endpoint: Endpoint) -> None:
        """Our server came back on another port."""
        self.endpoint = endpoint
        if self._connection is not None:
            self._connection.move(endpoint)
        if self._path is not None:
            write_endpoint(self._path, endpoint)


async def open_doors(
    engine: Engine,
    url: NatsOptions | str | None = None,
    *,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    call_timeout_s: float = CALL_TIMEOUT_S,
    operating: Operating | None = None,
) -> Doors:
    """Open all doors of `engine` on the nats-server at `url` (or that `NatsOptions` describe); without one (or with
    "embedded") on a server of its own, whose files are beside the store. Writes the endpoint file, so that other
    commands find this engine.

    Raises `UnavailableError` (nobody answers, no server can be started), `InvalidError` (a bad URL).
    """
    server = None
    if url is None or url == EMBEDDED:
        server = await EmbeddedServer.start(_directory(engine), key=_stream_key(engine))
        endpoint = server.endpoint
    else:
        endpoint = Endpoint.of(url, pid=os.getpid())
    doors = Doors(engine, endpoint, server)
    try:
        await doors.open(connect_timeout_s, call_timeout_s, operating or Operating())
    except BaseException:
        await doors.close()
        raise
    _LOG.info("doors are open on %s", endpoint.url)
    return doors


def _stream_key(engine: Engine) -> str:
    """With which our own server encrypts its streams; "" if the store is not encrypted either."""
    ring = engine.log.ring
    return ring.derived("jetstream", 32).hex() if ring is not None else ""


def _directory(engine: Engine) -> str:
    path = engine.store.endpoint_path
    if path is None:
        raise InvalidError(f"expected a NATS URL: store {engine.store.url} has no place for a server's files")
    return f"{path.removesuffix('.endpoint')}.nats"
