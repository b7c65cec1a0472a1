"""What always fails is parked: taken out of the way, kept with its reason, and brought back or dropped on demand.

    a message   that can't be understood or applied; read again by whoever knows its subject
    a timer     its row moves to table `parked` and back, if its instance still waits for it
    an effect   on a relative: its row is "parked" meanwhile, and performed again on a retry
    a result    of an effect that can't be recorded: recorded on a retry, without performing again

Invariants: the store's own failures (`is_passing`) park nothing, they are waited for. A retry delivers with the same
identity, so what was recorded after all is a duplicate; what is parked goes only in the transaction that brings it
back, or after its outcome is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from eventsourcing.persistence import MapperDeserialisationError, PersistenceError

from statewright.engine.clock import Clock
from statewright.engine.errors import BusyError, NotFoundError, PrunedError, UnavailableError, UnusableError
from statewright.engine.log import InstanceLog
from statewright.engine.recorder import EffectRow, InstanceRecorder, ParkedRow, TimerRow
from statewright.engine.requests import EffectResult, ExternalEvent, Outcome, TimerDue
from statewright.engine.runtime import Runtime
from statewright.statecharts.errors import StatewrightError

ATTEMPTS_MAX = 5
"""How often something is tried that fails for reasons of its own, or of ours, before it is parked."""

TIMER, EFFECT, RESULT = "timer of ", "effect of ", "result of "
"""How the subject of what is parked begins, then comes the instance's id. No subject of a message has a blank."""

Read = Callable[[ParkedRow], ExternalEvent]
"""The event in a parked message, as it was read when it came. Raises `InvalidError` and the like."""

_LOG = logging.getLogger("statewright.engine")
_encode = msgspec.json.Encoder().encode


class Retried(msgspec.Struct, frozen=True):
    """What became of a retry: the event's outcome, or None for a timer or an effect, which takes its turn again."""

    id: str
    subject: str
    outcome: Outcome | None = None


def is_passing(error: BaseException) -> bool:
    """Whether it is the store's or the moment's fault, so that the same may succeed later without anybody's doing."""
    if isinstance(error, UnusableError | MapperDeserialisationError):
        return False
    return isinstance(error, UnavailableError | BusyError | PersistenceError)


def is_fault(error: BaseException) -> bool:
    """Whether it is a fault of ours: a definition that can't be used here, facts that can't be read, a bug."""
    return isinstance(error, UnusableError) or not isinstance(error, StatewrightError | PersistenceError)


class Parking:
    """Parks what the engine performs, and brings back what is parked."""

    def __init__(self, log: InstanceLog, runtime: Runtime, clock: Clock) -> None:
        self._log = log
        self._recorder: InstanceRecorder = log.instances
        self._runtime = runtime
        self._clock = clock

    async def park_timer(self, timer: TimerRow, error: BaseException) -> None:
        parked_id = f"timer:{timer.instance_id}:{timer.timer_id}@{timer.due_at}"
        row = self._row(parked_id, TIMER, timer.instance_id, error, timer._asdict())
        await self._runtime.on_writer(lambda: self._recorder.park(row, timer=(timer.instance_id, timer.timer_id)))

    async def park_effect(self, effect: EffectRow, error: BaseException, result: EffectResult | None = None) -> None:
        """`result`: what came of performing it, if that is what can't be recorded."""
        kind, content = (EFFECT, effect.effect_id) if result is None else (RESULT, result)
        row = self._row(f"effect:{effect.effect_id}", kind, effect.instance_id, error, content)
        await self._runtime.on_writer(lambda: self._recorder.park(row, effect_id=effect.effect_id))

    async def retry(self, parked_id: str, read: Read) -> Retried:
        """Bring one back. Raises `NotFoundError`, `UnavailableError`, and what makes it fail again: then it stays
        parked."""
        row = await self._find(parked_id)
        outcome: Any = None
        if row.subject.startswith(TIMER):
            await self._write(self._set_again, parked_id, _decode(row, TimerRow))
        elif row.subject.startswith(EFFECT):
            effect_id = _decode(row, str)
            await self._write(lambda: self._recorder.unpark(parked_id, effect_id=effect_id))
        else:
            is_result = row.subject.startswith(RESULT)
            outcome = await self._runtime.submit(_decode(row, EffectResult) if is_result else read(row))
            await self._write(self._recorder.unpark, parked_id)
        _LOG.info("parked '%s' (%s) is retried: %s", parked_id, row.subject, outcome or "it takes its turn")
        return Retried(parked_id, row.subject, outcome)

    async def drop(self, parked_id: str, reason: str) -> ParkedRow:
        """Remove one for good; a timer is recorded as discarded. Raises `NotFoundError`, `UnavailableError`, and what
        keeps that from being recorded."""
        row = await self._find(parked_id)
        effect_id = None
        if row.subject.startswith(TIMER):
            timer = _decode(row, TimerRow)
            why = f"dropped: {reason or 'no reason given'}"
            with suppress(NotFoundError):  # Then there is no instance that waits for it.
                await self._runtime.submit(TimerDue(timer.instance_id, timer.timer_id, timer.due_at, why))
        elif row.subject.startswith((EFFECT, RESULT)):
            effect_id = _decode(row, str) if row.subject.startswith(EFFECT) else _decode(row, EffectResult).effect_id
        await self._write(lambda: self._recorder.unpark(parked_id, effect_id=effect_id, effect_state="dropped"))
        said = (parked_id, row.subject, len(row.payload), reason or "no reason given", row.reason)
        _LOG.warning("parked '%s' (%s, %d bytes) is dropped: %s; it was parked because: %s", *said)
        return row

    def _set_again(self, parked_id: str, timer: TimerRow) -> None:
        """On the writing thread. Only what the instance still waits for: it may have ended meanwhile, or be elsewhere,
        and a row that its facts don't know could never fire."""
        instance = None
        with suppress(PrunedError):
            instance = self._log.load(timer.instance_id)
        held = instance.timers.get(timer.timer_id) if instance is not None else None
        is_set = held is not None and held.due_at == timer.due_at
        self._recorder.unpark(parked_id, timer=timer if is_set else None)

    async def _write(self, function: Callable[..., object], *args: Any) -> None:
        try:
            await self._runtime.on_writer(function, *args)
        except PersistenceError as error:
            raise UnavailableError(f"what is parked can't be taken out: {error}") from error

    async def _find(self, parked_id: str) -> ParkedRow:
        try:
            row = await self._runtime.on_reader(self._recorder.find_parked, parked_id)
        except PersistenceError as error:
            raise UnavailableError(f"what is parked can't be read: {error}") from error
        if row is None:
            raise NotFoundError(f"nothing is parked as '{parked_id}'; `statewright parked list` shows what is")
        return row

    def _row(self, parked_id: str, kind: str, instance_id: str, error: BaseException, content: Any) -> ParkedRow:
        reason = f"{type(error).__name__}: {error}".replace("\0", "")
        _LOG.error("%s'%s' is parked as '%s': %s", kind, instance_id, parked_id, reason)
        return ParkedRow(parked_id, self._clock.now(), f"{kind}{instance_id}", reason, "{}", _encode(content))


def _decode(row: ParkedRow, kind: Any) -> Any:
    if kind is TimerRow:
        return TimerRow(**msgspec.json.decode(row.payload))
    return msgspec.json.decode(row.payload, type=kind)
