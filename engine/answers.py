"""How requests are answered: at once where it is known, else with what the log says was answered the first time.

Invariant: a request is answered once; a caller who has gone misses nothing that others are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from statewright.engine.errors import AlreadyExistsError, PrunedError, UnavailableError
from statewright.engine.events import InstanceStarted
from statewright.engine.log import InstanceLog
from statewright.engine.requests import Outcome, Request, Started, StartRequest, as_json
from statewright.engine.unit import Answer, FirstOutcome, FirstStart
from statewright.statecharts.errors import StatewrightError


class Delivery:
    """One request and the future of its answer."""

    __slots__ = ("answered", "request")

    def __init__(self, request: Request, answered: asyncio.Future[Any]) -> None:
        self.request = request
        self.answered = answered


class Lookups:
    """Answers what was decided before, from the log; each batch of them apart, so that a flood of duplicates holds
    nobody up."""

    def __init__(self, log: InstanceLog, on_reader: Callable[..., Awaitable[Any]]) -> None:
        self._log = log
        self._on_reader = on_reader
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting = 0
        """How many are still to be looked up."""

    def begin(self, lookups: Sequence[tuple[Delivery, Answer]]) -> None:
        self.waiting += len(lookups)
        task = asyncio.get_running_loop().create_task(self._look_up_all(lookups))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Return once all that was begun is answered."""
        await asyncio.gather(*self._tasks)

    async def _look_up_all(self, lookups: Sequence[tuple[Delivery, Answer]]) -> None:
        for delivery, answer in lookups:
            await self.look_up(delivery, answer)
            self.waiting -= 1

    async def look_up(self, delivery: Delivery, answer: Answer) -> None:
        """Answer one."""
        try:
            if isinstance(answer, FirstStart):
                found: Any = await self._on_reader(self._first_start, answer.request)
            else:
                assert isinstance(answer, FirstOutcome)
                outcome = await self._on_reader(self._log.outcome_at, answer.instance_id, answer.sequence)
                found = Outcome("duplicate", outcome.reason, outcome.sequence, outcome.configuration, outcome.status)
        except StatewrightError as error:
            answer_all([delivery], error)
        except Exception as error:
            failure = UnavailableError(f"the first answer can't be read: {error}")
            failure.__cause__ = error
            answer_all([delivery], failure)
        else:
            if not delivery.answered.done():
                delivery.answered.set_result(found)

    def _first_start(self, request: StartRequest) -> Started:
        found = self._log.facts(request.instance_id, to=1)
        if not found:  # The instance in memory was pruned meanwhile.
            raise AlreadyExistsError(str(self._log.absence(request.instance_id)))
        first = found[0]
        assert isinstance(first, InstanceStarted)
        _, encoded = as_json("the context", request.context)
        same = (
            first.definition == request.definition
            and request.version in (None, first.version)
            and as_json("the context", first.input)[1] == encoded
            and first.parent == request.parent
        )
        if not same:
            raise AlreadyExistsError(
                f"instance '{request.instance_id}' exists: it was started as '{first.definition}' version "
                f"'{first.version}' with other content"
            )
        return Started(first.instance_id, first.sequence, first.configuration, first.status)


def as_answer(request: Request, error: Exception) -> Exception:
    """Why `request` can't be decided: to a start, an instance that was pruned is one that exists."""
    if isinstance(error, PrunedError) and isinstance(request, StartRequest):
        return AlreadyExistsError(str(error))
    return error


def settle(delivery: Delivery, answer: Answer) -> bool:
    """Give the answer, unless it must be looked up first (then true)."""
    if isinstance(answer, FirstOutcome | FirstStart):
        return True
    answered = delivery.answered
    if not answered.done():  # The caller may have gone.
        if isinstance(answer, Exception):
            answered.set_exception(answer)
        else:
            answered.set_result(answer)
    return False


def answer_all(batch: Sequence[Delivery], error: Exception) -> None:
    for delivery in batch:
        if not delivery.answered.done():
            delivery.answered.set_exception(error)
