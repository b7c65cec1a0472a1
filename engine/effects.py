"""Effects: rows of table `effects` are claimed, performed, and their results delivered as events.

At least once: a handler may run again after a crash, so it gets `effect_id`, which stays the same. The result's inbox
row, its event and the effect's end commit together, so a second result changes nothing. Retries are rows too: a
restart goes on with the next attempt.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from eventsourcing.persistence import PersistenceError

from statewright.engine.alarm import Alarm
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import InvalidError, TooLargeError, UnavailableError
from statewright.engine.messages import Messages
from statewright.engine.recorder import Changes, EffectRow, InstanceRecorder
from statewright.engine.relatives import KINDS
from statewright.engine.requests import EffectResult, as_json
from statewright.engine.runtime import Runtime
from statewright.engine.shares import WHOLE, Part
from statewright.engine.tasks import end
from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.facts import Json

CONCURRENCY_MAX = 100
"""How many effects are performed at once."""
ATTEMPTS_MAX = 5
BACKOFF_NS = SECOND_NS
"""The wait before the second attempt; it doubles with each further one."""
BACKOFF_MAX_NS = 60 * SECOND_NS
ATTEMPT_TIMEOUT_S = 300.0
RECORDINGS_MAX = 6
"""How often an attempt's end is tried to be recorded while the store can't be written, with the same waits between."""
LEASE_NS = 600 * SECOND_NS
"""How long a claim holds: longer than an attempt may take."""

_LOG = logging.getLogger("statewright.engine")


class EffectCall(msgspec.Struct, frozen=True):
    """What a handler is given. `attempt` counts from 1; `effect_id` is the same in every attempt."""

    effect_id: str
    instance_id: str
    name: str
    kind: str
    data: Json
    attempt: int


class PermanentError(StatewrightError):
    """Raise it in a handler when trying again can't help: the effect ends as failed at once."""


Handler = Callable[[EffectCall], Awaitable[Json]] | Callable[[EffectCall], Json]
"""Performs one effect and returns its result (JSON). An `async def`, or a plain function, which is run in a thread."""


class Effects:
    """The loop that performs effects, with the registry of who performs which."""

    def __init__(
        self, recorder: InstanceRecorder, runtime: Runtime, messages: Messages, clock: Clock, part: Part = WHOLE
    ) -> None:
        self._recorder = recorder
        self._runtime = runtime
        self._messages = messages
        self._clock = clock
        self._part = part
        self._handlers: dict[str, Handler] = {}
        self._performers: dict[str, Handler] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """By effect id."""
        self.alarm = Alarm(clock)

    def register(self, name: str, handler: Handler) -> None:
        """`handler` performs the effects of kind "perform" that are called `name`."""
        self._handlers[name] = handler
        self.alarm.ring()

    @property
    def handled(self) -> frozenset[str]:
        """The names that have a handler."""
        return frozenset(self._handlers)

    def register_kind(self, kind: str, performer: Handler) -> None:
        """`performer` performs every effect of `kind` ("emit", "call")."""
        self._performers[kind] = performer
        self.alarm.ring()

    def committed(self, changes: Changes) -> None:
        """Look again if a commit asked for something that can be performed here."""
        for row in changes.effects_requested:
            if row.kind in KINDS or self._performed_by(row) is not None:
                self.alarm.ring()
                return

    async def run(self) -> None:
        """Perform what is due for ever; ends by cancellation, after which what was under way will be done again."""
        try:
            while True:
                try:
                    if not await self._claim_due():
                        await self.alarm.wait(await self._next_look())
                except Exception:
                    _LOG.exception("effects can't be claimed; looking again in a second")
                    await self._clock.sleep_until(self._clock.now() + SECOND_NS)
        finally:
            await end(*self._under_way.values())

    async def _claim_due(self) -> bool:
        """Start performing due effects; whether it is worth looking again at once."""
        room = CONCURRENCY_MAX - len(self._under_way)
        if room <= 0:
            return False
        now = self._clock.now()
        rows = await self._runtime.on_writer(self._claim, now, room)
        for row in rows:
            if row.effect_id in self._under_way:
                continue  # The clock has leapt past its lease while it is still being performed here: it goes on.
            if row.kind in KINDS:
                task = self._messages.perform(row)
            else:
                task = asyncio.create_task(self._perform(row), name=f"effect {row.effect_id}")
            self._under_way[row.effect_id] = task
            task.add_done_callback(partial(self._ended, row.effect_id))
        return len(rows) == room

    def _claim(self, now: int, room: int) -> list[EffectRow]:
        names, kinds = self._queues()
        partitions = self._part.partitions()
        at = self._recorder.next_effect_at(names=names, kinds=kinds, partitions=partitions)
        if at is None or at > now:  # Spares a writing transaction.
            return []
        return list(
            self._recorder.claim_effects(now, room, names=names, kinds=kinds, lease_ns=LEASE_NS, partitions=partitions)
        )

    async def _next_look(self) -> int | None:
        if len(self._under_way) >= CONCURRENCY_MAX:
            return None  # An effect that ends rings.
        names, kinds = self._queues()
        partitions = self._part.partitions()
        next_at = await self._runtime.on_reader(
            lambda: self._recorder.next_effect_at(names=names, kinds=kinds, partitions=partitions)
        )
        return self._part.look_by(next_at, self._clock.now())

    def _queues(self) -> tuple[list[str], list[str]]:
        """The names and the kinds of effects that can be performed here."""
        return list(self._handlers), [*KINDS, *self._performers]

    def _ended(self, effect_id: str, task: asyncio.Task[None]) -> None:
        del self._under_way[effect_id]
        self.alarm.ring()

    def _performed_by(self, row: EffectRow) -> Handler | None:
        if row.kind == "perform":
            return self._handlers.get(row.name)
        return self._performers.get(row.kind)

    async def _perform(self, row: EffectRow) -> None:
        handler = self._performed_by(row)
        assert handler is not None, row
        call = EffectCall(
            row.effect_id, row.instance_id, row.name, row.kind, msgspec.json.decode(row.data), row.attempt
        )
        try:
            result, _ = as_json(f"the result of handler '{row.name}'", await _attempt(handler, call))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await self._failed(row, error)
        else:
            await self._deliver(row, EffectResult(row.instance_id, row.effect_id, row.name, result))

    async def _failed(self, row: EffectRow, error: BaseException) -> None:
        """Try again later, or end it as failed."""
        said = str(error).replace("\0", "")  # No database keeps a NUL in a text.
        message = f"{type(error).__name__}: {said}" if said else type(error).__name__
        if row.attempt < ATTEMPTS_MAX and not isinstance(error, PermanentError | InvalidError | TooLargeError):
            _LOG.warning("effect %s, attempt %d failed: %s", row.effect_id, row.attempt, message)
            due_at = self._clock.now() + _backoff_ns(row.attempt)
            retry = (self._recorder.retry_effect, row.effect_id, row.lease_epoch, due_at, message)
            await self._record(row, lambda: self._runtime.on_writer(*retry))
            return
        _LOG.error("effect %s failed for good after attempt %d: %s", row.effect_id, row.attempt, message)
        await self._deliver(row, EffectResult(row.instance_id, row.effect_id, row.name, error=message))

    async def _deliver(self, row: EffectRow, result: EffectResult) -> None:
        await self._record(row, lambda: self._runtime.submit(result, bounded=False))

    async def _record(self, row: EffectRow, recording: Callable[[], Awaitable[Any]]) -> None:
        """Have an attempt's end recorded, again while the store can't be written: better than performing again. One
        that can't be recorded at all is performed again when its lease has run out."""
        for tried in range(1, RECORDINGS_MAX + 1):
            try:
                await recording()
            except (UnavailableError, PersistenceError) as error:
                _LOG.warning("attempt %d of effect %s can't be recorded now: %s", row.attempt, row.effect_id, error)
                await self._clock.sleep_until(self._clock.now() + _backoff_ns(tried))
            except StatewrightError as error:
                _LOG.error("attempt %d of effect %s can't be recorded: %s", row.attempt, row.effect_id, error)
                return
            else:
                return


def _backoff_ns(attempt: int) -> int:
    return min(BACKOFF_NS << (attempt - 1), BACKOFF_MAX_NS)


async def _attempt(handler: Handler, call: EffectCall) -> Any:
    async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
        if inspect.iscoroutinefunction(handler):
            return await handler(call)
        result = await asyncio.to_thread(handler, call)
        # An object whose `__call__` is a coroutine looks like a plain function until it is called.
        return await result if inspect.isawaitable(result) else result
