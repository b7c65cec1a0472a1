"""History: every committed fact, published in order on `statewright.history.<definition>.<instance>`.

Invariants: the stream itself says how far it has come: each message carries the log position of its fact
(`Statewright-Position`), written with it or not at all, and publishing goes on after the last one that is there, so
each fact is in the stream at least once, whatever died in between. That holds if the last message is a fact of this
store; if it isn't (another store was served here before, or this one came from a backup), publishing goes on from the
position that the store itself has kept. Each message names the one that it must follow
(`Nats-Expected-Last-Msg-Id`), so nothing that lingered in a buffer while the server was away can reorder them.

A fact that is larger than the bus allows is published by reference (see `references`).

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
from nats.js.api import RawStreamMsg

from statewright.adapters.nats import references
from statewright.adapters.nats.configurations import Configurations
from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.streams import HISTORY, ensure_stream
from statewright.engine.engine import Engine
from statewright.engine.errors import NotFoundError, UnavailableError
from statewright.engine.events import AnyFact, InstancePruned, InstanceStarted
from statewright.engine.log import LoggedFact
from statewright.engine.outage import Outage
from statewright.engine.tasks import end

PAGE = 500
ACK_TIMEOUT_S = 3.0
"""How long to wait for the ack of a page; then it is looked up what the stream has, and the rest is published again."""
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
    err_code: int = 0


WRONG_LAST_ID = 10070
"""What the server calls it when a message doesn't follow the one that it names."""


class _EarlierNotTaken(UnavailableError):
    """The stream did not take a fact, because it had not taken one before it."""


class _PubAck(msgspec.Struct):
    error: _Error | None = None


class _Stamp(msgspec.Struct):
    """What tells a fact from every other, also from one with the same ids in another store."""

    instance_id: str
    sequence: int
    time: int


def _stamp(fact: AnyFact) -> _Stamp:
    return _Stamp(fact.instance_id, fact.sequence, fact.time)


def _message_id(fact: AnyFact) -> str:
    """instance:sequence. A tombstone's sequence is free again once the instance is restored."""
    pruned = ":pruned" if isinstance(fact, InstancePruned) else ""
    return f"{fact.instance_id}:{fact.sequence}{pruned}"


_decode_stamp = msgspec.json.Decoder(_Stamp).decode
_decode_ack = msgspec.json.Decoder(_PubAck).decode


class History:
    """The projection, to be attached to an engine; `close` it before the connection."""

    name = "nats-history"

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._js = connection.nc.jetstream(timeout=2)
        self._definitions: OrderedDict[str, str] = OrderedDict()
        self._configurations = Configurations(self._configuration)
        self._publishing = asyncio.Lock()
        self._filling: asyncio.Task[None] | None = None
        self._published = 0
        self._last_id = ""
        self._asks_first = False
        self._tracked = 0
        connection.on_reconnected.append(self._reconnected)
        self._tracked_at = 0.0
        self._outage = Outage("history waits for its stream", engine.clock, logging.WARNING)

    async def close(self) -> None:
        """Keep the position. Facts that come later are published by the next run."""
        await end(self._filling)
        try:
            await self._track()
        except Exception as error:  # It is only a help for the next run.
            _LOG.warning("the position of history is not kept: %s", error)

    async def position(self) -> int:
        """See `Projection`."""
        async with self._publishing:
            self._tracked = await self._engine.on_reader(self._read_tracked)
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
                await self._wait_for_stream(error)
                position = await self._fill_gap()
                # Those that it took: sent again, the first would be acked as a duplicate and tell nothing.
                facts = [entry for entry in facts if entry.position > position] or facts[-1:]
            else:
                self._taken()
                self._published = max(self._published, facts[-1].position)
                return

    async def _publish(self, facts: Sequence[LoggedFact]) -> None:
        """Publish all without waiting in between. Since each must follow the one before it, the ack of the last stands
        for all."""
        previous = self._last_id
        asked = {facts[-1].position, facts[0].position} if self._asks_first else {facts[-1].position}
        for position, fact in facts:
            headers = {"Nats-Msg-Id": _message_id(fact), POSITION: str(position)}
            if previous:
                headers["Nats-Expected-Last-Msg-Id"] = previous
            previous = headers["Nats-Msg-Id"]
            subject = await self._subject(fact)
            payload = _encode(await self._configurations.whole(fact))
            if not references.fits(len(payload), self._connection.nc.max_payload):
                headers[references.HEADER] = references.subject_of(fact)
                payload = references.encode_reference(fact, len(_encode(fact)))
            try:
                if position not in asked:
                    await self._connection.nc.publish(subject, payload, headers=headers)
                    continue
                ack = await self._connection.nc.request(subject, payload, ACK_TIMEOUT_S, headers=headers)
            except (nats.errors.Error, TimeoutError) as error:
                raise UnavailableError(f"fact {previous} can't be published: {error}") from error
            if (failed := _decode_ack(ack.data).error) is not None:
                said = f"stream {HISTORY.name} did not take fact {previous}: {failed.description}"
                is_later = failed.err_code == WRONG_LAST_ID and position != facts[0].position
                raise (_EarlierNotTaken if is_later else UnavailableError)(said)
        self._last_id = previous

    async def _configuration(self, instance_id: str, sequence: int) -> tuple[str, ...] | None:
        try:
            outcome = await self._engine.on_reader(self._engine.log.outcome_at, instance_id, sequence)
        except NotFoundError:  # Pruned meanwhile.
            return None
        return outcome.configuration

    async def _subject(self, fact: AnyFact) -> str:
        instance_id = fact.instance_id
        if isinstance(fact, InstanceStarted | InstancePruned):
            definition: str | None = fact.definition
        else:
            definition = self._definitions.get(instance_id)
        if definition is None:
            definition = (await self._engine.status(instance_id)).definition
        self._definitions[instance_id] = definition
        self._definitions.move_to_end(instance_id)
        if len(self._definitions) > DEFINITIONS_MAX:
            self._definitions.popitem(last=False)
        return f"statewright.history.{definition}.{instance_id}"

    async def _reconnected(self) -> None:
        """The server may have died with acked facts that it had not flushed."""
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill_gap_alone(), name="history, filling a gap")

    async def _fill_gap_alone(self) -> None:
        async with self._publishing:
            await self._fill_gap()

    async def _fill_gap(self) -> int:
        """Publish again what was published but is no longer in the stream; the position that the stream then has."""
        position = await self._position_of_stream()
        while position < self._published:
            facts = await self._engine.on_reader(self._engine.log.following, position, PAGE)
            missing = [entry for entry in facts if entry.position <= self._published]
            if not missing:
                break
            try:
                await self._publish(missing)
            except UnavailableError as error:
                await self._wait_for_stream(error)
            else:
                self._taken()
            position = await self._position_of_stream()
        return position

    async def _wait_for_stream(self, error: UnavailableError) -> None:
        # Why an earlier one was not taken is known when the first is asked for its ack, too.
        self._asks_first = True
        if not isinstance(error, _EarlierNotTaken) and not self._connection.closing:
            self._outage.failed(error)
        await asyncio.sleep(RETRY_WAIT_S)

    def _taken(self) -> None:
        self._asks_first = False
        self._outage.over()

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
            message = await self._js.get_msg(HISTORY.name or "", state.last_seq)
            headers = message.headers or {}
            self._last_id = headers.get("Nats-Msg-Id", "")
            if headers.get(POSITION, "").isdecimal():
                position = int(headers[POSITION])
                if await self._is_ours(message, position):
                    return position
                _LOG.warning("stream %s ends with a fact of another store; this one's follow", HISTORY.name)
        elif state.last_seq == 0:
            return 0  # A new stream: everything, from the beginning.
        return self._tracked

    async def _is_ours(self, message: RawStreamMsg, position: int) -> bool:
        """Whether the fact in `message` is the one that the store has at `position`."""
        stored = await self._engine.on_reader(self._engine.log.following, position - 1, 1)
        try:
            published = _decode_stamp(message.data or b"")
        except msgspec.DecodeError:
            return False
        if [at for at, _ in stored] != [position]:
            return await self._engine.on_reader(self._is_pruned, published)
        return _stamp(stored[0].fact) == published

    def _is_pruned(self, published: _Stamp) -> bool:
        """Whether a fact is not in the store because it was pruned since it was published."""
        left = self._engine.log.facts(published.instance_id)
        return bool(left) and isinstance(left[-1], InstancePruned) and left[-1].sequence > published.sequence

    def _read_tracked(self) -> int:
        return self._engine.recorder.max_tracking_id(self.name) or 0

    async def _track(self) -> None:
        self._tracked_at = asyncio.get_running_loop().time()
        if self._published > self._tracked:
            self._tracked = self._published
            await self._engine.on_writer(self._engine.recorder.insert_tracking, Tracking(self.name, self._tracked))
