"""The request doors: start, send, control and the status query.

Invariants: every request with a reply subject gets exactly one answer, an outcome or an error; an outcome is sent only
for what is durable. No message can stop a door: what can't be understood is answered and forgotten. All engines that
serve one nats-server share the queue group, so each request is taken by one of them: by whoever owns the only store.
Therefore an engine opens its doors only where no engine of another store answers (`ensure_one_store`). Workers of one
store hand on a request to the one that looks after its instance (`routes.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.envelope import decode_control, decode_event, decode_json, decode_start
from statewright.adapters.nats.replies import code_of, encode_answer, encode_error, encode_status
from statewright.adapters.nats.routes import Routes
from statewright.engine.engine import Engine
from statewright.engine.errors import BusyError, InvalidError, UnavailableError
from statewright.engine.ids import check_id, new_id
from statewright.statecharts.errors import StatewrightError

QUEUE_GROUP = "statewright"
QUERIES_MAX = 1_000
"""How many status queries may wait for the reader at once."""
DRAIN_TIMEOUT_S = 10.0
WHO = "statewright.query.engine"
"""Every engine answers here who it is."""
WHO_TIMEOUT_S = 0.5

_LOG = logging.getLogger("statewright.nats")
_Submit = Callable[[str, Msg], "asyncio.Future[Any]"]


class RequestDoors:
    """The four request doors of one engine."""

    def __init__(self, engine: Engine, connection: Connection, store: str) -> None:
        """`store` is the identity of the engine's store."""
        self._engine = engine
        self._connection = connection
        self._store = store
        self._routes = Routes(engine, connection, self._take)
        self._subscriptions: list[Subscription] = []
        self._waiting = 0
        self._queries: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self) -> None:
        # `>` rather than `*`, so that an id with a dot is told that it is no id, instead of meeting silence.
        await self._routes.open()
        for door in ("send", "start", "control"):
            await self._serve(door)
        await self._subscribe("statewright.query.status.>", self._on_query)
        await self._subscribe(WHO, self._on_who)

    async def close(self) -> None:
        """Take no more, answer what was taken (bounded)."""
        subscriptions, self._subscriptions = self._subscriptions, []
        if self._connection.online.is_set():  # Else there is nothing more to take.
            try:
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    await asyncio.gather(*(subscription.drain() for subscription in subscriptions))  # type: ignore[no-untyped-call]
            except Exception as error:
                _LOG.debug("the doors were closed without draining: %s", error)
        await self._routes.close(DRAIN_TIMEOUT_S)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._idle.wait()
        except TimeoutError:
            _LOG.warning("%d requests were still unanswered when the doors closed", self._waiting)
        await asyncio.gather(*self._queries, return_exceptions=True)

    async def _serve(self, door: str) -> None:
        prefix = f"statewright.{door}."

        async def on_request(message: Msg) -> None:
            about = message.subject[len(prefix) :]
            if door == "start" or not self._routes.hand_on(door, about, message):
                self._take(door, about, message)

        await self._subscribe(f"{prefix}>", on_request)

    def _take(self, door: str, about: str, message: Msg) -> None:
        """Submit a request; `about` is its instance, or the definition of a start."""
        submit: dict[str, _Submit] = {"send": self._send, "start": self._start, "control": self._control}
        try:
            answered = submit[door](about, message)
        except Exception as error:
            self._refuse(message, error)
        else:
            self._waiting += 1
            self._idle.clear()
            answered.add_done_callback(partial(self._answer, message))

    async def _subscribe(self, subject: str, callback: Callable[[Msg], Any]) -> None:
        self._subscriptions.append(await self._connection.nc.subscribe(subject, queue=QUEUE_GROUP, cb=callback))

    def _send(self, instance_id: str, message: Msg) -> asyncio.Future[Any]:
        return self._engine.submit(decode_event(instance_id, message.headers, message.data))

    def _start(self, definition: str, message: Msg) -> asyncio.Future[Any]:
        fresh_id = new_id(self._engine.clock.now())
        return self._engine.submit(decode_start(definition, fresh_id, message.headers, message.data))

    def _control(self, instance_id: str, message: Msg) -> asyncio.Future[Any]:
        return self._engine.submit(decode_control(instance_id, message.data))

    def _answer(self, message: Msg, answered: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._idle.set()
        if answered.cancelled():
            self._refuse(message, UnavailableError("the engine is closing; nothing is known of this request"))
            return
        error = answered.exception()
        if error is not None:
            self._refuse(message, error)
        elif message.reply:
            self._connection.post(message.reply, encode_answer(answered.result()))

    def _refuse(self, message: Msg, error: BaseException) -> None:
        if not isinstance(error, StatewrightError):
            _LOG.error("a request on %s failed", message.subject, exc_info=error)
        elif code_of(error) in ("busy", "unavailable"):
            _LOG.debug("a request on %s: %s", message.subject, error)
        if message.reply:
            self._connection.post(message.reply, encode_error(error))

    async def _on_who(self, message: Msg) -> None:
        if message.reply:
            who = _Who(f"process {os.getpid()} on {socket.gethostname()}", self._store)
            self._connection.post(message.reply, msgspec.json.encode(who))

    async def _on_query(self, message: Msg) -> None:
        if len(self._queries) >= QUERIES_MAX:
            self._refuse(message, BusyError(f"{QUERIES_MAX:,} queries are waiting; try again later"))
            return
        task = asyncio.create_task(self._query(message))
        self._queries.add(task)
        task.add_done_callback(self._queries.discard)

    async def _query(self, message: Msg) -> None:
        try:
            instance_id = check_id("an instance id", message.subject.removeprefix("statewright.query.status."))
            asked = decode_json("the query", message.data)
            if asked not in (None, {}):
                raise InvalidError(f"expected a status query to have no payload, got {message.data[:60]!r}")
            row = await self._engine.status(instance_id)
            if message.reply:
                self._connection.post(message.reply, encode_status(row))
        except Exception as error:
            self._refuse(message, error)


class _Who(msgspec.Struct):
    process: str
    store: str


async def ensure_one_store(connection: Connection, store: str) -> None:
    """Raises `UnavailableError` if an engine with another store than `store` serves this nats-server: chance would
    decide which of the two a request or an event reaches."""
    try:
        reply = await connection.nc.request(WHO, timeout=WHO_TIMEOUT_S)
        who = msgspec.json.decode(reply.data, type=_Who)
    except (nats.errors.Error, TimeoutError) as error:
        _LOG.debug("no other engine answers: %s", error)
        return
    except msgspec.MsgspecError:
        who = _Who(reply.data[:200].decode(errors="replace"), "")
    if who.store != store:
        raise UnavailableError(
            f"the nats-server at {connection.endpoint.url} is served by an engine with another store already "
            f"({who.process}): give each a server, or an account, of its own"
        )
