"""Another process writes to the same store: one that was given up for dead wakes up, or one that took over has died.

A store in memory that two engines may own, as workers of one database do.
"""

from __future__ import annotations

from typing import Any

import pytest

from statewright.adapters.memory.recorder import MemoryInstanceRecorder
from statewright.adapters.memory.store import MemoryStore
from statewright.engine import Engine, ManualClock
from statewright.engine.background import LOOK_NS
from statewright.engine.clock import SECOND_NS
from statewright.engine.effects import LEASE_NS
from statewright.engine.recorder import Changes, TimerRow
from statewright.engine.relatives import KINDS
from statewright.engine.verify import verify_log
from tests.engine.charts import TIMERS
from tests.engine.test_children import ORDER
from tests.engine.worlds import until


class SharedRecorder(MemoryInstanceRecorder):
    """Who starts takes nothing from those who are at work."""

    def release_effects(self, **kwargs: Any) -> int:
        return 0


class SharedStore(MemoryStore):
    """Owned by all who open it."""

    def __init__(self) -> None:
        super().__init__(recorder=SharedRecorder())

    def acquire(self) -> None:
        """Anybody may."""


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def look_round(clock: ManualClock) -> None:
    clock.advance(LOOK_NS / SECOND_NS)


async def test_a_timer_that_another_process_has_set_is_fired_not_forgotten(
    store: SharedStore, clock: ManualClock
) -> None:
    async with (
        Engine.open(store, charts=[TIMERS], clock=clock) as awake,
        Engine.open(store, charts=[TIMERS], clock=clock, run_due=False) as other,
    ):
        await awake.start("timers", id="t")
        await other.send("t", "set")
        look_round(clock)

        async def rung() -> bool:
            return (await other.replay("t")).instance.context["rung"] == ["ring.a"]

        await until(rung, "the timer to fire")
        assert await awake.on_reader(awake.recorder.select_timers, "t") == []
        assert verify_log(awake.log).differences == []


async def test_a_timer_row_that_no_fact_knows_of_is_left_alone(store: SharedStore, clock: ManualClock) -> None:
    stray = TimerRow("t", "stray", 1, "ring.a", 0)
    async with Engine.open(store, charts=[TIMERS], clock=clock) as engine:
        await engine.start("timers", id="t")
        await engine.on_writer(lambda: engine.recorder.insert_events([], changes=Changes(timers_set=[stray])))
        await engine.send("t", "set")
        await until(lambda: clock.now() + 10 * SECOND_NS in clock.waiting, "somebody to wait for the other timer")
        clock.advance(10)

        async def rung() -> bool:
            return (await engine.replay("t")).instance.context["rung"] == ["ring.a"]

        await until(rung, "the other timer to fire")
        assert await engine.on_reader(engine.recorder.select_timers, "t") == [stray]


async def test_a_child_that_is_cancelled_before_its_start_was_performed_does_not_outlive_its_parent(
    store: SharedStore, clock: ManualClock
) -> None:
    async with Engine.open(store, charts=[ORDER], clock=clock, run_due=False) as engine:
        await engine.start("order", {"amount": 5}, id="o")
        claimed = engine.recorder.claim_effects(clock.now(), 1, names=(), kinds=("start",), lease_ns=LEASE_NS)
        assert [row.effect_id for row in claimed] == ["o-1-0"]
        await engine.send("o", "skip")
    async with Engine.open(store, charts=[ORDER], clock=clock) as engine:

        async def ended() -> bool:
            rows = await engine.effects("o")
            return {row.kind: row.state for row in rows} == {"start": "done", "cancel": "done"}

        await until(ended, "the child to be started and cancelled")
        assert (await engine.status("o-1-0")).status == "cancelled"
        assert verify_log(engine.log).differences == []


async def test_who_was_given_up_for_dead_does_not_report_as_lost_what_another_has_delivered(
    store: SharedStore, clock: ManualClock
) -> None:
    async with Engine.open(store, charts=[ORDER], clock=clock, run_due=False) as paused:
        async with Engine.open(store, charts=[ORDER], clock=clock) as other:
            await other.start("order", {"amount": 5}, id="o")

            async def begun() -> bool:
                return [row.state for row in await other.effects("o")] == ["done"]

            await until(begun, "the payment to begin")
        await paused.send("o", "tell")
        claimed = paused.recorder.claim_effects(clock.now(), 9, names=(), kinds=("send",), lease_ns=LEASE_NS)
        assert [row.name for row in claimed] == ["ask", "charged"]
        clock.advance(LEASE_NS / SECOND_NS)
        async with Engine.open(store, charts=[ORDER], clock=clock) as other:
            await until(lambda: _is_shipped(other), "the payment to be made")
            before = await other.history("o")
        for row in claimed:
            await paused._background.effects._messages.perform(row)  # type: ignore[union-attr]
        assert await paused.history("o") == before
        assert {row.state for row in await paused.effects("o")} == {"done"}
        assert list(await paused.parked(9)) == []
        assert verify_log(paused.log).differences == []


async def _is_shipped(engine: Engine) -> bool:
    return engine.recorder.next_effect_at(names=(), kinds=KINDS) is None and "shipped" in (
        (await engine.status("o")).configuration
    )
