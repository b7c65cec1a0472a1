"""History: every committed fact, published in order on `statewright.history.<definition>.<instance>`.

Invariants: a projection like any other: its position moves only after the stream has acked everything up to it, so
each fact is published at least once, with `Nats-Msg-Id` = instance:sequence (the stream drops repetitions within its
duplicate window). Each message names the one that it must follow (`Nats-Expected-Last-Msg-Id`), so that no failure
half way, and nothing that lingered in a buffer while the server was away, can reorder them. An empty stream (a new
server) gets everything from the beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import nats.errors
from eventsourcing.persistence import Tracking
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.streams import HISTORY, ensure_stream
from statewright.engine.engine import Engine
from statewright.engine.errors import UnavailableError
from statewright.engine.events import AnyFact, InstanceStarted
from statewright.engine.log import LoggedFact

ACK_TIMEOUT_S = 10.0
"""How long the stream may be silent while acks are missing."""
RETRY_WAIT_S = 0.2
RETRY_WAIT_MAX_S = 10.0
DEFINITIONS_MAX = 50_000

_LOG = logging.getLogger("statewright.nats")

_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    description: str = ""
    err_code: int = 0


class _PubAck(msgspec.Struct):
    error: _Error | None = None
    stream: str = ""


_decode_ack = msgspec.json.Decoder(_PubAck).decode


class History:
    """The projection. `open` it before it is attached to an engine."""

    name = "nats-history"

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._js = connection.nc.jetstream(timeout=2)
        self._definitions: OrderedDict[str, str] = OrderedDict()
        self._inbox = connection.nc.new_inbox()
        self._subscription: Subscription | None = None
        self._acks = _Acks(0)
        self._run = 0

    async def open(self) -> None:
        self._subscription = await self._connection.nc.subscribe(f"{self._inbox}.*", cb=self._on_ack)
        self._connection.on_reconnected.append(self._reconnected)

    async def position(self) -> int:
        """See `Projection`."""
        if await self._stream_ready() == 0:
            return 0
        return await self._engine.on_reader(self._engine.recorder.max_tracking_id, self.name) or 0

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        """See `Projection`. Returns only when the stream has taken them all; an unavailable stream is waited for."""
        messages = [(await self._subject(entry.fact), entry.fact) for entry in facts]
        while True:
            try:
                await self._publish(messages)
                break
            except UnavailableError as error:
                if not self._connection.closing:
                    _LOG.warning("history waits for its stream: %s", error)
                await asyncio.sleep(RETRY_WAIT_S)
                await self._stream_ready()
        position = Tracking(self.name, facts[-1].position)
        await self._engine.on_writer(self._engine.recorder.insert_tracking, position)

    async def _stream_ready(self) -> int:
        """Wait until the stream is there; how many facts it ever took."""
        wait_s = RETRY_WAIT_S
        while True:
            # Closed doors never come online again: then this waits until the engine ends it.
            await self._connection.online.wait()
            try:
                await ensure_stream(self._js, HISTORY)
                return (await self._js.stream_info(HISTORY.name or "")).state.last_seq
            except (nats.errors.Error, TimeoutError, UnavailableError) as error:
                level = logging.WARNING if wait_s == RETRY_WAIT_S else logging.DEBUG
                _LOG.log(level, "history waits for its stream: %s", error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_WAIT_MAX_S)

    async def _publish(self, messages: Sequence[tuple[str, AnyFact]]) -> None:
        """Publish all without waiting in between, then wait for all acks."""
        self._run += 1
        self._acks = acks = _Acks(len(messages))
        reply = f"{self._inbox}.{self._run}"
        previous = ""
        for subject, fact in messages:
            message_id = f"{fact.instance_id}:{fact.sequence}"
            headers = {"Nats-Msg-Id": message_id}
            if previous:
                headers["Nats-Expected-Last-Msg-Id"] = previous
            previous = message_id
            try:
                await self._connection.nc.publish(subject, _encode(fact), reply, headers)
            except nats.errors.Error as error:
                raise UnavailableError(f"fact {message_id} can't be published: {error}") from error
        await acks.complete()

    async def _on_ack(self, message: Msg) -> None:
        if message.subject.rpartition(".")[2] == str(self._run):  # Not of a run that was given up.
            self._acks.take(message)

    async def _reconnected(self) -> None:
        self._acks.give_up("the server was away, acks are lost")

    async def _subject(self, fact: AnyFact) -> str:
        instance_id = fact.instance_id
        definition = fact.definition if isinstance(fact, InstanceStarted) else self._definitions.get(instance_id)
        if definition is None:
            definition = (await self._engine.status(instance_id)).definition
        self._definitions[instance_id] = definition
        self._definitions.move_to_end(instance_id)
        if len(self._definitions) > DEFINITIONS_MAX:
            self._definitions.popitem(last=False)
        return f"statewright.history.{definition}.{instance_id}"


class _Acks:
    """The acks that are missing."""

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._error = ""
        self._taken = asyncio.Event()

    def take(self, message: Msg) -> None:
        if message.headers and message.headers.get("Status") == "503":
            self._error = self._error or f"no stream {HISTORY.name}"
        else:
            ack = _decode_ack(message.data)
            if ack.error is not None:
                self._error = self._error or ack.error.description
        self._missing -= 1
        self._taken.set()

    def give_up(self, why: str) -> None:
        """What is missing now will not come."""
        if self._missing > 0:
            self._error = self._error or why
            self._taken.set()

    async def complete(self) -> None:
        """Raises `UnavailableError` once one is bad or none comes for too long."""
        while self._missing > 0 and not self._error:
            self._taken.clear()
            try:
                async with asyncio.timeout(ACK_TIMEOUT_S):
                    await self._taken.wait()
            except TimeoutError:
                self._error = f"no ack within {ACK_TIMEOUT_S:g} s"
        if self._error:
            raise UnavailableError(f"stream {HISTORY.name} did not take all facts: {self._error}")
