"""Requests find the worker that looks after their instance.

Several workers share the request doors by a queue group, so that any of them may get a request. Each hands it on to the
one that has the instance in memory. Invariant: this spares reading and conflicts, and nothing depends on it. When the
other does not answer, the request is decided here: the store keeps apart what two workers do.

Half of all requests take this way where there are two workers, so it has no task and no timer for each: what is with
others is in one dictionary, in the order in which it was asked, and one timer looks at its beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats.connection import Connection
from statewright.engine.engine import Engine
from statewright.engine.partitions import partition_of

HAND_ON_TIMEOUT_S = 2.0
"""How long the other worker may take; a client that waits longer finds its request decided here."""
HANDED_ON_MAX = 10_000
"""How many requests may be with other workers; more are decided here."""
HANDED_ON_BYTES_MAX = 32 * 1024 * 1024
"""How large they may be together; likewise."""

_LOG = logging.getLogger("statewright.nats")
Take = Callable[[str, str, Msg, str | None], None]
"""(door, instance id, message, the actor that its subject vouched for): decide the request here."""
ACTOR = "Statewright-Vouched-Actor"
"""The header that tells that actor to the other worker. Nobody else may publish on the workers' subjects."""


class _Asked(NamedTuple):
    """A request that is with another worker. due: when it is decided here, by the loop's clock."""

    owner: str
    door: str
    instance_id: str
    message: Msg
    actor: str | None
    due: float


class Routes:
    """The routes of one worker."""

    def __init__(self, engine: Engine, connection: Connection, take: Take) -> None:
        self._engine = engine
        self._connection = connection
        self._take = take
        self._inbox = connection.nc.new_inbox()
        self._numbers = count()
        self._asked: dict[str, _Asked] = {}
        """By the subject of the answer, the oldest first."""
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._answered = asyncio.Event()
        self._subscriptions: list[Subscription] = []

    async def open(self) -> None:
        """Take what other workers hand on, and their answers."""
        shares = self._engine.shares
        if shares is not None:
            subscribe = self._connection.subscribe
            self._subscriptions.append(await subscribe(f"{self._inbox}.*", self._on_answer))
            self._subscriptions.append(await subscribe(f"statewright.workers.{shares.worker}.>", self._on_handed_on))

    async def close(self, timeout_s: float) -> None:
        """Take no more; what is with other workers is answered (bounded)."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions[1:]:
            try:
                await subscription.drain()  # type: ignore[no-untyped-call]
            except Exception as error:
                _LOG.debug("a route was closed without draining: %s", error)
        try:
            async with asyncio.timeout(timeout_s):
                while self._asked:
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            _LOG.warning("%d requests were still with other workers when the doors closed", len(self._asked))
            self._asked.clear()
        if self._timer is not None:
            self._timer.cancel()
        for subscription in subscriptions[:1]:
            try:
                await subscription.unsubscribe()
            except Exception as error:
                _LOG.debug("closing a route: %s", error)

    def hand_on(self, door: str, instance_id: str, message: Msg, actor: str | None) -> bool:
        """Whether the request is another worker's; then it is on its way there."""
        shares = self._engine.shares
        if shares is None or not self._subscriptions or len(self._asked) >= HANDED_ON_MAX:
            return False
        size = len(message.data)
        if self._bytes + size > HANDED_ON_BYTES_MAX:
            return False
        owner = shares.owner_of(partition_of(instance_id, self._engine.recorder.partitions))
        if owner in ("", shares.worker):
            return False
        loop = asyncio.get_running_loop()
        asked = _Asked(owner, door, instance_id, message, actor, loop.time() + HAND_ON_TIMEOUT_S)
        answer_to = f"{self._inbox}.{next(self._numbers)}"
        self._asked[answer_to] = asked
        self._bytes += size
        if self._timer is None:
            self._timer = loop.call_at(asked.due, self._decide_overdue)
        headers = {**(message.headers or {}), **({ACTOR: actor} if actor is not None else {})}
        subject = f"statewright.workers.{owner}.{door}.{instance_id}"
        self._connection.post(subject, message.data, reply=answer_to, headers=headers or None)
        return True

    async def _on_answer(self, message: Msg) -> None:
        asked = self._pop(message.subject)
        if asked is None:
            return  # It came too late: the request has been decided here.
        if not message.data and message.headers and message.headers.get("Status") == "503":
            self._decide(asked, "is not there")
        elif asked.message.reply:
            self._connection.post(asked.message.reply, message.data)

    def _pop(self, answer_to: str) -> _Asked | None:
        asked = self._asked.pop(answer_to, None)
        if asked is not None:
            self._bytes -= len(asked.message.data)
            self._answered.set()
        return asked

    def _decide_overdue(self) -> None:
        """Decide here what others have not answered in time, and look again when the next is due."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._asked:
            answer_to, asked = next(iter(self._asked.items()))
            if asked.due > loop.time():
                self._timer = loop.call_at(asked.due, self._decide_overdue)
                return
            self._pop(answer_to)
            self._decide(asked, "does not answer")

    def _decide(self, asked: _Asked, why: str) -> None:
        _LOG.debug("worker %s %s, so %s is decided here", asked.owner, why, asked.message.subject)
        self._take(asked.door, asked.instance_id, asked.message, asked.actor)

    async def _on_handed_on(self, message: Msg) -> None:
        if self._connection.crowded:
            await self._connection.room()
        door, _, instance_id = message.subject.split(".", 3)[3].partition(".")
        self._take(door, instance_id, message, (message.headers or {}).get(ACTOR))
