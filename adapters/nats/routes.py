"""Requests find the worker that looks after their instance.

Several workers share the request doors by a queue group, so that any of them may get a request. Each hands it on to the
one that has the instance in memory. Invariant: this spares reading and conflicts, and nothing depends on it. When the
other does not answer, the request is decided here: the store keeps apart what two workers do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from statewright.adapters.nats.connection import Connection
from statewright.engine.engine import Engine
from statewright.engine.partitions import partition_of
from statewright.engine.tasks import end

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


class Routes:
    """The routes of one worker."""

    def __init__(self, engine: Engine, connection: Connection, take: Take) -> None:
        self._engine = engine
        self._connection = connection
        self._take = take
        self._handed_on: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Take what other workers hand on."""
        shares = self._engine.shares
        if shares is not None:
            subject = f"statewright.workers.{shares.worker}.>"
            self._subscription = await self._connection.subscribe(subject, self._on_handed_on)

    async def close(self, timeout_s: float) -> None:
        """Take no more; what is with other workers is answered (bounded)."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            try:
                await subscription.drain()  # type: ignore[no-untyped-call]
            except Exception as error:
                _LOG.debug("a route was closed without draining: %s", error)
        if self._handed_on:
            await asyncio.wait(self._handed_on, timeout=timeout_s)
        await end(*self._handed_on)

    def hand_on(self, door: str, instance_id: str, message: Msg, actor: str | None) -> bool:
        """Whether the request is another worker's; then it is on its way there."""
        shares = self._engine.shares
        if shares is None or len(self._handed_on) >= HANDED_ON_MAX:
            return False
        size = len(message.data)
        if self._bytes + size > HANDED_ON_BYTES_MAX:
            return False
        owner = shares.owner_of(partition_of(instance_id, self._engine.recorder.partitions))
        if owner in ("", shares.worker):
            return False
        task = asyncio.create_task(self._ask(owner, door, instance_id, message, actor))
        self._handed_on.add(task)
        self._bytes += size
        task.add_done_callback(partial(self._returned, size))
        return True

    def _returned(self, size: int, task: asyncio.Task[None]) -> None:
        self._handed_on.discard(task)
        self._bytes -= size

    async def _ask(self, owner: str, door: str, instance_id: str, message: Msg, actor: str | None) -> None:
        headers = {**(message.headers or {}), **({ACTOR: actor} if actor is not None else {})}
        subject = f"statewright.workers.{owner}.{door}.{instance_id}"
        try:
            reply = await self._connection.nc.request(
                subject, message.data, timeout=HAND_ON_TIMEOUT_S, headers=headers or None
            )
        except (nats.errors.Error, TimeoutError) as error:
            _LOG.debug("worker %s does not answer, so %s is decided here: %s", owner, message.subject, error)
            self._take(door, instance_id, message, actor)
        else:
            if message.reply:
                self._connection.post(message.reply, reply.data)

    async def _on_handed_on(self, message: Msg) -> None:
        if self._connection.crowded:
            await self._connection.room()
        door, _, instance_id = message.subject.split(".", 3)[3].partition(".")
        self._take(door, instance_id, message, (message.headers or {}).get(ACTOR))
