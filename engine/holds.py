"""Holds: for a moment nothing is decided about an instance but modifications of it, while one is worked out.

What a modification is worked out from is read outside of the unit of work, and an instance that goes on faster than
that would never be modified. What is asked of it meanwhile waits in memory, in its order, as it waits for a commit that
is under way. Nothing of a hold is recorded: a crash leaves none behind, and what waited is as if it had never come.

Invariants: one hold an instance at a time, in the order in which they were asked for. What waits is decided in the
order in which it came, after what had come before the hold. A hold keeps only this process from deciding: what fences
a modification is the sequence that it expects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from statewright.engine.answers import Delivery
from statewright.engine.requests import ModifyRequest


class Holds:
    """`put_back` is given what waited for a hold that has ended."""

    def __init__(self, put_back: Callable[[Iterable[Delivery]], None]) -> None:
        self._put_back = put_back
        self._kept: dict[str, list[Delivery]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.waiting = 0
        """How many requests wait."""

    def keep(self, delivery: Delivery) -> bool:
        """Whether it has to wait for a hold."""
        kept = self._kept.get(delivery.request.instance_id)
        if kept is None or type(delivery.request) is ModifyRequest:
            return False
        kept.append(delivery)
        self.waiting += 1
        return True

    @asynccontextmanager
    async def hold(self, instance_id: str) -> AsyncIterator[None]:
        """Hold an instance for as long as the block takes. What had come before is decided meanwhile."""
        turn = self._turns.setdefault(instance_id, asyncio.Lock())
        async with turn:
            self._kept[instance_id] = []
            try:
                yield
            finally:
                self._release(instance_id)
                del self._kept[instance_id]

    def let_go(self) -> None:
        """Nothing more will come: what waits is decided, whatever the holds."""
        for instance_id in self._kept:
            self._release(instance_id)

    def _release(self, instance_id: str) -> None:
        kept, self._kept[instance_id] = self._kept[instance_id], []
        self.waiting -= len(kept)
        self._put_back(kept)
