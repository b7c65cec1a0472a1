"""The request doors: start, send, control, schedules, and the queries for a status and a fact.

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
from msgspec.structs import replace
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats import references
from statewright.adapters.nats.admission import AS, Admission, split_actor
from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.envelope import (
    AddSchedule,
    PauseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    decode_control,
    decode_event,
    decode_json,
    decode_schedule,
    decode_start,
)
from statewright.adapters.nats.replies import code_of, encode_answer, encode_error, encode_status
from statewright.adapters.nats.routes import Routes
from statewright.engine.engine import Engine
from statewright.engine.errors import BusyError, InvalidError, NotFoundError, UnavailableError
from statewright.engine.ids import check_id, new_id
from statewright.engine.requests import ControlRequest, ExternalEvent, StartRequest
from statewright.engine.schedules import ScheduleRequest
from statewright.statecharts.errors import StatewrightError

QUEUE_GROUP = "statewright"
QUERIES_MAX = 1_000
"""How many status queries may wait for the reader at once."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""How large the requests that wait for their answer may be together; their number is bounded by the engine's queue."""
DRAIN_TIMEOUT_S = 10.0
STATUS = "statewright.query.status."
WHO = "statewright.query.engine"
"""Every engine answers here who it is."""
WHO_TIMEOUT_S = 0.5

_LOG = logging.getLogger("statewright.nats")
_Request = ExternalEvent | StartRequest | ControlRequest
_Decode = Callable[[str, Msg], _Request]
_Ask = Callable[[str, Msg, str | None], "asyncio.Future[Any]"]
"""(what the subject ends with, message, the actor that the subject vouches for) -> the future of the answer."""

_ROUTED = frozenset({"send", "control"})
"""Doors whose requests are about an instance that some worker looks after."""


class RequestDoors:
    """The request doors of one engine."""

    def __init__(self, engine: Engine, connection: Connection, admission: Admission, store: str) -> None:
        """`store` is the identity of the engine's store."""
        self._admission = admission
        self._engine = engine
        self._connection = connection
        self._store = store
        self._routes = Routes(engine, connection, self._take)
        self._doors: dict[str, _Ask] = {
            "send": partial(self._submit, self._send),
            "start": partial(self._submit, self._start),
            "control": partial(self._submit, self._control),
            "schedule": self._schedule,
        }
        self._subscriptions: list[Subscription] = []
        self._waiting = 0
        self._waiting_bytes = 0
        self._queries: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self) -> None:
        # `>` rather than `*`, so that an id with a dot is told that it is no id, instead of meeting silence.
        await self._routes.open()
        for door in self._doors:
            await self._serve(door)
        await self._subscribe(f"{STATUS}>", self._on_query)
        await self._subscribe(f"{references.PREFIX}>", self._on_query)
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
        await self._subscribe(f"{prefix}>", partial(self._on_request, door, len(prefix), False))
        if self._admission.by_subject:
            await self._subscribe(f"{AS}*.{door}.>", partial(self._on_request, door, 0, True))

    async def _on_request(self, door: str, start: int, vouched: bool, message: Msg) -> None:
        if self._connection.crowded:  # Nothing is taken whose answer could not be posted.
            await self._connection.room()
        actor, about = None, message.subject[start:]
        try:
            if vouched:
                actor, about = split_actor(about.removeprefix(AS))
                about = about.removeprefix(f"{door}.")
        except Exception as error:
            self._refuse(message, error)
            return
        if door not in _ROUTED or not self._routes.hand_on(door, about, message, actor):
            self._take(door, about, message, actor)

    def _take(self, door: str, about: str, message: Msg, actor: str | None) -> None:
        """Submit a request; `about` is its instance, the definition of a start, or a schedule; `actor` who it is from
        if the subject vouches for that."""
        size = len(message.data)
        try:
            if self._waiting and self._waiting_bytes + size > WAITING_BYTES_MAX:
                raise BusyError(f"requests of {self._waiting_bytes:,} bytes are waiting; try again later")
            answered = self._doors[door](about, message, actor)
        except Exception as error:
            self._refuse(message, error)
        else:
            self._waiting += 1
            self._waiting_bytes += size
            self._idle.clear()
            answered.add_done_callback(partial(self._answer, message))

    async def _subscribe(self, subject: str, callback: Callable[[Msg], Any]) -> None:
        self._subscriptions.append(await self._connection.subscribe(subject, callback, QUEUE_GROUP))

    def _submit(self, decode: _Decode, rest: str, message: Msg, actor: str | None) -> asyncio.Future[Any]:
        return self._engine.submit(self._admission.admit(decode(rest, message), actor))

    def _send(self, instance_id: str, message: Msg) -> _Request:
        return decode_event(instance_id, message.headers, message.data)

    def _start(self, definition: str, message: Msg) -> _Request:
        fresh_id = new_id(self._engine.clock.now())
        return decode_start(definition, fresh_id, message.headers, message.data)

    def _control(self, instance_id: str, message: Msg) -> _Request:
        return decode_control(instance_id, message.data)

    def _schedule(self, schedule_id: str, message: Msg, actor: str | None) -> asyncio.Future[Any]:
        action = decode_schedule(schedule_id, message.data)
        if self._admission.by_subject and isinstance(action, AddSchedule):
            action = replace(action, actor=actor or "")
        scheduling = self._engine.scheduling
        match action:
            case AddSchedule():
                asked = scheduling.add(ScheduleRequest(id=schedule_id, **msgspec.structs.asdict(action)))
            case RemoveSchedule():
                asked = scheduling.remove(schedule_id)
            case PauseSchedule():
                asked = scheduling.pause(schedule_id)
            case ResumeSchedule():
                asked = scheduling.resume(schedule_id)
        return asyncio.ensure_future(asked)

    def _answer(self, message: Msg, answered: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        self._waiting_bytes -= len(message.data)
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
            _LOG.error("a request on %s failed", message.subject, exc_info=error, extra=ids_of(message))
        elif code_of(error) in ("busy", "unavailable") and _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug("a request on %s: %s", message.subject, error, extra=ids_of(message))
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
            is_status = message.subject.startswith(STATUS)
            answer = await (self._status(message) if is_status else self._fact(message))
            if message.reply:
                self._connection.post(message.reply, answer)
        except Exception as error:
            self._refuse(message, error)

    async def _status(self, message: Msg) -> bytes:
        instance_id = check_id("an instance id", message.subject.removeprefix(STATUS))
        asked = decode_json("the query", message.data)
        if asked not in (None, {}):
            raise InvalidError(f"expected a status query to have no payload, got {message.data[:60]!r}")
        return encode_status(await self._engine.status(instance_id))

    async def _fact(self, message: Msg) -> bytes:
        """A piece of one fact (see `references`)."""
        instance_id, sequence = references.decode_place(message.subject)
        offset = references.decode_offset(message.data)
        found = await self._engine.history(instance_id, after=sequence - 1, to=sequence)
        if not found:
            raise NotFoundError(f"instance '{instance_id}' has no sequence {sequence}")
        return references.encode_piece(found[0], offset, self._connection.nc.max_payload)


_OF_INSTANCES = ("statewright.send.", "statewright.events.", "statewright.control.", "statewright.query.status.")


def ids_of(message: Msg) -> dict[str, str]:
    """For the log: what a message is about, as far as its subject and headers say."""
    subject = message.subject
    if subject.startswith(AS):
        subject = f"statewright.{subject.removeprefix(AS).partition('.')[2]}"
    instance = next((subject.removeprefix(prefix) for prefix in _OF_INSTANCES if subject.startswith(prefix)), "")
    event = next((value for name, value in (message.headers or {}).items() if name.lower() == "ce-id"), "")
    return {"instance": instance, "event": event}


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
