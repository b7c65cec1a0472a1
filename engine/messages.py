"""What instances ask of each other is performed: children are started, told, cancelled, parents are told the end.

Invariants: what one instance asks for is done in that order, one after another; each is recorded by the receiver in the
transaction that ends the effect, and an effect ends once: so it happens once, whatever crashes, and nobody is told that
it failed when another process has done it. A store that can't be written holds it up, and nothing overtakes it; what
fails for another reason is parked after a while (`engine/parking.py`), and the next goes on.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from typing import TypeVar

import msgspec
from eventsourcing.persistence import MapperDeserialisationError, PersistenceError
from msgspec.structs import replace

from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.definitions import Definitions
from statewright.engine.errors import BusyError, NotFoundError, PrunedError, UnavailableError
from statewright.engine.events import Trigger
from statewright.engine.instance import result_id
from statewright.engine.log import InstanceLog
from statewright.engine.parking import ATTEMPTS_MAX, Parking, is_passing
from statewright.engine.recorder import EffectRow
from statewright.engine.relatives import Message, Start
from statewright.engine.requests import (
    MESSAGE_SOURCE,
    ChildCancelled,
    EffectEnded,
    MessageArrived,
    Request,
    StartRequest,
)
from statewright.engine.runtime import Runtime
from statewright.statecharts.chart import Chart
from statewright.statecharts.errors import StatewrightError

RETRY_NS = SECOND_NS
"""The wait before it is tried again; it doubles with each time."""
RETRY_MAX_NS = 60 * SECOND_NS

_NOT_ITS_OWN = (UnavailableError, BusyError, PersistenceError, MapperDeserialisationError)
"""What says nothing against the message: the sender is not told."""
_LOG = logging.getLogger("statewright.engine")
T = TypeVar("T")


class Messages:
    """Performs effects of the kinds in `relatives.KINDS`."""

    def __init__(
        self, log: InstanceLog, definitions: Definitions, runtime: Runtime, parking: Parking, clock: Clock
    ) -> None:
        self._log = log
        self._definitions = definitions
        self._runtime = runtime
        self._parking = parking
        self._clock = clock
        self._last: dict[str, asyncio.Task[None]] = {}
        """By instance, the last of what it has asked for."""

    def perform(self, row: EffectRow) -> asyncio.Task[None]:
        """Perform an effect after those that its instance has asked for before. Call it in the order of request."""
        asker = row.instance_id
        task = asyncio.create_task(self._after(self._last.get(asker), row), name=f"message {row.effect_id}")
        self._last[asker] = task
        task.add_done_callback(lambda done: self._forget(asker, done))
        return task

    def _forget(self, asker: str, task: asyncio.Task[None]) -> None:
        if self._last.get(asker) is task:
            del self._last[asker]

    async def _after(self, before: asyncio.Task[None] | None, row: EffectRow) -> None:
        if before is not None:
            await asyncio.wait((before,))
            if before.cancelled():  # The engine is closing: what comes later must not overtake it.
                return
        failures = 0
        for tried in count():
            try:
                await self._perform(row)
            except Exception as error:
                said = (row.effect_id, row.kind, row.name, error)
                ids = {"instance": row.instance_id, "effect": row.effect_id}
                if await self._is_over(row):
                    _LOG.info("effect %s (%s %s) has ended elsewhere: %s", *said, extra=ids)
                    return
                detail = None if isinstance(error, _NOT_ITS_OWN) else error
                _LOG.warning("effect %s (%s %s) can't be performed now: %s", *said, exc_info=detail, extra=ids)
                failures += not is_passing(error)
                if failures >= ATTEMPTS_MAX and await self._is_parked(row, error):
                    return
                wait_ns = min(RETRY_NS << min(tried, 16), RETRY_MAX_NS)
                await self._clock.sleep_until(self._clock.now() + wait_ns)
            else:
                return

    async def _is_over(self, row: EffectRow) -> bool:
        """Whether it has ended otherwise meanwhile: another process has performed it, or it was cancelled."""
        try:
            asked = await self._runtime.on_reader(self._log.instances.select_effects, row.instance_id)
        except PersistenceError:
            return False
        return all(one.state not in ("pending", "running") for one in asked if one.effect_id == row.effect_id)

    async def _is_parked(self, row: EffectRow, error: Exception) -> bool:
        """Park it; false if that can't be written now."""
        try:
            await self._parking.park_effect(row, error)
        except PersistenceError as failure:
            _LOG.warning("effect %s can't be parked now: %s", row.effect_id, failure)
            return False
        return True

    async def _perform(self, row: EffectRow) -> None:
        if row.kind == "start":
            await self._start(row)
            return
        message = _data(row, Message)
        if row.kind == "cancel":
            start = await self._runtime.on_reader(self._not_begun, row, message.to)
            if start is not None:  # Who has claimed it may still perform it, and then nobody would cancel the child.
                await self._start(start)
            try:
                await self._submit(ChildCancelled(message.to, row.effect_id))
            except PrunedError:
                await self._submit(EffectEnded(row.instance_id, row.effect_id))
            return
        try:
            if not message.to:
                raise NotFoundError("it has no such relative")
            await self._submit(_arrival(row, message))
        except _NOT_ITS_OWN:
            raise
        except StatewrightError as error:
            await self._submit(_undelivered(row, message, str(error)))

    def _not_begun(self, row: EffectRow, child_id: str) -> EffectRow | None:
        """The "start" of a child that is to be cancelled, if it has not been performed yet: whoever has claimed it was
        given up for dead, or the answer to that claim was lost."""
        if self._log.instances.select_instance(child_id) is not None:
            return None
        for asked in self._log.instances.select_effects(row.instance_id):
            if asked.kind == "start" and asked.state in ("pending", "running") and _data(asked, Start).to == child_id:
                return asked
        return None

    async def _start(self, row: EffectRow) -> None:
        start = _data(row, Start)
        try:
            chart = await self._runtime.on_writer(self._child, row.instance_id, start)
            declared = {declaration.name for declaration in chart.definition.context}
            given = {name: value for name, value in start.request.data.items() if name in declared}
            begin = StartRequest(
                start.to, chart.name, given, chart.version, parent=start.parent, effect_id=row.effect_id
            )
            await self._submit(begin)
            await self._submit(EffectEnded(row.instance_id, row.effect_id))
        except _NOT_ITS_OWN:
            raise
        except StatewrightError as error:
            await self._submit(_unstarted(row, start, str(error)))

    def _child(self, parent_id: str, start: Start) -> Chart:
        """The child's chart, stored: on the writing thread."""
        parent = self._log.load(parent_id)
        if parent is None:
            raise NotFoundError(f"no instance '{parent_id}'")
        chart = self._definitions.pinned(parent.definition, parent.version, parent.digest)
        return self._definitions.take(self._definitions.child(chart, start.request))

    async def _submit(self, request: Request) -> None:
        await self._runtime.submit(request, bounded=False)


def _data(row: EffectRow, kind: type[T]) -> T:
    return msgspec.json.decode(row.data, type=kind)


def _arrival(row: EffectRow, message: Message) -> MessageArrived:
    event = message.event
    assert event is not None, row
    trigger = Trigger(
        event.name,
        row.effect_id,
        MESSAGE_SOURCE,
        "message",
        data=event.data,
        sendid=event.sendid,
        origin=event.origin,
        origintype=event.origintype,
        invokeid=event.invokeid,
        sender=row.instance_id if event.invokeid else "",
    )
    return MessageArrived(message.to, trigger, row.effect_id, expected=row.kind == "send")


def _undelivered(row: EffectRow, message: Message, error: str) -> Request:
    """A sender is told that nobody was there; who forwards an event, or has come to its end, does not ask."""
    if row.kind != "send":
        return EffectEnded(row.instance_id, row.effect_id, error)
    assert message.event is not None, row
    reason = f"send {row.name!r} failed: {error}"
    about = Trigger("error.communication", "", data={"reason": reason}, sendid=message.event.sendid)
    return _told(row, about, error)


def _unstarted(row: EffectRow, start: Start, error: str) -> MessageArrived:
    invokeid = start.request.invokeid
    why = {"message": f"invoke {invokeid!r} failed: {error}"}
    about = Trigger(f"error.invoke.{invokeid}", "", data=why, invokeid=invokeid, sender=start.to)
    return _told(row, about, error)


def _told(row: EffectRow, about: Trigger, error: str) -> MessageArrived:
    """What an instance is told of an effect that it has asked for: `about`, with its identity."""
    trigger = replace(about, id=result_id(row.effect_id), source=MESSAGE_SOURCE, kind="message")
    return MessageArrived(row.instance_id, trigger, row.effect_id, error=error.replace("\0", ""))
