"""History: every committed fact, published in order on `statewright.history.<definition>.<instance>`.

Invariants: the stream itself says how far it has come: each message carries the log position of its fact
(`Statewright-Position`), written with it or not at all, and publishing goes on after the last one that is there, so
each fact is in the stream at least once, whatever died in between. Each message names the one that it must follow
(`Nats-Expected-Last-Msg-Id`), so nothing that lingered in a buffer while the server was away can reorder them.

The stream is a copy of the log and can always be completed from it, so it is made with `persist_mode: async` (a flush
to disk for each message would hold the whole server to a few thousand a second, this door's acks among them). What a
dying server had not flushed is published again when it is back. The position is also tracked in the store, now
and then, for a stream that somebody has emptied.
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
from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.streams import HISTORY, ensure_stream
from statewright.adapters.nats.tasks import end
from statewright.engine.engine import Engine
from statewright.engine.errors import UnavailableError
from statewright.engine.events import AnyFact, InstanceStarted
from statewright.engine.log import LoggedFact

PAGE = 500
ACK_TIMEOUT_S = 10.0
"""How long the stream may be silent while acks are missing."""
RETRY_WAIT_S = 0.2
RETRY_WAIT_MAX_S = 10.0
TRACK_EVERY_S = 5.0
DEFINITIONS_MAX = 50_000
"""How many instances are remembered with their definition."""
POSITION = "Statewright-Position"

_LOG = logging.getLogger("statewright.nats")
_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    description: str = ""


class _PubAck(msgspec.Struct):
    error: _Error | None = None


_decode_ack = msgspec.json.Decoder(_PubAck).decode


class History:
    """The projection. `open` it before it is attached to an engine, `close` it before the connection."""

    name = "nats-history"

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._js = connection.nc.jetstream(timeout=2)
        self._definitions: OrderedDict[str, str] = OrderedDict()
        self._inbox = connection.nc.new_inbox()
        self._acks = _Acks(0)
        self._run = 0
        self._publishing = asyncio.Lock()
        self._filling: asyncio.Task[None] | None = None
        self._published = 0
        self._last_id = ""
        self._tracked = 0
        self._tracked_at = 0.0

    async def open(self) -> None:
        await self._connection.nc.subscribe(f"{self._inbox}.*", cb=self._on_ack)
        self._connection.on_reconnected.append(self._reconnected)

    async def close(self) -> None:
        """Keep the position. Facts that come later are published by the next run."""
        self._acks.give_up("the doors are closing")
        await end(self._filling)
        if self._published:
            await self._track()

    async def position(self) -> int:
        """See `Projection`."""
        async with self._publishing:
            self._published = await self._position_of_stream()
            return self._published

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        """See `Projection`. Returns only when the stream has taken them all; an unavailable stream is waited for."""
        async with self._publishing:
            await self._publish_all(facts)
        if asyncio.get_running_loop().time() - self._tracked_at > TRACK_EVERY_S:
            await self._track()

    async def _publish_all(self, facts: Sequence[LoggedFact]) -> None:
        while True:
            try:
                await self._publish(facts)
            except UnavailableError as error:
                if not self._connection.closing:
                    _LOG.warning("history waits for its stream: %s", error)
                await asyncio.sleep(RETRY_WAIT_S)
                await self._fill_gap()
            else:
                self._published = max(self._published, facts[-1].position)
                return

    async def _publish(self, facts: Sequence[LoggedFact]) -> None:
        """Publish all without waiting in between, then wait for all acks."""
        self._run += 1
        self._acks = acks = _Acks(len(facts))
        reply = f"{self._inbox}.{self._run}"
        previous = self._last_id
        for position, fact in facts:
            message_id = f"{fact.instance_id}:{fact.sequence}"
            headers = {"Nats-Msg-Id": message_id, POSITION: str(position)}
            if previous:
                headers["Nats-Expected-Last-Msg-Id"] = previous
            previous = message_id
            subject = await self._subject(fact)
            try:
                await self._connection.nc.publish(subject, _encode(fact), reply, headers)
            except nats.errors.Error as error:
                raise UnavailableError(f"fact {message_id} can't be published: {error}") from error
        await acks.complete()
        self._last_id = previous

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

    async def _on_ack(self, message: Msg) -> None:
        if message.subject.rpartition(".")[2] == str(self._run):  # Not of a run that was given up.
            self._acks.take(message)

    async def _reconnected(self) -> None:
        """The server may have died with acked facts that it had not flushed."""
        self._acks.give_up("the server was away")  # Whoever publishes now looks for the gap before it goes on.
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill_gap_alone(), name="history, filling a gap")

    async def _fill_gap_alone(self) -> None:
        async with self._publishing:
            await self._fill_gap()

    async def _fill_gap(self) -> None:
        """Publish again what was published but is no longer in the stream."""
        position = await self._position_of_stream()
        while position < self._published:
            facts = await self._engine.on_reader(self._engine.log.following, position, PAGE)
            missing = [entry for entry in facts if entry.position <= self._published]
            if not missing:
                return
            try:
                await self._publish(missing)
            except UnavailableError:
                await asyncio.sleep(RETRY_WAIT_S)
            position = await self._position_of_stream()

    async def _position_of_stream(self) -> int:
        """Wait until the stream is there; the log position of its last fact (whose id is then `_last_id`)."""
        wait_s = RETRY_WAIT_S
        while True:
            # Closed doors never come online again: then this waits until the engine ends it.
            await self._connection.online.wait()
            try:
                return await self._last_position()
            except (nats.errors.Error, TimeoutError, UnavailableError) as error:
                level = logging.WARNING if wait_s == RETRY_WAIT_S else logging.DEBUG
                _LOG.log(level, "history waits for its stream: %s", error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_WAIT_MAX_S)

    async def _last_position(self) -> int:
        await ensure_stream(self._js, HISTORY)
        state = (await self._js.stream_info(HISTORY.name or "")).state
        self._last_id = ""
        if state.messages:
            headers = (await self._js.get_msg(HISTORY.name or "", state.last_seq)).headers or {}
            self._last_id = headers.get("Nats-Msg-Id", "")
            if headers.get(POSITION, "").isdecimal():
                return int(headers[POSITION])
        elif state.last_seq == 0:
            return 0  # A new stream: everything, from the beginning.
        return await self._engine.on_reader(self._engine.recorder.max_tracking_id, self.name) or 0

    async def _track(self) -> None:
        self._tracked_at = asyncio.get_running_loop().time()
        if self._published > self._tracked:
            self._tracked = self._published
            await self._engine.on_writer(self._engine.recorder.insert_tracking, Tracking(self.name, self._tracked))


class _Acks:
    """The acks that are missing."""

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._error = ""
        self._taken = asyncio.Event()

    def take(self, message: Msg) -> None:
        if message.headers and message.headers.get("Status") == "503":
            self._error = self._error or f"no stream {HISTORY.name}"
        elif b'"error"' in message.data and (failed := _decode_ack(message.data).error) is not None:
            self._error = self._error or failed.description
        self._missing -= 1
        if self._missing == 0 or self._error:
            self._taken.set()

    def give_up(self, why: str) -> None:
        """What is missing now will not come."""
        if self._missing > 0:
            self._error = self._error or why
            self._taken.set()

    async def complete(self) -> None:
        """Raises `UnavailableError` once one is bad or they don't come."""
        if self._missing > 0 and not self._error:
            try:
                async with asyncio.timeout(ACK_TIMEOUT_S):
                    await self._taken.wait()
            except TimeoutError:
                self._error = f"acks are missing after {ACK_TIMEOUT_S:g} s"
        if self._error:
            raise UnavailableError(f"stream {HISTORY.name} did not take all facts: {self._error}")
