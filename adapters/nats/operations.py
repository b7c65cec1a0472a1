"""The operators' doors: lists and histories page by page, what is parked, and pruning.

Invariants: every request gets one answer, a page or what was done, or an error; a page is never larger than
`PAGE_BYTES_MAX`, so that any nats-server carries it. Few at a time: who operates can wait, who approves can't.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.inbound import read_parked
from statewright.adapters.nats.replies import Pruned, encode_error
from statewright.adapters.nats.requests import QUEUE_GROUP
from statewright.engine.engine import Engine
from statewright.engine.errors import BusyError, InvalidError, TooLargeError
from statewright.engine.events import InstancePruned
from statewright.engine.recorder import InstanceFilter
from statewright.projections.parked import parked_json
from statewright.projections.status import status_json
from statewright.projections.timeline import history_json, timeline
from statewright.statecharts.errors import StatewrightError

PAGE_BYTES_MAX = 512 * 1024
LIMIT_MAX = 10_000
WAITING_MAX = 100
"""How many requests may be under way at once."""

_LOG = logging.getLogger("statewright.nats")
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class _HistoryPage(msgspec.Struct, forbid_unknown_fields=True):
    after: int = 0
    limit: int = 100


class _ParkedPage(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = 100


class _Parked(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    reason: str = ""


class _Prune(msgspec.Struct, forbid_unknown_fields=True):
    tombstones: list[InstancePruned]
    position: int


class OperationDoors:
    """Those of one engine."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        for subject, answer in (
            ("statewright.query.list", self._list),
            ("statewright.query.history.>", self._history),
            ("statewright.parked.list", self._parked),
            ("statewright.parked.retry", self._retry),
            ("statewright.parked.drop", self._drop),
            ("statewright.store.prune", self._prune),
        ):
            callback = partial(self._on_request, answer)
            self._subscriptions.append(await self._connection.subscribe(subject, callback, QUEUE_GROUP))

    async def close(self) -> None:
        """Take no more, answer what was taken."""
        for subscription in self._subscriptions:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                _LOG.debug("closing a subscription: %s", error)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _on_request(self, answer: Callable[[Msg], Awaitable[Any]], message: Msg) -> None:
        if len(self._tasks) >= WAITING_MAX:
            self._reply(message, encode_error(BusyError(f"{WAITING_MAX} requests are under way; try again later")))
            return
        task = asyncio.create_task(self._answer(answer, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, answer: Callable[[Msg], Awaitable[Any]], message: Msg) -> None:
        try:
            reply = _encode(await answer(message))
        except Exception as error:
            if not isinstance(error, StatewrightError):
                _LOG.exception("a request on %s failed", message.subject)
            reply = encode_error(error)
        self._reply(message, reply)

    def _reply(self, message: Msg, payload: bytes) -> None:
        if message.reply:
            self._connection.post(message.reply, payload)

    async def _list(self, message: Msg) -> Any:
        where = _asked(message, InstanceFilter)
        _check_limit(where.limit)
        rows = await self._engine.list(where)
        return _page(map(status_json, rows), where.limit)

    async def _history(self, message: Msg) -> Any:
        asked = _asked(message, _HistoryPage)
        _check_limit(asked.limit)
        instance_id = message.subject.removeprefix("statewright.query.history.")
        to = asked.after + asked.limit
        before = None
        if asked.after > 0:
            before = (await self._engine.replay(instance_id, to_sequence=asked.after)).instance
        facts = await self._engine.history(instance_id, after=max(asked.after, 0), to=to)
        return _page(map(history_json, timeline(facts, before)), asked.limit)

    async def _parked(self, message: Msg) -> Any:
        limit = _check_limit(_asked(message, _ParkedPage).limit)
        return _page(map(parked_json, await self._engine.parked(limit)), limit)

    async def _retry(self, message: Msg) -> Any:
        asked = _asked(message, _Parked)
        return await self._engine.retry_parked(asked.id, partial(read_parked, self._engine.charts))

    async def _drop(self, message: Msg) -> Any:
        asked = _asked(message, _Parked)
        await self._engine.drop_parked(asked.id, reason=asked.reason)
        return {"id": asked.id}

    async def _prune(self, message: Msg) -> Any:
        asked = _asked(message, _Prune)
        return Pruned(list(await self._engine.upkeep.prune(asked.tombstones, position=asked.position)))


def _asked(message: Msg, kind: type[T]) -> T:
    """What a request asks for; no payload means all defaults. Raises `InvalidError`."""
    try:
        return msgspec.json.decode(message.data or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(
            f"expected a JSON object for '{message.subject}', got {message.data[:60]!r}: {error}"
        ) from error


def _check_limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidError(f"expected a limit from 1 to {LIMIT_MAX:,}, got {limit}")
    return limit


def _page(items: Iterable[dict[str, Any]], limit: int) -> dict[str, Any]:
    """As many as fit. There may be more if the page is full."""
    encoded: list[msgspec.Raw] = []
    size = 0
    for item in items:
        raw = _encode(item)
        size += len(raw)
        if size > PAGE_BYTES_MAX:
            if not encoded:
                raise TooLargeError(
                    f"expected an item of at most {PAGE_BYTES_MAX:,} bytes, got {size:,}: read the store"
                )
            return {"items": encoded, "more": True}
        encoded.append(msgspec.Raw(raw))
    return {"items": encoded, "more": len(encoded) == limit}
