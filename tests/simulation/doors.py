"""What a process is asked, and its doors: what adapters do with a request, without the network."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple

import msgspec

from statewright.engine import Engine
from statewright.engine.errors import BusyError, ConflictError, UnavailableError
from statewright.engine.events import RestoredStep
from statewright.engine.modification import modify
from statewright.engine.recorder import ParkedRow
from statewright.engine.requests import CheckpointRequest, ControlRequest, ExternalEvent, StartRequest
from statewright.engine.schedules import ScheduleRequest
from statewright.statecharts import Chart
from statewright.statecharts.facts import StepRecord

AGAIN = (UnavailableError, BusyError, ConflictError)
"""Answers after which a sender sends again."""


class Modification(NamedTuple):
    """What `modify` is asked. `reason` is another for each."""

    instance_id: str
    targets: tuple[str, ...]
    expected_sequence: int
    chart: Chart | None
    keep: tuple[str, ...]
    context: dict[str, Any] | None
    steps: tuple[StepRecord, ...]
    steps_restored: tuple[RestoredStep, ...]
    activate: bool
    reason: str


class Parking(NamedTuple):
    """Keep an event that can't be delivered now."""

    event: ExternalEvent
    reason: str

    @property
    def id(self) -> str:
        return f"{self.event.instance_id}:{self.event.id}"


class Retrial(NamedTuple):
    """Deliver what is parked once more."""

    id: str


class Dropping(NamedTuple):
    """Give up what is parked."""

    id: str


Recorded = StartRequest | ExternalEvent | ControlRequest | CheckpointRequest
Sent = Recorded | ScheduleRequest | Modification | Parking | Retrial | Dropping


def ask(engine: Engine, request: Sent) -> Awaitable[Any]:
    """What the engine makes of it. Raises `BusyError`, `UnavailableError`."""
    match request:
        case ScheduleRequest():
            return engine.scheduling.add(request)
        case Modification():
            return modify(engine, **request._asdict())
        case Parking():
            return _park(engine, request)
        case Retrial(parked_id):
            return engine.retry_parked(parked_id, read)
        case Dropping(parked_id):
            return engine.drop_parked(parked_id, reason="drawn")
        case _:
            return engine.submit(request)


async def _park(engine: Engine, parking: Parking) -> ParkedRow:
    event = parking.event
    subject = f"statewright.events.{event.instance_id}"
    row = ParkedRow(parking.id, engine.clock.now(), subject, parking.reason, "{}", msgspec.json.encode(event))
    await engine.park(row)
    return row


def read(row: ParkedRow) -> ExternalEvent:
    """The event of a `Parking`."""
    return msgspec.json.decode(row.payload, type=ExternalEvent)
