"""Events from those who don't wait for an answer: the JetStream door, and the foreign subjects of charts.

Invariants: a message is acked only after what became of it is committed (duplicates and refusals are, too); one that
can't be understood or applied is parked with its reason and never delivered again; one that came at a bad time
(queue full, store unavailable) comes again, later each time, and is parked after `DELIVERIES_MAX`; one that meets a
fault of ours (`engine/parking.py`) after `ATTEMPTS_MAX`. `read_parked` understands it again.

A foreign subject that a JetStream stream captures is read through a durable consumer of that stream, from its
creation on: at least once, also what is published while no engine runs. Any other is a core subscription in a queue
group: at most once, as core NATS is; what is published while no engine listens is not seen by anyone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as CoreSubscription
from nats.js import JetStreamContext, api

from statewright.adapters.nats.admission import Admission
from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.envelope import decode_event, decode_json
from statewright.adapters.nats.pulls import NAK_WAIT_MAX_S, NAK_WAIT_S, UNSETTLED_MAX, Flow
from statewright.adapters.nats.replies import RETRYABLE, code_of
from statewright.adapters.nats.requests import ids_of
from statewright.adapters.nats.streams import (
    EVENTS,
    OWN_PREFIX,
    ensure_consumer,
    ensure_stream,
    find_stream,
    purge_settled,
)
from statewright.engine.engine import Engine
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.ids import check_id, new_id
from statewright.engine.parking import ATTEMPTS_MAX, is_fault
from statewright.engine.recorder import ParkedRow
from statewright.engine.requests import ExternalEvent
from statewright.engine.tasks import end
from statewright.statecharts.chart import Chart
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.subscriptions import Subscription

DELIVERIES_MAX = 100
CORE_MAX = 20_000
CORE_BYTES_MAX = 64 * 1024 * 1024
"""How many messages of core subscriptions may be with us, and how large; nobody can be asked to wait, so those beyond
it are lost, as core NATS allows."""
LOST_LOGGED_EVERY = 1_000
PARKINGS_MAX = 10_000
"""How many messages may wait to be parked."""
ACK_WAIT_S = 5.0
"""How long the server waits for an ack before it delivers again: soon after a crash; if an engine is merely slow, its
inbox knows the repetition."""
CLOSE_TIMEOUT_S = 10.0
PURGE_WAIT_S = 1.0
EVENTS_STREAM = EVENTS.name or ""
EVENTS_CONSUMER = "statewright-engine"
EVENTS_PREFIX = "statewright.events."

_LOG = logging.getLogger("statewright.nats")


class Settled(Protocol):
    """A message that wants to be settled (see `pulls.Delivery`)."""

    message: Msg

    @property
    def attempt(self) -> int: ...
    @property
    def identity(self) -> str: ...
    def ack(self) -> None: ...
    def term(self) -> None: ...
    def nak(self) -> None: ...


class Read(Protocol):
    """How a message becomes an event. `chart` is the one whose subscription says so, "" for our own subject.
    identity: tells the delivery's own, which costs as much as decoding the message and is seldom asked for."""

    chart: str

    def __call__(
        self, subject: str, headers: Mapping[str, str], payload: bytes, identity: Callable[[], str]
    ) -> ExternalEvent: ...


CHART_HEADER = "Statewright-Chart"
"""Of a parked message: whose subscription it is for."""


class Inbound:
    """All of one engine's."""

    def __init__(self, engine: Engine, connection: Connection, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission
        self._connection = connection
        self._js = connection.nc.jetstream(timeout=2)
        self._flows: list[Flow] = []
        self._core: list[CoreSubscription] = []
        self._parking: set[asyncio.Task[None]] = set()
        self._core_waiting = 0
        self._core_bytes = 0
        self._lost = 0
        self._purge = asyncio.Event()
        self._purge.set()  # An earlier run may have left something.
        self._purger: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns once all is subscribed. JetStream may be missing: its door then opens when it comes."""
        try:
            await self._ensure_events()
        except (nats.errors.Error, TimeoutError, UnavailableError) as error:
            _LOG.warning("the JetStream door is not open yet: %s", error)
        await self._flow(EVENTS_STREAM, EVENTS_CONSUMER, self._ensure_events, _OwnRead(), self._purge.set)
        self._purger = asyncio.create_task(self._purge_settled(), name="purge of settled events")
        for chart in self._engine.charts.values():
            for subscription in chart.subscriptions:
                await self._follow(chart, subscription)

    async def close(self) -> None:
        await end(self._purger)
        for core in self._core:
            try:
                await core.unsubscribe()
            except nats.errors.Error as error:
                _LOG.debug("closing a subscription: %s", error)
        await asyncio.gather(*(flow.close(CLOSE_TIMEOUT_S) for flow in self._flows))
        await asyncio.gather(*self._parking, return_exceptions=True)

    @property
    def stalled(self) -> list[str]:
        """The stream/consumer of those doors that don't pull now."""
        return [flow.name for flow in self._flows if not flow.pulling]

    def deliver(self, read: Read, delivery: Settled) -> None:
        """Take one message: read it, submit it, and settle it when its fate is known."""
        try:
            message = delivery.message
            event = read(message.subject, message.headers or {}, message.data, lambda: delivery.identity)
            submitted = self._engine.submit(self._admission.admit(event))
        except Exception as error:
            self._failed(read, delivery, error)
        else:
            submitted.add_done_callback(partial(self._submitted, read, delivery))

    def deliver_later(self, read: Read, delivery: CoreDelivery, delay_s: float) -> None:
        """Used by `CoreDelivery`: nobody else will deliver it again."""
        asyncio.get_running_loop().call_later(delay_s, self.deliver, read, delivery)

    def take_core(self, read: Read, message: Msg) -> None:
        """Take a message of core NATS, if there is room for it."""
        size = len(message.data)
        if self._core_waiting and (self._core_waiting >= CORE_MAX or self._core_bytes + size > CORE_BYTES_MAX):
            if self._lost % LOST_LOGGED_EVERY == 0:
                said = (message.subject, self._core_waiting, self._lost + 1)
                _LOG.error("a message on %s is lost: %d others wait already (%d were lost)", *said)
            self._lost += 1
            return
        self._core_waiting += 1
        self._core_bytes += size
        self.deliver(read, CoreDelivery(self, read, message, new_id(self._engine.clock.now())))

    def settled_core(self, message: Msg) -> None:
        """Used by `CoreDelivery`."""
        self._core_waiting -= 1
        self._core_bytes -= len(message.data)

    def _submitted(self, read: Read, delivery: Settled, submitted: asyncio.Future[Any]) -> None:
        if submitted.cancelled():
            delivery.nak()
        elif (error := submitted.exception()) is None:
            delivery.ack()
        else:
            self._failed(read, delivery, error)

    def _failed(self, read: Read, delivery: Settled, error: BaseException) -> None:
        most = ATTEMPTS_MAX if is_fault(error) else DELIVERIES_MAX
        if code_of(error) in RETRYABLE and delivery.attempt < most:
            if _LOG.isEnabledFor(logging.DEBUG):
                ids = ids_of(delivery.message)
                _LOG.debug("a message on %s is tried again: %s", delivery.message.subject, error, extra=ids)
            delivery.nak()
            return
        if len(self._parking) >= PARKINGS_MAX:  # A flood of what nobody understands, faster than it can be kept.
            _LOG.error("a message on %s is not parked: %d others wait for that", delivery.message.subject, PARKINGS_MAX)
            delivery.nak()
            return
        task = asyncio.get_running_loop().create_task(self._park(read, delivery, error))
        self._parking.add(task)
        task.add_done_callback(self._parking.discard)

    async def _park(self, read: Read, delivery: Settled, error: BaseException) -> None:
        message = delivery.message
        reason = str(error) if isinstance(error, StatewrightError) else f"{type(error).__name__}: {error}"
        headers, parked_id = dict(message.headers or {}), delivery.identity
        if read.chart:
            headers[CHART_HEADER] = read.chart
            parked_id = f"{read.chart}:{parked_id}"  # Another chart may follow the same subject.
        row = ParkedRow(parked_id, self._engine.clock.now(), message.subject, reason, _encode(headers), message.data)
        try:
            await self._engine.park(row)
        except Exception as failure:
            text = "a message on %s can't be parked, it comes again: %s"
            _LOG.warning(text, message.subject, failure, extra=ids_of(message))
            delivery.nak()
        else:
            text = "a message on %s is parked as '%s': %s"
            _LOG.warning(text, message.subject, row.parked_id, error, extra=ids_of(message))
            delivery.term()

    async def _ensure_events(self) -> None:
        await ensure_stream(self._js, EVENTS)
        await ensure_consumer(self._js, EVENTS_STREAM, _consumer(EVENTS_CONSUMER, "statewright.events.*"))

    async def _purge_settled(self) -> None:
        """Now and then, while there is something to remove."""
        while True:
            await self._purge.wait()
            await asyncio.sleep(PURGE_WAIT_S)
            self._purge.clear()
            await self._connection.online.wait()
            try:
                await purge_settled(self._js, EVENTS_STREAM, EVENTS_CONSUMER)
            except (nats.errors.Error, TimeoutError) as error:
                _LOG.debug("settled events are not purged yet: %s", error)
                self._purge.set()

    async def _flow(
        self,
        stream: str,
        consumer: str,
        ensure: Callable[[], Any],
        read: Read,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        flow = Flow(self._connection, stream, consumer, ensure, partial(self.deliver, read), on_settled)
        await flow.open()
        self._flows.append(flow)

    async def _follow(self, chart: Chart, subscription: Subscription) -> None:
        """Follow one foreign subject, durably if a stream captures it."""
        read = _ForeignRead(chart.name, subscription)
        name = f"statewright-{chart.name}-{blake2b(subscription.subject.encode(), digest_size=6).hexdigest()}"
        try:
            if (stream := await find_stream(self._js, subscription.subject)) is not None:
                ensure = partial(_ensure_foreign, self._js, stream, name, subscription.subject)
                await ensure()
                await self._flow(stream, name, ensure, read)
                _LOG.info("'%s' is followed through stream %s", subscription.subject, stream)
                return
        except (nats.errors.Error, TimeoutError) as error:
            _LOG.info("'%s' is followed without JetStream: %s", subscription.subject, error)
        await self._subscribe(subscription.subject, name, read)

    async def _subscribe(self, subject: str, queue: str, read: Read) -> None:
        async def on_message(message: Msg) -> None:
            if not message.subject.startswith((OWN_PREFIX, "_INBOX.", "$")):  # A wildcard must not catch our own.
                self.take_core(read, message)

        self._core.append(await self._connection.subscribe(subject, on_message, queue))


class CoreDelivery:
    """A message of core NATS, which has no acks: a nak makes it come again from here."""

    def __init__(self, inbound: Inbound, read: Read, message: Msg, identity: str) -> None:
        self._inbound = inbound
        self._read = read
        self.message = message
        self.identity = identity
        self.attempt = 1

    def ack(self) -> None:
        self._inbound.settled_core(self.message)

    def term(self) -> None:
        self._inbound.settled_core(self.message)

    def nak(self) -> None:
        delay_s = min(NAK_WAIT_S * 2 ** min(self.attempt - 1, 20), NAK_WAIT_MAX_S)
        self.attempt += 1
        self._inbound.deliver_later(self._read, self, delay_s)


class _OwnRead:
    chart = ""

    def __call__(
        self, subject: str, headers: Mapping[str, str], payload: bytes, identity: Callable[[], str]
    ) -> ExternalEvent:
        return decode_event(subject.removeprefix(EVENTS_PREFIX), headers, payload)


class _ForeignRead:
    """Identity: the id that the subscription takes from the message, else its `ce-id` (with `ce-source`), else its
    `Nats-Msg-Id`, else the delivery's own. The source is the subject, unless the message says."""

    def __init__(self, chart: str, subscription: Subscription) -> None:
        self.chart = chart
        self._subscription = subscription

    def __call__(
        self, subject: str, headers: Mapping[str, str], payload: bytes, identity: Callable[[], str]
    ) -> ExternalEvent:
        mapped = self._subscription.map(subject, headers, decode_json(f"a message on '{subject}'", payload))
        lowered = {name.lower(): value for name, value in headers.items()}
        event_id = mapped.id or lowered.get("ce-id") or lowered.get("nats-msg-id") or identity()
        source = lowered.get("ce-source") or subject
        return ExternalEvent(
            check_id("an instance id", mapped.instance_id), mapped.event, mapped.data, event_id, source
        )


def read_parked(charts: Mapping[str, Chart], row: ParkedRow) -> ExternalEvent:
    """The event in a parked message, with the identity that it had. Raises what reading it raised, and `InvalidError`
    if its chart is not there or no longer follows its subject."""
    headers: dict[str, str] = msgspec.json.decode(row.headers)
    name = headers.pop(CHART_HEADER, "")
    if not name and row.subject.startswith(EVENTS_PREFIX):
        return _OwnRead()(row.subject, headers, row.payload, lambda: row.parked_id)
    identity = row.parked_id.removeprefix(f"{name}:")
    chart = charts.get(name)
    for subscription in chart.subscriptions if chart is not None else ():
        if _matches(subscription.subject, row.subject):
            return _ForeignRead(name, subscription)(row.subject, headers, row.payload, lambda: identity)
    raise InvalidError(f"expected definition '{name}' to subscribe to '{row.subject}', it does not")


def _matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject with wildcards means `subject`."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1] if len(given) >= len(wanted) else []
    return len(wanted) == len(given) and all(want in ("*", got) for want, got in zip(wanted, given, strict=True))


def _encode(headers: Mapping[str, str]) -> str:
    return msgspec.json.encode(headers).decode()


def _consumer(name: str, subject: str, policy: api.DeliverPolicy = api.DeliverPolicy.ALL) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        durable_name=name,
        deliver_policy=policy,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=2 * UNSETTLED_MAX,
        filter_subject=subject,
    )


async def _ensure_foreign(js: JetStreamContext, stream: str, name: str, subject: str) -> None:
    """From its creation on, as a core subscription would; only a work queue has to be read from its beginning."""
    info = await js.stream_info(stream)
    from_start = info.config.retention == api.RetentionPolicy.WORK_QUEUE
    policy = api.DeliverPolicy.ALL if from_start else api.DeliverPolicy.NEW
    await ensure_consumer(js, stream, _consumer(name, subject, policy))
