"""The client of the kill test: many senders, each item sent until it is acknowledged, and a book of it all."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from statewright.adapters.nats.client import Client
from statewright.engine import Outcome, Started
from statewright.engine.errors import BusyError, UnavailableError

SENDERS = 40
RETRY_S = 0.02


class Item(NamedTuple):
    """Something to be acknowledged: `how` is "start", "send" (by request) or "publish" (left with JetStream)."""

    how: str
    instance_id: str
    event_id: str = ""


class Workload:
    """Sends what is put into it. `acknowledged`: what was answered, by item; `attempts`: how often it was sent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self._senders = [asyncio.create_task(self._send_for_ever()) for _ in range(SENDERS)]
        self.attempts: dict[Item, int] = {}
        self.acknowledged: dict[Item, Outcome | Started | None] = {}

    def put(self, items: list[Item]) -> None:
        for item in items:
            self._queue.put_nowait(item)

    @property
    def unacknowledged(self) -> set[Item]:
        """What has been sent at least once and not been acknowledged."""
        return self.attempts.keys() - self.acknowledged.keys()

    async def until_acknowledged(self, count: int) -> None:
        """Wait until so many items in all have been acknowledged."""
        while len(self.acknowledged) < count:
            self._complain()
            await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Take in the answers that are still on their way from an engine that is gone."""
        await self._client.connection.nc.flush()
        await asyncio.sleep(0)

    async def close(self) -> None:
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    def _complain(self) -> None:
        """A sender that ended has met an error that no retry heals: the test has failed."""
        for sender in self._senders:
            if sender.done():
                sender.result()

    async def _send_for_ever(self) -> None:
        while True:
            item = await self._queue.get()
            while True:
                self.attempts[item] = self.attempts.get(item, 0) + 1
                try:
                    self.acknowledged[item] = await self._send(item)
                    break
                except (UnavailableError, BusyError):
                    await asyncio.sleep(RETRY_S)

    async def _send(self, item: Item) -> Outcome | Started | None:
        if item.how == "start":
            return await self._client.start("crash", {}, id=item.instance_id)
        if item.how == "send":
            return await self._client.send(item.instance_id, "step", event_id=item.event_id)
        await self._client.publish(item.instance_id, "step", event_id=item.event_id)
        return None
