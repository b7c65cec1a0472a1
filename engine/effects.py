"""Effects: rows of table `effects` are claimed, performed, and their results delivered as events.

At least once: a handler may run again after a crash, so it gets `effect_id`, which stays the same. The result's inbox
row, its event and the effect's end commit together, so a second result changes nothing. Retries are rows too: a
restart goes on with the next attempt, on the terms that the pinned definition said. An effect that a commit has
cancelled is not performed any more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from eventsourcing.persistence import PersistenceError
from msgspec.structs import replace

from statewright.engine.alarm import Alarm
from statewright.engine.attempts import Attempt
from statewright.engine.calls import EffectCancelled, Handler, PermanentError, RetryLater
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import InvalidError, TooLargeError, UnavailableError
from statewright.engine.failures import told
from statewright.engine.messages import Messages
from statewright.engine.outage import Outage
from statewright.engine.parking import ATTEMPTS_MAX, Parking, is_fault
from statewright.engine.recorder import Changes, EffectRow, InstanceRecorder
from statewright.engine.relatives import KINDS
from statewright.engine.requests import EffectResult, as_json
from statewright.engine.retries import DEFAULT, backoff_ns, is_final
from statewright.engine.rooms import Room, Rooms
from statewright.engine.runtime import Runtime
from statewright.engine.shares import WHOLE, Part
from statewright.engine.tasks import end
from statewright.engine.threads import Threads
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.facts import Json, Policy

ATTEMPT_TIMEOUT_NS = 300 * SECOND_NS
"""How long an attempt may take if neither the chart nor the handler says."""
RECORDINGS_MAX = 6
"""How often an attempt's end is tried to be recorded while the store can't be written."""
LEASE_NS = 600 * SECOND_NS
"""How long a claim holds: longer than an attempt may take. An attempt with other terms changes its own."""

RETRY_LATER_S_MAX = 366 * 86_400
"""The longest that a handler may put off the next attempt."""

_LOG = logging.getLogger("statewright.engine")
_SAYS_NOTHING = Policy()
_read_policy = msgspec.json.Decoder(Policy).decode


class _Performer(NamedTuple):
    """Who performs, on what terms if the chart doesn't say, and whether that takes a thread."""

    function: Handler
    policy: Policy
    in_thread: bool


class Effects:
    """The loop that performs effects, with the registry of who performs which."""

    def __init__(
        self,
        recorder: InstanceRecorder,
        runtime: Runtime,
        messages: Messages,
        parking: Parking,
        clock: Clock,
        part: Part = WHOLE,
    ) -> None:
        self._recorder = recorder
        self._parking = parking
        self._runtime = runtime
        self._messages = messages
        self._clock = clock
        self._part = part
        self._handlers: dict[str, _Performer] = {}
        self._performers: dict[str, _Performer] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """By effect id, those of all kinds."""
        self._attempts: dict[str, Attempt] = {}
        """By effect id, those that somebody outside performs."""
        self._threads = Threads()
        self._watch = Alarm(clock)
        self._claimed: dict[str, EffectRow] = {}
        """The rows of those under way."""
        self._draining = False
        self._rooms = Rooms()
        self._astray: list[EffectRow] = []
        """Claimed by commits that may be there or not: nobody performs these, so they are put back."""
        self._outage = Outage("effects can't be claimed", clock)
        self.alarm = Alarm(clock)

    def register(self, name: str, handler: Handler, policy: Policy = _SAYS_NOTHING) -> None:
        """`handler` performs the effects of kind "perform" that are called `name`, as `policy` says where the chart
        says nothing."""
        self._handlers[name] = _Performer(handler, policy, not inspect.iscoroutinefunction(handler))
        self._look_again()

    @property
    def handled(self) -> frozenset[str]:
        """The names that have a handler."""
        return frozenset(self._handlers)

    def register_kind(self, kind: str, performer: Handler, *, in_thread: bool | None = None) -> None:
        """`performer` performs every effect of `kind` ("emit", "call"). in_thread: whether that takes a thread; by
        default what is no coroutine function does."""
        if in_thread is None:
            in_thread = not inspect.iscoroutinefunction(performer)
        self._performers[kind] = _Performer(performer, _SAYS_NOTHING, in_thread)
        self._look_again()

    def performer_of(self, kind: str) -> Handler | None:
        """Who performs effects of `kind` here."""
        found = self._performers.get(kind)
        return found.function if found is not None else None

    def committed(self, changes: Changes) -> None:
        """Stop what a commit has cancelled, and look again if it asked for something that can be performed here."""
        if self._attempts:
            self._stop_cancelled(changes)
        self._rooms.settle()
        is_more = False
        for row in changes.effects_requested:
            if row.state == "running":
                self._begin(row)
            elif not is_more and (row.kind in KINDS or self._performed_by(row) is not None):
                is_more = True
        if is_more:
            self.alarm.ring()

    def claim(self, changes: Changes) -> None:
        """Before a commit: what it asks for and would be claimed at once is claimed in the same transaction, which
        spares another for each. What instances ask of each other is left out, and all of it while others wait."""
        if self._draining:
            return
        now, partitions = self._clock.now(), self._part.partitions()
        over = {effect_id for _, _, effect_id in changes.effects_ended}
        rows = changes.effects_requested
        for index, row in enumerate(rows):
            performer = self._performed_by(row)
            if row.state != "pending" or row.kind in KINDS or performer is None or row.effect_id in over:
                continue
            if partitions is not None and row.partition not in partitions:
                continue
            room = self._rooms.in_threads if performer.in_thread else self._rooms.on_loop
            if room.is_behind or room.left <= 0:
                room.is_behind = True
                continue
            room.promised += 1
            rows[index] = row._replace(state="running", attempt=1, lease_epoch=1, due_at=now + LEASE_NS)

    def unclaim(self, changes: Changes, *, is_certain: bool) -> None:
        """The commit has failed, after which nothing of it is performed."""
        self._rooms.settle()
        if not is_certain:
            self._astray += (row for row in changes.effects_requested if row.state == "running")
        self._look_again()

    def _look_again(self) -> None:
        self._rooms.fall_behind()
        self.alarm.ring()

    def _stop_cancelled(self, changes: Changes) -> None:
        for state, error, effect_id in changes.effects_ended:
            if state == "cancelled" and (attempt := self._attempts.get(effect_id)) is not None:
                attempt.cancel(f"effect '{effect_id}' was cancelled: {error}")
        closed = set(changes.instances_closed)
        for attempt in self._attempts.values() if closed else ():
            # Others are finished, if they are under way: nobody has said that they may be stopped half way.
            if attempt.row.instance_id in closed and attempt.policy.until:
                attempt.cancel(f"instance '{attempt.row.instance_id}' was cancelled")

    async def run(self) -> None:
        """Perform what is due for ever; ends by cancellation, after which what was under way will be done again."""
        watch = asyncio.create_task(self._give_up_overdue(), name="statewright-attempts")
        try:
            while True:
                try:
                    claimed = await self._claim_due()
                    next_at = None if claimed else await self._next_look()
                    self._outage.over()
                    if not claimed:
                        await self.alarm.wait(next_at)
                except Exception as error:
                    self._outage.failed(error)
                    await self._outage.pause()
        finally:
            self._rooms.fall_behind()
            await end(watch, *self._under_way.values())

    async def close(self) -> None:
        """After `run` has ended: wait a bounded time for the plain functions that are still running."""
        await self._threads.close()

    async def _give_up_overdue(self) -> None:
        while True:
            now = self._clock.now()
            for attempt in self._attempts.values():
                attempt.give_up_if_overdue(now)
            await self._watch.wait(
                min((a.due_at for a in self._attempts.values() if a.due_at is not None), default=None)
            )

    async def stop_claiming(self) -> None:
        """Begin no more; what runs goes on."""
        self._draining = True
        # Behind a claim that may be under way on that thread: what it has claimed is begun before this goes on.
        await self._runtime.on_writer(lambda: None)
        await asyncio.sleep(0)

    async def drain(self, timeout_s: float) -> int:
        """Claim no more, and let what is under way end within `timeout_s`; what has not is stopped and put back, to be
        performed again by whoever comes next. How many those are."""
        await self.stop_claiming()
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=timeout_s)
        left = list(self._claimed.values())
        await end(*self._under_way.values())
        now = self._clock.now()
        for row in left:
            _LOG.warning("effect %s is put back: the engine stops first", row.effect_id, extra=_ids_of(row))
            put_back = (self._recorder.retry_effect, row.effect_id, row.lease_epoch, now, "the engine was stopped")
            await self._runtime.on_writer(*put_back)
        return len(left)

    @property
    def partitions(self) -> set[int]:
        """Those of the effects that are being performed here."""
        return {row.partition for row in self._claimed.values()}

    @property
    def running(self) -> int:
        """How many are being performed here."""
        return len(self._under_way)

    async def late_ns(self) -> int:
        """How long the earliest effect that is due, and could be performed here, waits."""
        names, kinds = self.queues()
        partitions = self._part.partitions()
        at = await self._runtime.on_reader(
            lambda: self._recorder.next_effect_at(names=names, kinds=kinds, partitions=partitions)
        )
        return max(0, self._clock.now() - at) if at else 0

    async def _claim_due(self) -> bool:
        """Start performing due effects; whether it is worth looking again at once."""
        await self._put_back_astray()
        rooms = [] if self._draining else self._rooms.with_room()
        if not rooms:
            self._rooms.fall_behind()
            return False
        # Half of the room is left to the commits meanwhile: what they claim costs nothing.
        now, asked = self._clock.now(), [(room, (room.left + 1) // 2) for room in rooms]
        for room, most in asked:
            room.asked_for = most
        try:
            found = await self._runtime.on_writer(self._claim, now, asked)
        finally:
            for room in rooms:
                room.asked_for = 0
        for (room, most), rows in zip(asked, found, strict=True):
            room.is_behind = len(rows) == most
            self._begin_all(rows)
        return any(room.is_behind and room.left > 0 for room in rooms)

    def _begin_all(self, rows: Sequence[EffectRow]) -> None:
        for row in rows:
            task, attempt = self._under_way.get(row.effect_id), self._attempts.get(row.effect_id)
            if task is None or task.done() or (attempt is not None and attempt.is_put_off):
                self._begin(row)
            elif attempt is not None:
                # The clock has leapt past its lease while it is still being performed here: the new one is its own.
                attempt.row = row
                self._claimed[row.effect_id] = row

    def _begin(self, row: EffectRow) -> None:
        if row.kind in KINDS:
            task, in_thread = self._messages.perform(row), False
        else:
            performer = self._performed_by(row)
            assert performer is not None, row
            in_thread = performer.in_thread
            task = asyncio.create_task(self._perform(self._attempt(row, performer)), name=f"effect {row.effect_id}")
        self._rooms.begins(row.effect_id, in_thread=in_thread)
        self._under_way[row.effect_id] = task
        self._claimed[row.effect_id] = row
        task.add_done_callback(partial(self._ended, row.effect_id))

    async def _put_back_astray(self) -> None:
        """If the commit is there after all, they are claimed again."""
        now = self._clock.now()
        while self._astray:
            row = self._astray[-1]
            if row.effect_id not in self._under_way:  # If it is, the commit was tried again.
                await self._runtime.on_writer(self._put_back, row, now)
            self._astray.remove(row)

    def _put_back(self, row: EffectRow, now: int) -> None:
        """On the writing thread. Another worker may have recorded what this one could not, with a claim of its own: of
        the same epoch, but not until the same time."""
        there = [one for one in self._recorder.select_effects(row.instance_id) if one.effect_id == row.effect_id]
        if there and there[0].due_at == row.due_at:
            self._recorder.retry_effect(row.effect_id, row.lease_epoch, now, "")

    def _claim(self, now: int, asked: Sequence[tuple[Room, int]]) -> list[Sequence[EffectRow]]:
        """On the writing thread: what is due, as many of each sort as there is room for."""
        names, kinds = self._queues([room for room, _ in asked])
        partitions = self._part.partitions()
        at = self._recorder.next_effect_at(names=names, kinds=kinds, partitions=partitions)
        if at is None or at > now:  # Spares a writing transaction.
            return [() for _ in asked]
        found = []
        for room, most in asked:
            names, kinds = self._queues([room])
            claim = self._recorder.claim_effects
            found.append(claim(now, most, names=names, kinds=kinds, lease_ns=LEASE_NS, partitions=partitions))
        return found

    async def _next_look(self) -> int | None:
        rooms = [] if self._draining else self._rooms.with_room()
        if not rooms:
            return None  # An effect that ends rings.
        names, kinds = self._queues(rooms)
        partitions = self._part.partitions()
        next_at = await self._runtime.on_reader(
            lambda: self._recorder.next_effect_at(names=names, kinds=kinds, partitions=partitions)
        )
        return self._part.look_by(next_at, self._clock.now())

    def queues(self) -> tuple[list[str], list[str]]:
        """The names and the kinds of effects that can be performed here."""
        return list(self._handlers), [*KINDS, *self._performers]

    def _queues(self, rooms: Sequence[Room]) -> tuple[list[str], list[str]]:
        """Of them those for which there is room."""
        if len(rooms) == len(self._rooms.all):
            return self.queues()
        in_thread = rooms[0] is self._rooms.in_threads
        names = [name for name, performer in self._handlers.items() if performer.in_thread == in_thread]
        kinds = [kind for kind, performer in self._performers.items() if performer.in_thread == in_thread]
        return names, kinds if in_thread else [*KINDS, *kinds]

    def _ended(self, effect_id: str, task: asyncio.Task[None]) -> None:
        if self._under_way.get(effect_id) is not task:
            return  # The next attempt has begun before this end was noticed.
        del self._under_way[effect_id]
        self._attempts.pop(effect_id, None)
        self._claimed.pop(effect_id, None)
        if self._rooms.ends(effect_id):
            self.alarm.ring()

    def _performed_by(self, row: EffectRow) -> _Performer | None:
        if row.kind == "perform":
            return self._handlers.get(row.name)
        return self._performers.get(row.kind)

    def _attempt(self, row: EffectRow, performer: _Performer) -> Attempt:
        """An attempt on the terms of the chart, or the handler's, or else everybody's."""
        default = performer.policy
        said = _read_policy(row.policy) if row.policy else _SAYS_NOTHING
        policy = replace(
            said,
            retry=said.retry or default.retry,
            timeout_ns=said.timeout_ns or default.timeout_ns,
            heartbeat_ns=said.heartbeat_ns or default.heartbeat_ns,
        )
        attempt = Attempt(row, performer.function, policy, self._clock, self._threads, self._extend)
        attempt.begin(policy.timeout_ns or ATTEMPT_TIMEOUT_NS, LEASE_NS)
        self._attempts[row.effect_id] = attempt
        if attempt.due_at is not None:
            self._watch.ring_before(attempt.due_at)
        return attempt

    async def _extend(self, row: EffectRow, due_at: int, details: str) -> bool:
        return await self._runtime.on_writer(
            self._recorder.extend_effect, row.effect_id, row.lease_epoch, due_at, details
        )

    async def _perform(self, attempt: Attempt) -> None:
        row = attempt.row
        try:
            result, _ = as_json(f"the result of handler '{row.name}'", await attempt.run())
        except asyncio.CancelledError:
            raise
        except EffectCancelled as error:
            if not attempt.cancelled:
                await self._failed(attempt, error)
            else:
                _LOG.info("attempt %d of effect %s has ended: %s", row.attempt, row.effect_id, error)
        except BaseException as error:
            await self._failed(attempt, error)
        else:
            await self._deliver(attempt.row, _result_of(attempt, result))

    async def _failed(self, attempt: Attempt, error: BaseException) -> None:
        """Try again later, or end it as failed."""
        row, policy = attempt.row, attempt.policy.retry or DEFAULT
        message = told(error)
        final = isinstance(error, PermanentError | InvalidError | TooLargeError) or is_final(policy, error)
        counted = not isinstance(error, RetryLater) or error.counted
        if (row.attempt < policy.attempts or not counted) and not final:
            text, level = ("failed", logging.WARNING) if counted else ("is put off", logging.INFO)
            _LOG.log(
                level, "effect %s, attempt %d %s: %s", row.effect_id, row.attempt, text, message, extra=_ids_of(row)
            )
            wait_ns = backoff_ns(policy, row.effect_id, row.attempt)
            if isinstance(error, RetryLater):
                wait_ns = round(max(0, min(error.seconds, RETRY_LATER_S_MAX)) * SECOND_NS)
            due_at = self._clock.now() + wait_ns
            await self._record(row, lambda: self._put_off(attempt, due_at, message, counted=counted))
            return
        text = "effect %s failed for good after attempt %d: %s"
        _LOG.error(text, row.effect_id, row.attempt, message, extra=_ids_of(row))
        await self._deliver(row, _result_of(attempt, error=message))

    async def _put_off(self, attempt: Attempt, due_at: int, message: str, *, counted: bool) -> None:
        retry = partial(self._recorder.retry_effect, counted=counted)
        while True:
            row = attempt.row
            attempt.is_put_off = await self._runtime.on_writer(retry, row.effect_id, row.lease_epoch, due_at, message)
            if attempt.is_put_off and attempt.row is not row:
                self._begin(attempt.row)  # It was claimed again before this was heard of.
                return
            if attempt.is_put_off or attempt.row is row:
                self.alarm.ring()
                return  # If the lease was not ours any more, somebody else performs it, or nobody has to.

    async def _deliver(self, row: EffectRow, result: EffectResult) -> None:
        await self._record(row, partial(self._submit, row, result))

    async def _submit(self, row: EffectRow, result: EffectResult) -> None:
        """Have the result recorded, or parked if it can't be: what has been performed is not to be performed again for
        a fault of ours."""
        for tried in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._runtime.submit(result, bounded=False)
            except Exception as error:
                if not is_fault(error):
                    raise
                _LOG.error("the result of effect %s can't be recorded: %s", row.effect_id, error)
                if tried == ATTEMPTS_MAX:
                    await self._parking.park_effect(row, error, result)
                    return
                await self._clock.sleep_until(self._clock.now() + backoff_ns(DEFAULT, row.effect_id, tried))
            else:
                return

    async def _record(self, row: EffectRow, recording: Callable[[], Awaitable[Any]]) -> None:
        """Have an attempt's end recorded, again while the store can't be written: better than performing again. One
        that can't be recorded at all is performed again when its lease has run out."""
        for tried in range(1, RECORDINGS_MAX + 1):
            try:
                await recording()
            except (UnavailableError, PersistenceError) as error:
                text = "attempt %d of effect %s can't be recorded now: %s"
                _LOG.warning(text, row.attempt, row.effect_id, error, extra=_ids_of(row))
                await self._clock.sleep_until(self._clock.now() + backoff_ns(DEFAULT, row.effect_id, tried))
            except StatewrightError as error:
                text = "attempt %d of effect %s can't be recorded: %s"
                _LOG.error(text, row.attempt, row.effect_id, error, extra=_ids_of(row))
                break
            else:
                return
        self.alarm.ring()  # To see when its lease runs out.


def _result_of(attempt: Attempt, result: Json = None, error: str = "") -> EffectResult:
    row = attempt.row
    return EffectResult(
        row.instance_id, row.effect_id, row.name, result, error, attempt.policy.until, row.attempt, attempt.began_at
    )


def _ids_of(row: EffectRow) -> dict[str, str]:
    """For the log."""
    return {"instance": row.instance_id, "effect": row.effect_id}
