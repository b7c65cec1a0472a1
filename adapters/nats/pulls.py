"""Pulling from a JetStream consumer: a steady, bounded flow of messages, and their settlement.

Invariants: at most `UNSETTLED_MAX` messages are with us unsettled; every message is settled once, by an ack (done), a
term (never again) or a nak (again, after a delay) that goes out only when its fate is known. The stream and the
consumer are looked after: when they, the connection or JetStream go away, pulling begins anew once they are back.

Several pull requests are outstanding at once and their messages arrive at one inbox, so there is no gap between
batches and a lone message is delivered at once. What is outstanding is known from the counts that the server reports
when a request ends (`Nats-Pending-Messages`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats.connection import Connection
from statewright.engine.errors import UnavailableError
from statewright.engine.tasks import end

BATCH = 256
"""Messages asked for by one pull request."""
UNSETTLED_MAX = 4 * BATCH
UNSETTLED_BYTES_MAX = 64 * 1024 * 1024
"""While unsettled messages are as large as this together, no more are asked for."""
REQUEST_BYTES_MAX = 16 * 1024 * 1024
"""What one pull request may bring, if the server takes no larger messages."""
EXPIRES_S = 30
HEARTBEAT_S = 5
"""How often the server says that an idle pull request still stands."""
SILENCE_MAX_S = 3 * HEARTBEAT_S
"""After this much silence the requests are taken for lost."""
RETRY_WAIT_S = 0.2
RETRY_WAIT_MAX_S = 5.0
NAK_WAIT_S = 0.1
NAK_WAIT_MAX_S = 30.0

_LOG = logging.getLogger("statewright.nats")


class Delivery:
    """One message, and the three ways to settle it. Settling again does nothing."""

    __slots__ = ("_flow", "_settled", "message")

    def __init__(self, flow: Flow, message: Msg) -> None:
        self._flow = flow
        self._settled = False
        self.message = message

    @property
    def attempt(self) -> int:
        """How many times it has been delivered, counting this."""
        return self.message.metadata.num_delivered

    @property
    def identity(self) -> str:
        """The same in every delivery of this message, and no other message's."""
        metadata = self.message.metadata
        return f"{metadata.stream}:{metadata.sequence.stream}:{metadata.timestamp.timestamp():.6f}"

    def ack(self) -> None:
        self._settle(b"")

    def term(self) -> None:
        self._settle(Msg.Ack.Term)

    def nak(self) -> None:
        """Deliver it again, later each time."""
        delay_s = min(NAK_WAIT_S * 2 ** min(self.attempt - 1, 20), NAK_WAIT_MAX_S)
        self._settle(Msg.Ack.Nak + b' {"delay": %d}' % round(delay_s * 1_000_000_000))

    def _settle(self, answer: bytes) -> None:
        if not self._settled:
            self._settled = True
            self._flow.settled(self.message, answer)


class Flow:
    """The flow of one consumer. `ensure` makes sure that the stream and the consumer are there (it may raise; then it
    is tried again); `deliver` is called for each message, in order, and must not block."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        ensure: Callable[[], Awaitable[None]],
        deliver: Callable[[Delivery], None],
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._name = f"{stream}/{consumer}"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._ensure = ensure
        self._deliver = deliver
        self._on_settled = on_settled
        self._inbox = connection.nc.new_inbox()
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._asked = 0
        self._unsettled = 0
        self._unsettled_bytes = 0
        self._lost = True
        self._pulling = False
        self._fault = ""
        self._closing = False

    async def open(self) -> None:
        """Begin; returns at once, the stream may still be missing."""
        self._subscription = await self._connection.subscribe(self._inbox, self._on_message)
        self._connection.on_reconnected.append(self._restart)
        self._task = asyncio.create_task(self._run(), name=f"pull {self._name}")

    async def close(self, timeout_s: float) -> None:
        """Ask for no more and wait until what is with us is settled (bounded; the rest is delivered again)."""
        self._closing = True
        await end(self._task)
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except nats.errors.Error as error:
                _LOG.debug("closing %s: %s", self._name, error)
        try:
            async with asyncio.timeout(timeout_s):
                while self._unsettled:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            _LOG.warning("%d messages of %s were left for redelivery", self._unsettled, self._name)

    @property
    def pulling(self) -> bool:
        """Whether requests for messages stand, as far as is known."""
        return self._pulling and not self._lost

    @property
    def name(self) -> str:
        """stream/consumer"""
        return self._name

    def settled(self, message: Msg, answer: bytes) -> None:
        """Used by `Delivery`."""
        self._unsettled -= 1
        self._unsettled_bytes -= len(message.data)
        self._connection.post(message.reply, answer)
        self._on_settled()
        if self._closing or self._room() >= BATCH:
            self._changed.set()

    def _room(self) -> int:
        if self._unsettled_bytes >= UNSETTLED_BYTES_MAX:
            return 0
        return UNSETTLED_MAX - self._unsettled - self._asked

    async def _run(self) -> None:
        wait_s = RETRY_WAIT_S
        while True:
            try:
                await self._connection.online.wait()
                try:
                    await self._pull()
                finally:
                    self._pulling = False
            except Exception as error:
                level = logging.WARNING if wait_s == RETRY_WAIT_S else logging.DEBUG
                _LOG.log(level, "can't pull from %s, trying again: %s", self._name, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_WAIT_MAX_S)
            else:
                wait_s = RETRY_WAIT_S

    async def _pull(self) -> None:
        """Pull until the requests are lost. Raises what `ensure` raises, and what the server says."""
        self._lost, self._fault, self._asked = False, "", 0
        await self._ensure()
        wanted = _wanted(self._connection.nc.max_payload)
        self._pulling = True
        while not self._lost:
            self._changed.clear()
            while self._room() >= BATCH:
                self._asked += BATCH
                await self._connection.nc.publish(self._next, wanted, reply=self._inbox)
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    await self._changed.wait()
            except TimeoutError:
                if self._asked:
                    _LOG.warning("no sign of %s for %d s, asking anew", self._name, SILENCE_MAX_S)
                    return
        if self._fault:
            raise UnavailableError(self._fault)

    async def _restart(self) -> None:
        self._lost = True
        self._changed.set()

    async def _on_message(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers and not message.data else None
        if status is not None and not message.reply.startswith("$JS.ACK."):
            self._on_status(status, message.headers or {})
            return
        if self._closing:
            return  # Not settled: it is delivered again.
        self._asked = max(0, self._asked - 1)
        self._unsettled += 1
        self._unsettled_bytes += len(message.data)
        self._deliver(Delivery(self, message))
        if self._room() >= BATCH:
            self._changed.set()

    def _on_status(self, status: str, headers: dict[str, str]) -> None:
        if status == "100":  # A heartbeat: a sign of life.
            self._changed.set()
            return
        left = headers.get("Nats-Pending-Messages")
        if status in ("404", "408") or (status == "409" and left is not None):
            # This request has ended with `left` messages undelivered.
            self._asked = max(0, self._asked - int(left or BATCH))
        else:
            self._lost, self._fault = True, f"{status} {headers.get('Description', '')}".strip()
        self._changed.set()


def _wanted(max_payload: int) -> bytes:
    """What a pull request says. Its bound on bytes leaves room for any one message with its headers: else one that
    exceeds it would never come."""
    wanted = {
        "batch": BATCH,
        "max_bytes": max(REQUEST_BYTES_MAX, 2 * max_payload),
        "expires": EXPIRES_S * 1_000_000_000,
        "idle_heartbeat": HEARTBEAT_S * 1_000_000_000,
    }
    return json.dumps(wanted).encode()
