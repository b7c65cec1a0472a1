"""One connection to a nats-server that heals itself.

Invariants: a first connection succeeds within its timeout or is an `UnavailableError`; afterwards it reconnects for
ever. `online` is set while connected. Publishing never blocks its caller: replies and acks go through an outbox that
one task empties. The driver's complaints are logged once each until it is connected again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats.endpoint import Endpoint
from statewright.adapters.nats.logins import seed_of, shown_login, tls_of
from statewright.adapters.nats.replies import encode_error
from statewright.engine.errors import BusyError, TooLargeError, UnavailableError
from statewright.engine.redaction import redacted
from statewright.engine.tasks import end

CONNECT_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.1
PING_INTERVAL_S = 10
PENDING_BYTES_MAX = 8 * 1024 * 1024
"""What may wait to be written; more makes publishers wait while connected, and is refused while not."""
OUTBOX_MAX = 100_000
OUTBOX_BYTES_MAX = 64 * 1024 * 1024
"""What may wait in the outbox; beyond that replies and acks are dropped, as they are when a connection is lost."""
CLOSE_TIMEOUT_S = 2.0
CROWDED = 50_000
CROWDED_BYTES = 32 * 1024 * 1024
"""How much may be posted and not yet written before the doors take no more requests."""
SUBSCRIPTION_MAX = 65_536
SUBSCRIPTION_BYTES_MAX = 32 * 1024 * 1024
"""What the driver keeps of one subscription until it is looked at; a request beyond it is answered `busy`."""

_LOG = logging.getLogger("statewright.nats")


class _Driver(NatsClient):
    """nats-py, which sends the password in the clear if `tls://` meets a server (or somebody in its place) that offers
    no TLS; this one doesn't."""

    def __init__(self, wants_tls: bool) -> None:
        super().__init__()
        self._wants_tls = wants_tls

    def _connect_command(self) -> bytes:
        if self._wants_tls and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS, nothing was sent to it")
        return super()._connect_command()


class Connection:
    """A connected client. Made by `connect`; `nc` is the driver's."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.nc = _Driver(endpoint.wants_tls)
        self.online = asyncio.Event()
        self.closing = False
        self.on_reconnected: list[Callable[[], Awaitable[None]]] = []
        self._complaints: set[str] = set()
        self._last = ""
        self._was_online = False
        self._outbox: deque[tuple[str, bytes, str, dict[str, str] | None]] = deque()
        self._outbox_bytes = 0
        self.outbox_max = OUTBOX_MAX
        self._dropped = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._poster: asyncio.Task[None] | None = None
        self._room = asyncio.Event()

    async def subscribe(self, subject: str, cb: Callable[[Msg], Awaitable[None]], queue: str = "") -> Subscription:
        """Subscribe, with a bound on what waits."""
        return await self.nc.subscribe(
            subject,
            queue=queue,
            cb=cb,
            pending_msgs_limit=SUBSCRIPTION_MAX,
            pending_bytes_limit=SUBSCRIPTION_BYTES_MAX,
        )

    @property
    def crowded(self) -> bool:
        """Whether so much is posted that no more should be taken which needs an answer."""
        return len(self._outbox) >= CROWDED or self._outbox_bytes >= CROWDED_BYTES

    async def room(self) -> None:
        """Wait until it is crowded no more."""
        while self.crowded:
            self._room.clear()
            await self._room.wait()

    def post(self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Publish soon, in the order of the calls; lost if the connection is gone for good (as any reply may be)."""
        if self._outbox_bytes > OUTBOX_BYTES_MAX or len(self._outbox) >= self.outbox_max:
            self._drop()
            return
        self._outbox.append((subject, payload, reply, headers))
        self._outbox_bytes += len(payload)
        if not self._filled.is_set():
            self._filled.set()
            self._emptied.clear()

    def _drop(self) -> None:
        """The server takes less than there is to say to it: whoever waits asks again, what is not acked comes again."""
        self._dropped += 1
        if self._dropped == 1:
            _LOG.error("replies and acks to %s are dropped: %d wait already", self.endpoint.url, len(self._outbox))

    async def flushed(self) -> None:
        """Wait until what was posted has reached the server. Raises `nats.errors.Error` if it can't."""
        await self._emptied.wait()
        await self.nc.flush(timeout=1)

    def move(self, endpoint: Endpoint) -> None:
        """Look for the server at `endpoint` from the next reconnection on."""
        self.endpoint = endpoint
        self.nc.set_server_pool(endpoint.servers)

    async def close(self) -> None:
        """Write what is waiting and close. Idempotent."""
        self.closing = True
        self.online.clear()
        if self.nc.is_connected:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self.flushed()
        await end(self._poster)
        if not self.nc.is_closed:
            await self._close_driver()

    async def open(self, timeout_s: float) -> None:
        """Raises `UnavailableError`. Used by `connect`."""
        connecting = asyncio.create_task(self._connect(timeout_s), name="nats connect")
        try:
            # No `asyncio.timeout`: it cancels once, the driver may swallow that (see `tasks`), and tries for ever.
            done, _ = await asyncio.wait((connecting,), timeout=timeout_s)
            if not done:
                raise TimeoutError
            connecting.result()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            await self._abandon(connecting)
            raise UnavailableError(self._failure(self._last or _said(error), timeout_s)) from None
        except BaseException:
            await self._abandon(connecting)
            raise
        self._was_online = True
        self.online.set()
        self._poster = asyncio.create_task(self._post_all(), name="nats outbox")

    async def _connect(self, timeout_s: float) -> None:
        seed = seed_of(self.endpoint)
        await self.nc.connect(
            self.endpoint.servers,
            name=self.name,
            user=self.endpoint.user or None,
            password=self.endpoint.password or None,
            token=self.endpoint.token or None,
            user_credentials=self.endpoint.creds or None,
            nkeys_seed_str=seed if self.endpoint.nkey else None,
            tls=tls_of(self.endpoint),
            connect_timeout=timeout_s,  # type: ignore[arg-type]  # The driver takes any number.
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
            pending_size=PENDING_BYTES_MAX,
            error_cb=self._complained,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
        )

    def _failure(self, said: str, timeout_s: float) -> str:
        endpoint = self.endpoint
        if "authorization violation" in said.lower() or "authentication" in said.lower():
            return f"the nats-server at {endpoint.url} refuses {shown_login(endpoint)}: {said}"
        if "ssl" in said.lower() or "certificate" in said.lower() or "tls" in said.lower():
            return f"no TLS connection to the nats-server at {endpoint.url}: {said}"
        return f"no nats-server answers at {endpoint.url} within {timeout_s:g} s: {said}"

    async def _abandon(self, connecting: asyncio.Task[None]) -> None:
        self.closing = True
        await end(connecting)
        await self._close_driver()

    async def _close_driver(self) -> None:
        closing = asyncio.create_task(self.nc.close(), name="nats close")
        await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT_S)
        await end(closing)

    async def _post_all(self) -> None:
        """Empty the outbox for ever."""
        outbox, publish = self._outbox, self.nc.publish
        while True:
            while outbox:
                subject, payload, reply, headers = outbox.popleft()
                self._outbox_bytes -= len(payload)
                if not self._room.is_set():
                    self._room.set()
                try:
                    await publish(subject, payload, reply, headers)
                except nats.errors.MaxPayloadError:
                    error = TooLargeError(f"the reply has {len(payload):,} bytes, more than the nats-server takes")
                    self.post(subject, encode_error(error))
                except Exception as error:
                    await self._complained(error)
            if self._dropped:
                _LOG.warning("%d replies and acks to %s were dropped", self._dropped, self.endpoint.url)
                self._dropped = 0
            self._filled.clear()
            self._emptied.set()
            await self._filled.wait()

    async def _complained(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._overrun(error)
        said = _said(error)
        if not self._last or not isinstance(error, OSError):
            self._last = said  # "Authorization Violation" says more than the connection's reset that may come with it.
        news = said not in self._complaints and self._was_online and not self.closing
        self._complaints.add(said)
        _LOG.log(logging.WARNING if news else logging.DEBUG, "%s: %s", self.endpoint.url, said)

    def _overrun(self, error: nats.errors.SlowConsumerError) -> None:
        """The driver has dropped a message, unread. Who asked is told; JetStream delivers again by itself."""
        if error.reply and not error.reply.startswith("$JS.ACK.") and not self.crowded:
            self.post(error.reply, encode_error(BusyError("more requests arrive than are taken; try again later")))

    async def _disconnected(self) -> None:
        self.online.clear()
        if not self.closing:
            _LOG.warning("disconnected from %s", self.endpoint.url)

    async def _reconnected(self) -> None:
        _LOG.warning("reconnected to %s", self.endpoint.url)
        self._complaints.clear()
        self.online.set()
        for notify in self.on_reconnected:
            try:
                await notify()
            except Exception:
                _LOG.exception("after reconnecting to %s", self.endpoint.url)


async def connect(endpoint: Endpoint, *, name: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
    """A connection to `endpoint`. Raises `UnavailableError` when nobody answers there within `timeout_s`."""
    connection = Connection(endpoint, name)
    await connection.open(timeout_s)
    return connection


def _said(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return redacted(text.removeprefix("nats: "))
