"""The client: what another process uses to start, drive and watch instances over NATS.

Invariants: an answer is given only for what the engine said; no answer (nobody there, a timeout, a lost connection) is
an `UnavailableError`, after which the same request with the same ids may be sent again. What can be asked twice
without harm is, while there is no answer: see `questions.py`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import nats.errors
import nats.js.errors
from msgspec.structs import replace

from statewright.adapters.nats import references
from statewright.adapters.nats.admission import prefix_for
from statewright.adapters.nats.connection import CONNECT_TIMEOUT_S, Connection, connect
from statewright.adapters.nats.endpoint import Endpoint, NatsOptions
from statewright.adapters.nats.envelope import (
    AddSchedule,
    PauseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    ScheduleAction,
    encode_control,
    encode_event,
    encode_schedule,
    encode_start,
)
from statewright.adapters.nats.health import HEALTH, READY, Health, Published, Readiness
from statewright.adapters.nats.questions import Questions
from statewright.adapters.nats.replies import A, Page, Pruned
from statewright.engine.clock import SystemClock
from statewright.engine.errors import InvalidError, TooLargeError, UnavailableError
from statewright.engine.events import InstancePruned
from statewright.engine.ids import check_id, new_id
from statewright.engine.parking import Retried
from statewright.engine.recorder import InstanceFilter
from statewright.engine.requests import ControlRequest, ExternalEvent, Outcome, Started, StartRequest, as_json
from statewright.engine.schedules import ScheduleRequest

TIMEOUT_S = 5.0


class Client:
    """Talks to whichever engine serves the nats-server at an endpoint. `await Client.connect(...)`, then `close()`;
    or `async with await Client.connect(...)`.

    All requests raise the error in the reply (`InvalidError`, `NotFoundError`, `AlreadyExistsError`, `IdReusedError`,
    `BusyError`, `TooLargeError`), and `UnavailableError` when there is no reply.
    """

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._questions = Questions(connection)
        self._clock = SystemClock()

    @classmethod
    async def connect(
        cls,
        endpoint: NatsOptions | str,
        *,
        name: str = "statewright client",
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Self:
        """`endpoint` is a NATS URL, `NatsOptions`, or an `Endpoint` (see `find_endpoint`). timeout_s: how long to
        wait for a reply. Raises `InvalidError` for a bad URL, `UnavailableError` when nobody answers within
        `connect_timeout_s`."""
        where = endpoint if isinstance(endpoint, Endpoint) else Endpoint.of(endpoint)
        return cls(await connect(where, name=name, timeout_s=connect_timeout_s), timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    @property
    def connection(self) -> Connection:
        """For what this class has no method for (subscribing to history, publishing on foreign subjects)."""
        return self._connection

    async def start(
        self,
        definition: str,
        context: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 (the contract's name)
        version: str | None = None,
        actor: str = "",
    ) -> Started:
        """Start an instance. Without `id` one is made here, so that a retry after a lost reply is the same start."""
        check_id("a definition name", definition)
        instance_id = self.new_id() if id is None else check_id("an instance id", id)
        given, _ = as_json("the context", dict(context or {}))
        request = StartRequest(instance_id, definition, given, version, actor)
        payload = encode_start(request, with_id=True)
        return await self._request(f"{prefix_for(actor, os.environ)}start.{definition}", payload, {}, Started)

    async def send(
        self,
        instance_id: str,
        name: str,
        data: Any = None,
        *,
        event_id: str | None = None,
        source: str = "",
        actor: str = "",
        time: int = 0,
    ) -> Outcome:
        """Deliver an event and wait until what became of it is durable. With an `event_id` of the caller's, which may
        have been sent before, the outcome can be "duplicate" also because it was asked for again here."""
        event = self._event(ExternalEvent(instance_id, name, data, event_id or self.new_id(), source, actor, time))
        headers, payload = encode_event(event)
        outcome = await self._request(f"{prefix_for(actor, os.environ)}send.{instance_id}", payload, headers, Outcome)
        if outcome.kind == "duplicate" and not event_id:  # Of what was sent here, just now.
            return replace(outcome, kind="refused" if outcome.reason else "recorded")
        return outcome

    async def publish(
        self,
        instance_id: str,
        name: str,
        data: Any = None,
        *,
        event_id: str | None = None,
        source: str = "",
        actor: str = "",
        time: int = 0,
    ) -> None:
        """Leave an event with JetStream and don't wait for what becomes of it; returns once the stream has it."""
        event = self._event(ExternalEvent(instance_id, name, data, event_id or self.new_id(), source, actor, time))
        headers, payload = encode_event(event)
        try:
            stream = self._connection.nc.jetstream(timeout=self._timeout_s)
            await stream.publish(f"statewright.events.{instance_id}", payload, headers=headers)
        except (nats.errors.Error, TimeoutError) as error:
            raise self._failed("JetStream", error) from error

    async def control(
        self, instance_id: str, action: Literal["pause", "resume", "cancel"], *, reason: str = "", actor: str = ""
    ) -> Outcome:
        """Pause, resume or cancel."""
        check_id("an instance id", instance_id)
        payload = encode_control(ControlRequest(instance_id, action, reason, actor))
        subject = f"{prefix_for(actor, os.environ)}control.{instance_id}"
        return await self._request(subject, payload, {}, Outcome, repeat=False)

    async def fact(self, instance_id: str, sequence: int) -> dict[str, Any]:
        """One fact as JSON, however large: what a reference in the history stands for."""
        check_id("an instance id", instance_id)
        whole = bytearray()
        while True:
            asked = b'{"offset": %d}' % len(whole)
            piece = await self._request(f"{references.PREFIX}{instance_id}.{sequence}", asked, {}, references.Piece)
            whole += base64.b64decode(piece.base64)
            if len(whole) >= piece.total:
                return msgspec.json.decode(whole, type=dict[str, Any])

    async def schedule(self, request: ScheduleRequest) -> dict[str, Any]:
        """Add a schedule; its row by column names, as of the other schedule requests. Its id is the definition's name
        if it has none."""
        check_id("a definition name", request.definition)
        given, _ = as_json("the context", dict(request.context))
        fields = msgspec.structs.asdict(replace(request, context=given))
        schedule_id = fields.pop("id")
        chosen = request.definition if schedule_id is None else schedule_id
        return await self._schedule(chosen, AddSchedule(**fields))

    async def unschedule(self, schedule_id: str) -> dict[str, Any]:
        """Remove a schedule."""
        return await self._schedule(schedule_id, RemoveSchedule())

    async def pause_schedule(self, schedule_id: str) -> dict[str, Any]:
        return await self._schedule(schedule_id, PauseSchedule())

    async def resume_schedule(self, schedule_id: str) -> dict[str, Any]:
        return await self._schedule(schedule_id, ResumeSchedule())

    async def _schedule(self, schedule_id: str, action: ScheduleAction) -> dict[str, Any]:
        check_id("a schedule id", schedule_id)
        subject = f"statewright.schedule.{schedule_id}"
        return await self._request(subject, encode_schedule(action), {}, dict[str, Any], repeat=False)

    async def status(self, instance_id: str) -> dict[str, Any]:
        """The `instances` row by column names, configuration and context decoded."""
        check_id("an instance id", instance_id)
        return await self._request(f"statewright.query.status.{instance_id}", b"", {}, dict[str, Any])

    async def list(self, where: InstanceFilter) -> Page:
        """A page of status rows, at most `where.limit`."""
        return await self._request("statewright.query.list", msgspec.json.encode(where), {}, Page)

    async def history(self, instance_id: str, *, after: int = 0, limit: int) -> Page:
        """A page of facts (see `history_json`) after a sequence."""
        check_id("an instance id", instance_id)
        payload = msgspec.json.encode({"after": after, "limit": limit})
        return await self._request(f"statewright.query.history.{instance_id}", payload, {}, Page)

    async def parked(self, limit: int) -> Page:
        """What is parked (see `parked_json`), the oldest first."""
        return await self._request("statewright.parked.list", msgspec.json.encode({"limit": limit}), {}, Page)

    async def retry_parked(self, parked_id: str) -> Retried:
        """Have one that is parked delivered once more."""
        payload = msgspec.json.encode({"id": parked_id})
        return await self._request("statewright.parked.retry", payload, {}, Retried, repeat=False)

    async def drop_parked(self, parked_id: str, *, reason: str = "") -> None:
        """Have one that is parked removed for good."""
        payload = msgspec.json.encode({"id": parked_id, "reason": reason})
        await self._request("statewright.parked.drop", payload, {}, dict[str, Any], repeat=False)

    async def prune(self, tombstones: Sequence[InstancePruned], *, position: int) -> Sequence[str]:
        """See `Engine.prune`."""
        payload = msgspec.json.encode({"tombstones": tombstones, "position": position})
        return (await self._request("statewright.store.prune", payload, {}, Pruned, repeat=False)).pruned

    async def health(self, worker: str = "") -> Health:
        """What an engine (or the one called `worker`) says of itself: that it runs."""
        return await self._request(_asking(HEALTH, worker), b"", {}, Health, _called(worker))

    async def readiness(self, worker: str = "") -> Readiness:
        """Whether an engine (or the one called `worker`) is ready, and how much waits there."""
        return await self._request(_asking(READY, worker), b"", {}, Readiness, _called(worker))

    async def signals(self, worker: str = "") -> Published:
        """How much work waits in an engine, as it publishes it. Raises `UnavailableError` if it can't tell."""
        answer = await self.readiness(worker)
        if answer.signals is None:
            raise UnavailableError("; ".join(check.detail for check in answer.checks if not check.ok))
        return Published(answer.worker, answer.signals)

    def new_id(self) -> str:
        return new_id(self._clock.now())

    def _event(self, event: ExternalEvent) -> ExternalEvent:
        check_id("an instance id", event.instance_id)
        if not event.name:
            raise InvalidError("expected an event name, got an empty one")
        return replace(event, data=as_json("the event's data", event.data)[0])

    async def _request(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str],
        kind: type[A],
        who: str = "an engine",
        *,
        repeat: bool = True,
    ) -> A:
        """repeat: it does no harm if two workers get it. A pause would, if one of them was stopped and wakes up when
        the instance has been resumed."""
        try:
            return await self._questions.ask(subject, payload, headers, kind, self._timeout_s, repeat=repeat)
        except (nats.errors.Error, TimeoutError) as error:
            raise self._failed(who, error) from error

    def _failed(self, who: str, error: Exception) -> Exception:
        url = self._connection.endpoint.url
        if isinstance(error, nats.errors.MaxPayloadError):
            limit = self._connection.nc.max_payload
            return TooLargeError(f"the nats-server at {url} takes messages of at most {limit:,} bytes")
        if isinstance(error, nats.errors.NoRespondersError | nats.js.errors.NoStreamResponseError):
            return UnavailableError(f"the nats-server at {url} is up, but {who} does not serve it")
        if isinstance(error, TimeoutError):
            return UnavailableError(f"no answer from {who} at {url} within {self._timeout_s:g} s")
        return UnavailableError(f"no answer from {who} at {url}: {error}")


def _asking(subject: str, worker: str) -> str:
    return f"{subject}.{check_id('a worker name', worker)}" if worker else subject


def _called(worker: str) -> str:
    return f"an engine called '{worker}'" if worker else "an engine"
