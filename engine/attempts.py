"""One attempt to perform an effect: run, watched, told when nobody waits for it any more, its heartbeats kept.

Invariants: an attempt ends once, with a result, an error, or `EffectCancelled`. A coroutine that is given up is
cancelled. A plain function can't be: it is told, and if it was cancelled its result is still taken, so that what was
done all the same is recorded; if its time was up, it runs on unheard.
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

from statewright.engine.calls import EffectCall, EffectCancelled, Handler
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import UnavailableError
from statewright.engine.recorder import EffectRow
from statewright.engine.requests import as_json
from statewright.engine.threads import Threads
from statewright.statecharts.durations import format_duration
from statewright.statecharts.facts import Json, Policy

GRACE_NS = 5 * SECOND_NS
"""How much longer a lease holds than the attempt, so that whoever performs it is the first to give it up."""

Extend = Callable[[EffectRow, int, str], Awaitable[bool]]
"""(row, until when its lease is to hold, details) -> whether it is still ours."""

_LOG = logging.getLogger("statewright.engine")


class Attempt:
    """An attempt under way, on the terms of `policy`. `row` is the effect's row as it was claimed."""

    def __init__(
        self, row: EffectRow, handler: Handler, policy: Policy, clock: Clock, threads: Threads, extend: Extend
    ) -> None:
        self.row = row
        self.policy = policy
        self._handler = handler
        self._clock = clock
        self._threads = threads
        self._extend = extend
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._in_thread = False
        self._given_up: Exception | None = None
        self._is_abandoned = False
        self._is_over = False
        self.is_put_off = False
        """Whether it has failed and the next one is on record: whoever claims that begins it."""
        self.began_at = 0
        """When its time began (ns UTC)."""
        self._timeout_ns = self._deadline = self._beaten_at = 0
        self._has_own_lease = False
        self._details = self._kept = row.details
        self._is_unsaved = False
        self._saving: asyncio.Task[None] | None = None

    def begin(self, timeout_ns: int, lease_ns: int) -> None:
        """Its time starts now; `lease_ns` is what it was claimed for."""
        self._timeout_ns = timeout_ns
        self.began_at = self._beaten_at = self._clock.now()
        self._deadline = self._beaten_at + timeout_ns
        self._has_own_lease = self._lease_until() > self._beaten_at + lease_ns or self.policy.heartbeat_ns > 0

    @property
    def due_at(self) -> int | None:
        """When it is given up unless something happens; None if it has been."""
        if self._is_abandoned:
            return None
        if self._given_up is None and self.policy.heartbeat_ns:
            return min(self._deadline, self._beaten_at + self.policy.heartbeat_ns)
        return self._deadline

    def give_up_if_overdue(self, now: int) -> None:
        """Give it up if its time is up or its heartbeat has stopped."""
        due_at = self.due_at
        if due_at is None or now < due_at:
            return
        what, ns = ("result", self._timeout_ns) if now >= self._deadline else ("heartbeat", self.policy.heartbeat_ns)
        self._given_up = self._given_up or TimeoutError(f"no {what} within {format_duration(ns)}")
        self._abandon()

    def cancel(self, why: str) -> None:
        """Nobody waits for its result any more."""
        if self._given_up is None:
            self._given_up = EffectCancelled(why)
            if not self._in_thread:
                self._abandon()

    def _abandon(self) -> None:
        self._is_abandoned = True
        if self._task is not None and not self._is_over:
            self._task.cancel()

    async def run(self) -> Any:
        """What the handler returns or raises; `TimeoutError` or `EffectCancelled` if it was given up."""
        task = self._task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            if self._has_own_lease:
                await self._save(self.row.details)
            if self._given_up is not None:
                raise self._given_up
            return await self._handle()
        except asyncio.CancelledError as error:
            self._is_over = True
            if self._is_abandoned and self._given_up is not None and task.uncancel() <= before:
                raise self._given_up from None
            if task.cancelling() <= before:
                raise RuntimeError("the handler was cancelled from within") from error
            self._given_up = EffectCancelled("the engine is closing")
            raise
        except BaseException:
            if isinstance(self._given_up, EffectCancelled):
                raise self._given_up from None
            raise
        finally:
            self._is_over = True
            await self._save_last()

    async def _handle(self) -> Any:
        row, handler = self.row, self._handler
        call = EffectCall(
            row.effect_id,
            row.instance_id,
            row.name,
            row.kind,
            msgspec.json.decode(row.data),
            row.attempt,
            msgspec.json.decode(row.details) if row.details else None,
            self._deadline,
            self.policy,
            self,
        )
        if inspect.iscoroutinefunction(handler):
            return await handler(call)
        result = await self.in_thread(partial(handler, call))
        # An object whose `__call__` is a coroutine looks like a plain function until it is called.
        return await result if inspect.isawaitable(result) else result

    # -- the pulse of the call -----------------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more; may be asked from any thread."""
        return self._given_up is not None

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """See `EffectCall.in_thread`."""
        self._in_thread = True
        try:
            return await self._threads.run(f"effect {self.row.effect_id}", function)
        finally:
            self._in_thread = False

    def beat(self, details: Json) -> None:
        """A sign of life, from any thread. Raises `EffectCancelled`."""
        if self._given_up is not None:
            raise EffectCancelled(str(self._given_up)) from self._given_up
        if details is not None:
            self._details = as_json("the details of a heartbeat", details)[1].decode()
        try:
            self._loop.call_soon_threadsafe(self._beaten)
        except RuntimeError as error:  # The loop is closed.
            raise EffectCancelled("the engine has closed") from error

    def _beaten(self) -> None:
        self._beaten_at = self._clock.now()
        if self._is_over:
            return
        self._is_unsaved = True
        if self._saving is None or self._saving.done():  # Those that come meanwhile are kept with the next.
            self._saving = self._loop.create_task(self._save_all())

    async def _save_all(self) -> None:
        while self._is_unsaved:
            self._is_unsaved = False
            await self._save(self._details)

    async def _save_last(self) -> None:
        """What was said last goes to the next attempt, if there is one."""
        if self._saving is not None:
            await asyncio.wait((self._saving,))
        if self._details != self._kept and not isinstance(self._given_up, EffectCancelled):
            await self._save(self._details)

    async def _save(self, details: str) -> None:
        try:
            is_ours = await self._extend(self.row, self._lease_until(), details)
        except (UnavailableError, PersistenceError) as error:
            _LOG.warning("a heartbeat of effect %s can't be kept now: %s", self.row.effect_id, error)
            return
        self._kept = details
        if not is_ours:
            self.cancel(f"effect '{self.row.effect_id}' is no longer performed here")

    def _lease_until(self) -> int:
        ends_at = self._beaten_at + self.policy.heartbeat_ns if self.policy.heartbeat_ns else self._deadline
        return ends_at + GRACE_NS
