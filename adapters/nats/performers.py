"""Performers of the effects that need a bus: `emit` publishes a message, `call` asks a service.

Invariants: both are at least once, so the effect's id goes along (as `Nats-Msg-Id` and `ce-id`, or as
`Statewright-Effect-Id`), the same in every attempt. While the server is away they wait, until the attempt's time is up.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import NO_RESPONDERS_STATUS
from nats.aio.msg import Msg
from nats.js.api import Header
from nats.js.errors import ServiceUnavailableError

from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.envelope import encode_event
from statewright.adapters.nats.streams import find_stream
from statewright.engine.calls import EffectCall, PermanentError, RetryLater
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import UnavailableError
from statewright.engine.requests import ExternalEvent
from statewright.engine.services import CALLS, NobodyListens

CALL_TIMEOUT_S = 30.0
"""How long a service is waited for if the chart doesn't say."""
IN_PROGRESS = b"+WPI"
"""How a service says that it is still at it: JetStream's acknowledgement "work in progress". JSON may follow."""
LOOKUP_KEPT_S = 10.0
"""How long it is remembered which stream captures a subject."""
LOOKUPS_MAX = 10_000

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_PASSING = ("408", "425", "429")
"""Of the codes that are the caller's fault, those that come of the moment: timeout, too early, too many requests."""
_encode = msgspec.json.Encoder().encode


class ServiceError(UnavailableError):
    """A service answered with an error (`Nats-Service-Error`) that may go away. `service_code` is its code."""

    def __init__(self, message: str, service_code: str) -> None:
        super().__init__(message)
        self.service_code = service_code


class Performers:
    """What performs the effects of kind "emit" and "call"."""

    def __init__(self, connection: Connection, clock: Clock, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._connection = connection
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._js = connection.nc.jetstream(timeout=5)
        self._captured: dict[str, tuple[float, str | None]] = {}

    async def emit(self, effect: EffectCall) -> dict[str, Any] | None:
        """Publish `data` on the subject that is the effect's name, as a CloudEvent in binary mode whose type is the
        subject. Returns `{"stream", "sequence"}` if a stream captures it, else None (then it is at most once)."""
        _check_subject(effect.name)
        event = ExternalEvent(
            effect.instance_id, effect.name, effect.data, effect.effect_id, f"statewright/{effect.instance_id}"
        )
        headers, payload = encode_event(event)
        headers["Nats-Msg-Id"] = effect.effect_id
        await self._connection.online.wait()
        try:
            stream = await self._stream_of(effect.name)
            if stream is None:
                await self._connection.nc.publish(effect.name, payload, headers=headers)
                await self._connection.nc.flush()
                return None
            ack = await self._js.publish(effect.name, payload, stream=stream, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise PermanentError(f"the message has {len(payload):,} bytes, more than the server takes") from error
        except (nats.errors.Error, TimeoutError) as error:
            self._captured.pop(effect.name, None)
            raise UnavailableError(f"'{effect.name}' can't be published: {error}") from error
        return {"stream": ack.stream, "sequence": ack.seq}

    async def call(self, effect: EffectCall, instance: str = "") -> Any:
        """Request `statewright.calls.<service>.<method>`; the reply's JSON is the result. With `instance`, the word
        that an instance of the service has announced as its own, that one alone is asked.

        Headers: `Statewright-Effect-Id`, `Statewright-Attempt`, `Statewright-Deadline` (ns UTC; afterwards nobody
        waits). An error in the reply (`Nats-Service-Error`) with a code from 400 to 499 is for good, but for 408, 425
        and 429; any other is tried again, as is silence. With `Retry-After` (seconds) the service says when.

        If the chart asks for heartbeats, `Statewright-Heartbeat` (ns) says how often: the service publishes `+WPI` to
        the reply subject, with JSON details after a space if it likes, before the one reply that is the result.
        """
        _check_subject(effect.name)
        payload = _encode(effect.data)
        await self._connection.online.wait()
        timeout_s = effect.policy.timeout_ns / SECOND_NS or self._call_timeout_s
        headers = {
            "Statewright-Effect-Id": effect.effect_id,
            "Statewright-Attempt": str(effect.attempt),
            "Statewright-Deadline": str(self._clock.now() + round(timeout_s * SECOND_NS)),
            "content-type": "application/json",
        }
        subject = f"{CALLS}{effect.name}.{instance}" if instance else f"{CALLS}{effect.name}"
        try:
            if effect.policy.heartbeat_ns:
                reply = await self._ask_with_heartbeats(effect, subject, payload, timeout_s, headers)
            else:
                reply = await self._connection.nc.request(subject, payload, timeout_s, headers=headers)
        except nats.errors.NoRespondersError as error:
            raise NobodyListens(subject) from error
        except nats.errors.MaxPayloadError as error:
            raise PermanentError(f"the request has {len(payload):,} bytes, more than the server takes") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise UnavailableError(
                f"no answer from '{subject}' within {timeout_s:g} s: {type(error).__name__}"
            ) from error
        return _result(effect.name, reply)

    async def _ask_with_heartbeats(
        self, effect: EffectCall, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str]
    ) -> Msg:
        """A request with any number of heartbeats before its reply."""
        nc = self._connection.nc
        headers["Statewright-Heartbeat"] = str(effect.policy.heartbeat_ns)
        inbox = nc.new_inbox()
        replies = await nc.subscribe(inbox)
        try:
            async with asyncio.timeout(timeout_s):
                await nc.publish(subject, payload, reply=inbox, headers=headers)
                async for reply in replies.messages:
                    if (reply.headers or {}).get(Header.STATUS) == NO_RESPONDERS_STATUS:
                        raise nats.errors.NoRespondersError
                    if not reply.data.startswith(IN_PROGRESS):
                        return reply
                    effect.heartbeat(_json(f"the heartbeat of {effect.name}", reply.data.removeprefix(IN_PROGRESS)))
            raise nats.errors.ConnectionClosedError
        finally:
            if not nc.is_closed:
                await replies.unsubscribe()

    async def _stream_of(self, subject: str) -> str | None:
        now = time.monotonic()
        known = self._captured.get(subject)
        if known is not None and now - known[0] < LOOKUP_KEPT_S:
            return known[1]
        try:
            stream = await find_stream(self._js, subject)
        except ServiceUnavailableError as error:
            if error.code is not None:  # JetStream says so itself; without JetStream nobody says anything.
                raise
            return None
        if len(self._captured) >= LOOKUPS_MAX:
            self._captured.clear()
        self._captured[subject] = (now, stream)
        return stream


def _check_subject(name: str) -> None:
    if not _SUBJECT.fullmatch(name):
        raise PermanentError(f"expected a subject of dot-separated words without wildcards, got {name!r}")


def _result(name: str, reply: Msg) -> Any:
    headers = {key.lower(): value for key, value in (reply.headers or {}).items()}
    failed = headers.get("nats-service-error")
    code = headers.get("nats-service-error-code", "")
    if failed is None and not code:
        return _json(name, reply.data)
    message = f"{name} answered {code or 'an error'}: {failed or 'no description'}"
    if re.fullmatch(r"4\d\d", code) and code not in _PASSING:
        raise PermanentError(message)
    if re.fullmatch(r"\d{1,9}", after := headers.get("retry-after", "").strip()):
        raise RetryLater(int(after), message)
    raise ServiceError(message, code)


def _json(name: str, data: bytes) -> Any:
    """None for nothing. Raises `PermanentError`."""
    if not data.strip():
        return None
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise PermanentError(f"expected {name} to answer with JSON: {error}, got {data[:60]!r}") from error
