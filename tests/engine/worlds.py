"""What the engine's tests are built from: a store on disk, a clock that moves when told, an engine on both."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from statewright.engine import Engine, ManualClock
from statewright.engine.clock import SECOND_NS
from statewright.engine.events import AnyFact
from statewright.engine.recorder import Store
from statewright.engine.relatives import KINDS
from statewright.engine.verify import verify_store
from statewright.statecharts import Chart

PATIENCE_S = 10.0
"""How long a test waits for what must happen, before it fails."""


class World:
    """A store that outlives the engines opened on it. `async with world:` opens one, `restart` opens the next."""

    def __init__(self, path: Path, *charts: Chart, url: str | None = None) -> None:
        self.path = path
        self.url = url or f"sqlite:///{path}"
        self.charts: Iterable[Chart] = charts
        self.clock = ManualClock()
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.make_store: Callable[[str], str | Store] = lambda url: url
        self.options: dict[str, Any] = {}
        self.engine: Engine

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.engine.close()
        if kind is None:
            self.verify()

    async def open(self, **options: Any) -> Engine:
        store = self.make_store(self.url)
        self.engine = await Engine.open(
            store, charts=self.charts, clock=self.clock, **{**self.options, **options}
        ).__aenter__()
        for name, handler in self.handlers.items():
            self.engine.handler(name)(handler)
        return self.engine

    async def restart(self, **options: Any) -> Engine:
        """Close the engine and open another on what it left."""
        await self.engine.close()
        return await self.open(**options)

    def beside(self, *charts: Chart) -> World:
        """Another one on the same store."""
        return World(self.path, *charts, url=self.url)

    def connect(self) -> Any:
        """A connection of a test's own to the database; each statement is a transaction."""
        if self.url.startswith("sqlite:"):
            return sqlite3.connect(self.path, isolation_level=None)
        return psycopg.connect(self.url, autocommit=True)

    def verify(self) -> None:
        """Every row is what the facts say."""
        assert verify_store(self.url).differences == []

    def forget(self, *instance_ids: str) -> None:
        """Drop instances from memory, so that the next request reads them from the log."""
        for instance_id in instance_ids:
            self.engine._running.residents.evict(instance_id)

    async def types(self, instance_id: str) -> list[str]:
        """The types of the recorded facts, in order."""
        return [type_of(fact) for fact in await self.facts(instance_id)]

    async def facts(self, instance_id: str, *, after: int = 0, to: int | None = None) -> list[Any]:
        """The recorded facts: `Any`, because a test knows which it expects, and fails if it is another."""
        return list(await self.engine.history(instance_id, after=after, to=to))

    async def settle(self) -> None:
        """Wait until nothing is due any more and nothing under way: all that is left to do waits for the clock."""
        recorder = self.engine.recorder

        def is_quiet() -> bool:
            position = recorder.max_notification_id()
            now = self.clock.now()
            timer_at = recorder.next_timer_at()
            effect_at = recorder.next_effect_at(names=list(self.handlers), kinds=KINDS)
            quiet = effect_at is None and (timer_at is None or timer_at > now)
            return quiet and recorder.max_notification_id() == position

        await until(lambda: self.engine.on_reader(is_quiet), "the engine to have nothing to do")

    async def run(self, seconds: float = 3600.0) -> None:
        """Let happen all that is due within `seconds`, each at its time."""
        end = self.clock.now() + round(seconds * SECOND_NS)
        while True:
            await self.settle()
            at = await self.engine.on_reader(self.engine.recorder.next_timer_at)
            if at is None or at > end:
                return
            self.clock.advance((at - self.clock.now()) / SECOND_NS)

    async def last(self, instance_id: str) -> Any:
        return (await self.facts(instance_id))[-1]

    async def until_recorded(self, instance_id: str, type_: str, count: int = 1) -> list[Any]:
        """Wait for `count` facts of a type; all of them that there are then."""
        found: list[Any] = []

        async def recorded() -> bool:
            found[:] = [fact for fact in await self.facts(instance_id) if type_of(fact) == type_]
            return len(found) >= count

        await until(recorded, f"{count} facts '{type_}' of '{instance_id}'")
        return found


def type_of(fact: AnyFact) -> str:
    return str(fact.__struct_config__.tag)


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until `condition()` (plain or a coroutine function) is true; fail when that takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                holds = condition()
                if await holds if asyncio.iscoroutine(holds) else holds:
                    return
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE_S} s in vain for {what}") from None
