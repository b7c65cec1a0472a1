"""Services on the bus: found, watched and asked (the port `ServiceBus`).

Discovery is `nats.micro`'s: `$SRV.INFO` says who there is and which subjects they answer, `$SRV.STATS` how they are. In
an endpoint's statistics `data` may be a map with `load` (0..1) and `healthy`; so a service in any language tells both
with its library's handler for statistics. Calls are those of `Performers`.

Invariants: a service that has no endpoint on `statewright.calls.<its name>.` is none of ours. What can't be understood
of an answer is as if it weren't there. A look ends in a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import nats.errors
from nats.aio.client import NO_RESPONDERS_STATUS
from nats.aio.subscription import Subscription
from nats.js.api import Header

from statewright.adapters.nats.connection import CONNECT_TIMEOUT_S, Connection, connect
from statewright.adapters.nats.endpoint import Endpoint, NatsOptions
from statewright.adapters.nats.performers import CALL_TIMEOUT_S, Performers
from statewright.engine.calls import EffectCall
from statewright.engine.clock import Clock, SystemClock
from statewright.engine.errors import UnavailableError
from statewright.engine.services import CALLS, INSTANCE_KEY, Announcement
from statewright.statecharts.facts import Json

LOOK_S = 1.0
"""How long those are waited for that were there before."""
FIRST_S = 0.3
"""How long the first answer is waited for."""
QUIET_S = 0.1
"""After so long without another answer, all are taken to have answered."""
ANSWERS_MAX = 20_000

_WORD = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LOG = logging.getLogger("statewright.nats")


class _Endpoint(msgspec.Struct, frozen=True):
    subject: str = ""
    data: Any = None


class _Answer(msgspec.Struct, frozen=True):
    """INFO's and STATS's answers, as far as they matter here."""

    id: str
    name: str
    type: str = ""
    version: str = ""
    description: str | None = None
    metadata: dict[str, str] | None = None
    endpoints: tuple[_Endpoint, ...] | None = None


_read = msgspec.json.Decoder(_Answer).decode


class NatsServices:
    """A `ServiceBus`. `await NatsServices.connect(url)`, then `close()`, or `async with`; or on a connection that is
    there already, which it doesn't close."""

    def __init__(
        self, connection: Connection, clock: Clock | None = None, call_timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._connection = connection
        self._performers = Performers(connection, clock or SystemClock(), call_timeout_s)
        self._owns_connection = False

    @classmethod
    async def connect(
        cls,
        endpoint: NatsOptions | str,
        *,
        clock: Clock | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Self:
        """`endpoint` is a NATS URL, `NatsOptions` or an `Endpoint`; `call_timeout_s` is for calls without a timeout of
        their own. Raises `InvalidError`, `UnavailableError`."""
        where = endpoint if isinstance(endpoint, Endpoint) else Endpoint.of(endpoint)
        services = cls(
            await connect(where, name="statewright services", timeout_s=connect_timeout_s), clock, call_timeout_s
        )
        services._owns_connection = True
        return services

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._owns_connection:
            await self._connection.close()

    async def call(self, effect: EffectCall, instance: str = "") -> Json:
        """See `Performers.call`."""
        result: Json = await self._performers.call(effect, instance)
        return result

    async def discover(self, expected: Collection[str] = ()) -> Sequence[Announcement]:
        """Who answers now. Raises `UnavailableError` while the server is away."""
        connection = self._connection
        if not connection.online.is_set():
            raise UnavailableError(f"no connection to the nats-server at {connection.endpoint.url}")
        inbox = connection.nc.new_inbox()
        answers: dict[str, list[_Answer]] = {}
        try:
            replies = await connection.nc.subscribe(inbox)
            try:
                await connection.nc.publish("$SRV.INFO", b"", reply=inbox)
                await connection.nc.publish("$SRV.STATS", b"", reply=inbox)
                await _gather(replies, set(expected), answers)
            finally:
                if not connection.nc.is_closed:
                    await replies.unsubscribe()
        except nats.errors.Error as error:
            raise UnavailableError(f"services can't be looked for: {error}") from error
        if not connection.online.is_set():  # Whoever has not answered may not have been asked.
            raise UnavailableError(f"the connection to {connection.endpoint.url} was lost while looking for services")
        return [found for given in answers.values() if (found := _announcement(given)) is not None]


async def _gather(replies: Subscription, expected: set[str], answers: dict[str, list[_Answer]]) -> None:
    """Take answers until nobody is missing and it is quiet, or the time is up."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + LOOK_S
    refused = 0
    for _ in range(ANSWERS_MAX):
        is_missing = any(len(answers.get(name, ())) < 2 for name in expected)
        quiet_s = LOOK_S if is_missing else QUIET_S if answers else FIRST_S
        left_s = min(ends_at - loop.time(), quiet_s)
        if left_s <= 0 or refused == 2:
            return
        try:
            message = await replies.next_msg(timeout=left_s)
        except TimeoutError:
            return
        headers = message.headers or {}
        if headers.get(Header.STATUS) == NO_RESPONDERS_STATUS:
            refused += 1
            continue
        try:
            answer = _read(message.data)
        except msgspec.DecodeError as error:
            _LOG.debug("an answer to $SRV that can't be understood: %s", error)
            continue
        answers.setdefault(answer.id, []).append(answer)


def _announcement(answers: Sequence[_Answer]) -> Announcement | None:
    """What one instance has said; None if it is not a service of ours."""
    info = next((answer for answer in answers if "info" in answer.type), None)
    if info is None or not _WORD.fullmatch(info.name):
        return None
    metadata = dict(info.metadata or {})
    word = metadata.get(INSTANCE_KEY, "")
    subjects = [endpoint.subject for endpoint in info.endpoints or ()]
    methods = tuple(_methods(subjects, info.name, ""))
    own = tuple(_methods(subjects, info.name, word)) if _WORD.fullmatch(word) else ()
    if not methods and not own:
        return None
    data = [endpoint.data for answer in answers if "stats" in answer.type for endpoint in answer.endpoints or ()]
    return Announcement(
        service=info.name,
        id=info.id,
        version=info.version,
        description=info.description or "",
        methods=methods,
        own_methods=own,
        metadata=metadata,
        subject_word=word if own else "",
        load=max(_loads(data), default=None),
        is_healthy=all(part.get("healthy") is not False for part in data if isinstance(part, dict)),
    )


def _methods(subjects: Sequence[str], service: str, word: str) -> Iterator[str]:
    """The methods among `subjects`: those of the queue group, or with `word` those of the one instance."""
    for subject in subjects:
        if subject.startswith(f"{CALLS}{service}."):
            method, _, own = subject.removeprefix(f"{CALLS}{service}.").partition(".")
            if own == word and _WORD.fullmatch(method):
                yield method


def _loads(data: Sequence[Any]) -> Iterator[float]:
    for part in data:
        load = part.get("load") if isinstance(part, dict) else None
        if isinstance(load, int | float) and math.isfinite(load):
            yield min(max(float(load), 0.0), 1.0)
