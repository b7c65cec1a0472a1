"""A request for a plugin's method, from NATS to `StepCall`, and back from an error to the code that the caller gets.

Codes from 400 to 499 are final to who asks, but for 408 (too late): `Performers.call` in `adapters/nats` reads them so.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from statewright.adapters.plugins.errors import PluginNotActive
from statewright.engine.calls import EffectCall, EffectCancelled, PermanentError, RetryLater
from statewright.engine.errors import InvalidError, TooLargeError
from statewright.engine.failures import said_by, told
from statewright.engine.requests import as_json
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters, PluginNotFound
from statewright.statecharts.facts import Json, Policy

TEXT_CHARS_MAX = 1_000
"""The most of an error's text that is told."""
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (InvalidParameters, "400"),
    (PluginNotFound, "404"),
    (EffectCancelled, "408"),
    (TooLargeError, "413"),
    (PermanentError, "422"),
    (InvalidError, "422"),
    (RetryLater, "503"),
    (PluginNotActive, "503"),
)


class Refusal(NamedTuple):
    """An answer that is no result. retry_after_s: in how many seconds asking again makes sense."""

    code: str
    text: str
    retry_after_s: int | None = None


class Sender:
    """The pulse of a request: heartbeats go to its reply subject, if it asked for them. `is_over`: it is answered."""

    def __init__(self, nats: NatsClient, reply: str) -> None:
        self._nats = nats
        self._reply = reply
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[None]] = set()
        self.is_wanted = False
        self.is_over = False

    @property
    def cancelled(self) -> bool:
        return self.is_over

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(function)

    def beat(self, details: Json) -> None:
        """From any thread. Raises `EffectCancelled` when the request is answered, because its time was up."""
        if self.is_over:
            raise EffectCancelled("nobody waits for this call any more")
        payload = b"+WPI"
        if details is not None:
            payload += b" " + as_json("the details of a heartbeat", details)[1]
        if self.is_wanted:
            self._loop.call_soon_threadsafe(self._send, payload)

    def _send(self, payload: bytes) -> None:
        if not self.is_over:  # Else it would come after the answer.
            task = self._loop.create_task(self._publish(payload))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _publish(self, payload: bytes) -> None:
        try:
            await self._nats.publish(self._reply, payload)
        except nats.errors.Error:
            return  # A heartbeat that is lost is followed by the next.


def read_request(plugin: str, method: str, request: Msg, sender: Sender) -> StepCall:
    """Raises `InvalidParameters` for a body that is no JSON object and for headers that are no numbers."""
    headers = {key.lower(): value for key, value in (request.headers or {}).items()}
    sender.is_wanted = _number(headers, "statewright-heartbeat", 0) > 0
    parameters = _parameters(f"{plugin}.{method}", request.data)
    effect_id = headers.get("statewright-effect-id", "")
    attempt = _number(headers, "statewright-attempt", 1)
    deadline = _number(headers, "statewright-deadline", 0)
    effect = EffectCall(
        effect_id, "", f"{plugin}.{method}", "call", parameters, attempt, None, deadline, Policy(), sender
    )
    return StepCall(
        execution_id="",
        workflow="",
        step="",
        plugin=plugin,
        method=method,
        parameters=parameters,
        effect_id=effect_id,
        attempt=attempt,
        deadline_ns=deadline,
        effect=effect,
    )


def late(by_s: float) -> EffectCancelled:
    """What a request is answered whose deadline has passed, by so many seconds."""
    return EffectCancelled(f"its deadline has passed, {by_s:.3g} s ago by the clock here" if by_s else "its time is up")


def refusal_of(error: BaseException) -> Refusal:
    """How an error is told. What is not ours is "500", with its type."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "500")
    text = told(error) if code == "500" else said_by(error)
    text = " ".join(text.split())[:TEXT_CHARS_MAX]  # One line, as a header must be.
    after = min(math.ceil(max(0.0, error.seconds)), 999_999_999) if isinstance(error, RetryLater) else None
    return Refusal(code, text or type(error).__name__, after)


def _parameters(name: str, body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParameters(f"expected the parameters of {name} as a JSON object: {error}") from error
    if given is not None and not isinstance(given, dict):
        raise InvalidParameters(f"expected the parameters of {name} as a JSON object, got {body[:60]!r}")
    return given or {}


def _number(headers: dict[str, str], name: str, default: int) -> int:
    text = headers.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        raise InvalidParameters(f"expected header {name} to be a whole number, got {text[:40]!r}")
    return int(text)
