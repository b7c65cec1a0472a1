"""Performers of the effects that need a bus: `emit` publishes a message, `call` asks a service.

Invariants: both are at least once, so the effect's id goes along (as `Nats-Msg-Id` and `ce-id`, or as
`Statewright-Effect-Id`), the same in every attempt. While the server is away they wait; that is no failed attempt.
"""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import ServiceUnavailableError

from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.envelope import encode_event
from statewright.adapters.nats.streams import find_stream
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.effects import EffectCall, PermanentError
from statewright.engine.errors import UnavailableError
from statewright.engine.requests import ExternalEvent

CALL_TIMEOUT_S = 30.0
LOOKUP_KEPT_S = 10.0
"""How long it is remembered which stream captures a subject."""
LOOKUPS_MAX = 10_000

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_encode = msgspec.json.Encoder().encode


class ServiceError(UnavailableError):
    """A service answered with an error (`Nats-Service-Error`) that may go away."""


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

    async def call(self, effect: EffectCall) -> Any:
        """Request `statewright.calls.<service>.<method>`; the reply's JSON is the result.

        Headers: `Statewright-Effect-Id`, `Statewright-Attempt`, `Statewright-Deadline` (ns UTC; afterwards nobody
        waits). An error in the reply (`Nats-Service-Error`) with a code from 400 to 499 is for good; any other is tried
        again, as is silence.
        """
        _check_subject(effect.name)
        payload = _encode(effect.data)
        await self._connection.online.wait()
        headers = {
            "Statewright-Effect-Id": effect.effect_id,
            "Statewright-Attempt": str(effect.attempt),
            "Statewright-Deadline": str(self._clock.now() + round(self._call_timeout_s * SECOND_NS)),
            "content-type": "application/json",
        }
        subject = f"statewright.calls.{effect.name}"
        try:
            reply = await self._connection.nc.request(subject, payload, self._call_timeout_s, headers=headers)
        except nats.errors.NoRespondersError as error:
            raise UnavailableError(f"no service answers on '{subject}'") from error
        except nats.errors.MaxPayloadError as error:
            raise PermanentError(f"the request has {len(payload):,} bytes, more than the server takes") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise UnavailableError(
                f"no answer from '{subject}' within {self._call_timeout_s:g} s: {type(error).__name__}"
            ) from error
        return _result(effect.name, reply)

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
    if failed is not None or code:
        message = f"{name} answered {code or 'an error'}: {failed or 'no description'}"
        raise PermanentError(message) if re.fullmatch(r"4\d\d", code) else ServiceError(message)
    if not reply.data:
        return None
    try:
        return msgspec.json.decode(reply.data)
    except msgspec.DecodeError as error:
        raise PermanentError(f"expected {name} to answer with JSON: {error}, got {reply.data[:60]!r}") from error
