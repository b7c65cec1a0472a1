"""Recurring starts: the rows of table `schedules` whose time has come start an instance each, and move on.

The instance's id is the schedule's and the due time, so a start that is tried again, by this process after a crash or
by another beside it, is the same start. The table is the truth; nothing is held in memory but when to look again.
A schedule that can't start its instance now is left where it is, says so in its `note`, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec
from eventsourcing.persistence import IntegrityError, PersistenceError

from statewright.engine.alarm import Alarm
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.cron import MINUTE_NS, Cron
from statewright.engine.definitions import Definitions
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError, UnavailableError
from statewright.engine.events import ENDED
from statewright.engine.ids import check_id
from statewright.engine.outage import Outage
from statewright.engine.recorder import InstanceRecorder, ScheduleRow
from statewright.engine.requests import StartRequest, as_json, check_text
from statewright.engine.runtime import Runtime
from statewright.engine.shares import WHOLE, Part
from statewright.engine.unit import first_step
from statewright.statecharts.errors import StatewrightError

CatchUp = Literal["all", "one", "none"]
"""What becomes of the starts that were due while no engine ran: each (the newest `CATCH_UP_MAX`), the last, or none."""
Overlap = Literal["allow", "skip"]
"""Whether an instance is started while the one before it still runs."""

CATCH_UP_MAX = 100
LATE_NS = MINUTE_NS
"""With `catch_up="none"`, how late a start may be and still be made."""
SCHEDULE_ID_CHARS_MAX = 128 - len("-20260101T000000Z")
"""So that an instance's id has room for the due time."""
PAGE = 100
"""How many schedules start their instances together."""
HOLD_NS = 30 * SECOND_NS
"""How long a schedule that can't start its instance now is left alone."""
LOOK_NS = 60 * SECOND_NS
"""How long at most until the table is looked at again: another process may have added a schedule, and died."""

_EVER = 2**63 - 1
_LOG = logging.getLogger("statewright.engine")


class ScheduleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for when a schedule is added. `id`: the definition's name if it is None; `end_at`: ns UTC."""

    definition: str
    cron: str
    tz: str = "UTC"
    id: str | None = None
    context: Mapping[str, Any] = {}
    version: str | None = None
    catch_up: CatchUp = "one"
    overlap: Overlap = "allow"
    end_at: int | None = None
    actor: str = ""


TASK = "schedules"
"""What this is called among the tasks that one worker does."""


class Schedules:
    """The loop that starts what is due, and the commands on the table."""

    def __init__(
        self,
        recorder: InstanceRecorder,
        definitions: Definitions,
        runtime: Runtime,
        clock: Clock,
        part: Part = WHOLE,
    ) -> None:
        self._part = part
        self._recorder = recorder
        self._definitions = definitions
        self._runtime = runtime
        self._clock = clock
        self._held: dict[str, int] = {}
        self._outage = Outage("schedules can't be read", clock)
        self.alarm = Alarm(clock)

    # Commands

    async def add(self, request: ScheduleRequest) -> ScheduleRow:
        """Add a schedule; one with the same id and content is the same. Raises `InvalidError`, `NotFoundError` (the
        definition), `ContextError`, `TooLargeError`, `AlreadyExistsError` (other content), `UnavailableError`."""
        row = self._row(request)
        stored = await self._written(self._insert, row)
        self.alarm.ring()
        return stored

    async def remove(self, schedule_id: str) -> ScheduleRow:
        """Forget a schedule; what it has started goes on. Raises `NotFoundError`, `UnavailableError`."""
        row = await self._written(self._delete, schedule_id)
        self._held.pop(schedule_id, None)
        return row

    async def pause(self, schedule_id: str) -> ScheduleRow:
        """Start nothing until `resume`. A second time is a no-op. Raises `NotFoundError`, `InvalidError` (it has
        ended), `UnavailableError`."""
        return await self._written(self._change, schedule_id, "paused")

    async def resume(self, schedule_id: str) -> ScheduleRow:
        """Go on with the next due time from now; those that a pause has seen are not made up for. Raises as `pause`."""
        row = await self._written(self._change, schedule_id, "active")
        self._held.pop(schedule_id, None)
        self.alarm.ring()
        return row

    def _row(self, request: ScheduleRequest) -> ScheduleRow:
        """The row of a new schedule, once all is checked: its first start is tried, and nothing of that recorded."""
        schedule_id = check_id("a schedule id", request.definition if request.id is None else request.id)
        if len(schedule_id) > SCHEDULE_ID_CHARS_MAX:
            raise InvalidError(
                f"expected a schedule id of at most {SCHEDULE_ID_CHARS_MAX} characters (its instances' ids have "
                f"the due time, too), got {len(schedule_id)}; give it another"
            )
        check_id("a definition name", request.definition)
        check_text("the actor", request.actor)
        for what, value, known in (
            ("catch_up", request.catch_up, get_args(CatchUp)),
            ("overlap", request.overlap, get_args(Overlap)),
        ):
            if value not in known:
                raise InvalidError(f"expected {what} to be {' or '.join(map(repr, known))}, got {value!r}")
        if request.end_at is not None and (type(request.end_at) is not int or abs(request.end_at) > _EVER):
            raise InvalidError(f"expected the end in whole nanoseconds, before the year 2262, got {request.end_at!r}")
        now = self._clock.now()
        next_at = _following(Cron(request.cron, request.tz), now, request.end_at)
        if next_at is None:
            raise InvalidError(f"expected a schedule that comes due, but '{request.cron}' does not before its end")
        chart = self._definitions.named(request.definition, request.version)
        trial = StartRequest(instance_id(schedule_id, next_at), chart.name, request.context, request.version)
        given, _ = first_step(chart, trial)
        return ScheduleRow(
            id=schedule_id,
            definition=chart.name,
            version=request.version,
            cron=" ".join(request.cron.split()),
            tz=request.tz,
            context=as_json("the context", given)[1].decode(),
            catch_up=request.catch_up,
            overlap=request.overlap,
            end_at=request.end_at,
            status="active",
            next_at=next_at,
            last_at=None,
            note="",
            actor=request.actor,
            created_at=now,
        )

    async def _written(self, function: Any, *args: Any) -> ScheduleRow:
        try:
            row: ScheduleRow = await self._runtime.on_writer(function, *args)
        except PersistenceError as error:
            raise UnavailableError(f"the store can't be written, nothing was changed: {error}") from error
        return row

    def _insert(self, row: ScheduleRow) -> ScheduleRow:
        try:
            self._recorder.insert_schedule(row)
        except IntegrityError:
            known = self._get(row.id)
            if _content(known) != _content(row):
                differing = ", ".join(name for name in _CONTENT if getattr(known, name) != getattr(row, name))
                raise AlreadyExistsError(
                    f"schedule '{row.id}' exists with another {differing}; remove it first, or give another id"
                ) from None
            return known
        return row

    def _delete(self, schedule_id: str) -> ScheduleRow:
        row = self._get(schedule_id)
        self._recorder.delete_schedule(schedule_id)
        return row

    def _change(self, schedule_id: str, status: str) -> ScheduleRow:
        while True:
            row = self._get(schedule_id)
            if row.status == "ended":
                raise InvalidError(f"expected a schedule that goes on, but '{schedule_id}' has ended")
            if row.status == status:
                return row
            after = row._replace(status=status)
            if status == "active":
                after = _moved(after, _following(Cron(row.cron, row.tz), self._clock.now(), row.end_at))
            if self._recorder.replace_schedule(row, after):
                return after

    def _get(self, schedule_id: str) -> ScheduleRow:
        row = self._recorder.select_schedule(check_id("a schedule id", schedule_id))
        if row is None:
            raise NotFoundError(f"no schedule '{schedule_id}'")
        return row

    # The loop

    async def run(self) -> None:
        """Start what is due for ever; ends by cancellation."""
        while True:
            try:
                next_at = None
                if not self._part.does(TASK):
                    self._outage.left()
                elif await self._serve_due():
                    continue
                else:
                    next_at = await self._next_look()
                    self._outage.over()
                await self.alarm.wait(self._part.look_by(next_at, self._clock.now()))
            except Exception as error:
                self._outage.failed(error)
                await self._outage.pause()

    async def _serve_due(self) -> bool:
        """Serve one page of due schedules; whether there were any."""
        now = self._clock.now()
        self._held = {schedule_id: until for schedule_id, until in self._held.items() if until > now}
        limit = PAGE + len(self._held)
        rows = await self._runtime.on_reader(self._recorder.due_schedules, now, limit)
        due = [row for row in rows if row.id not in self._held]
        served = await asyncio.gather(*(self._serve(row, now) for row in due), return_exceptions=True)
        for row, error in zip(due, served, strict=True):
            if isinstance(error, Exception):
                await self._hold(row, error)
        return bool(due)

    async def _serve(self, row: ScheduleRow, now: int) -> None:
        """Start the instance of `row.next_at` and move on; or, first, pass over what is not to be made up for."""
        assert row.next_at is not None, row
        cron = Cron(row.cron, row.tz)
        begun = await self._instance_status(row.id, row.next_at)
        if begun is None:
            aimed = await self._runtime.on_reader(_aim, row, cron, now)
            if aimed != row.next_at:
                _LOG.warning("schedule '%s' passes over what was due from %s on", row.id, _shown(row.next_at))
                await self._replace(row, _moved(row, aimed))
                return
            if row.overlap == "skip" and row.last_at is not None:
                before = await self._instance_status(row.id, row.last_at)
                if before is not None and before not in ENDED:
                    note = f"{_shown(row.next_at)} was skipped: '{instance_id(row.id, row.last_at)}' is {before}"
                    _LOG.warning("schedule '%s': %s", row.id, note)
                    await self._replace(row, _advanced(row, cron)._replace(note=note))
                    return
        try:
            await self._runtime.submit(start_request(row), bounded=False)
        except AlreadyExistsError as error:  # Somebody else's: it will never be ours.
            _LOG.error("schedule '%s' passes over %s: %s", row.id, _shown(row.next_at), error)
            await self._replace(row, _advanced(row, cron)._replace(note=str(error)))
            return
        await self._replace(row, _advanced(row, cron)._replace(last_at=row.next_at, note=""))

    async def _instance_status(self, schedule_id: str, due_at: int) -> str | None:
        row = await self._runtime.on_reader(self._recorder.select_instance, instance_id(schedule_id, due_at))
        return row.status if row is not None else None

    async def _replace(self, before: ScheduleRow, after: ScheduleRow) -> None:
        """One that was paused, removed or served by another process meanwhile stays as that has left it."""
        await self._runtime.on_writer(self._recorder.replace_schedule, before, after)

    async def _hold(self, row: ScheduleRow, error: Exception) -> None:
        assert row.next_at is not None, row
        detail = None if isinstance(error, StatewrightError | PersistenceError) else error
        _LOG.error("schedule '%s' can't start its instance now: %s", row.id, error, exc_info=detail)
        self._held[row.id] = self._clock.now() + HOLD_NS
        note = f"{_shown(row.next_at)} can't be started yet: {error}".replace("\0", "")
        if note != row.note:
            await self._replace(row, row._replace(note=note))

    async def _next_look(self) -> int:
        """When the next schedule is due, or a held one is to be tried again; soon, in any case."""
        rows = await self._runtime.on_reader(self._recorder.due_schedules, _EVER, len(self._held) + 1)
        times = [row.next_at for row in rows if row.next_at is not None and row.id not in self._held]
        return min([*times[:1], *self._held.values(), self._clock.now() + LOOK_NS])


def instance_id(schedule_id: str, due_at: int) -> str:
    """The id of the instance that a schedule starts when it is due: `weekly-20260105T080000Z`."""
    return f"{schedule_id}-{datetime.fromtimestamp(due_at // SECOND_NS, UTC):%Y%m%dT%H%M%SZ}"


def start_request(row: ScheduleRow) -> StartRequest:
    """The start for `row.next_at`: the same whenever and by whomever it is made."""
    assert row.next_at is not None, row
    context = msgspec.json.decode(row.context)
    return StartRequest(instance_id(row.id, row.next_at), row.definition, context, row.version, f"schedule:{row.id}")


def _aim(row: ScheduleRow, cron: Cron, now: int) -> int | None:
    """The due time, from `row.next_at` on, for which to start an instance first: where those before it are not made up
    for, a later one, which may be still to come; None if none is left."""
    first = row.next_at
    assert first is not None, row
    last = now if row.end_at is None else min(now, row.end_at)
    if last < first:
        return None
    if row.catch_up == "none":
        return first if now - first <= LATE_NS else _following(cron, max(first, now - LATE_NS - 1), row.end_at)
    return cron.newest(first, last, 1 if row.catch_up == "one" else CATCH_UP_MAX)


def _following(cron: Cron, at: int, end_at: int | None) -> int | None:
    """The next due time after `at`, None if it is after the end."""
    following = cron.after(at)
    return following if following is None or end_at is None or following <= end_at else None


def _advanced(row: ScheduleRow, cron: Cron) -> ScheduleRow:
    assert row.next_at is not None, row
    return _moved(row, _following(cron, row.next_at, row.end_at))


def _moved(row: ScheduleRow, next_at: int | None) -> ScheduleRow:
    return row._replace(next_at=next_at, status="ended" if next_at is None else row.status)


_CONTENT = ("definition", "version", "cron", "tz", "context", "catch_up", "overlap", "end_at")


def _content(row: ScheduleRow) -> Sequence[object]:
    return [getattr(row, name) for name in _CONTENT]


def _shown(at: int) -> str:
    return f"{datetime.fromtimestamp(at // SECOND_NS, UTC):%Y-%m-%dT%H:%M:%SZ}"
