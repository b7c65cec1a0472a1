"""A flood: more arrives than can be taken. Everybody is answered or comes again, and every queue keeps its bound."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statewright.adapters.nats import connection as connections
from statewright.adapters.nats import inbound, pulls, requests
from statewright.engine import runtime
from tests.adapters.nats.support import eventually, raw, serving

pytestmark = pytest.mark.integration

REQUESTS = 30_000
EVENTS = 5_000
LARGE = 900_000


class Watch:
    """The longest that each queue has been, looked at each time around the loop."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.longest: Counter[str] = Counter()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        doors, engine = self._engine.doors, self._engine
        (flow, *_) = doors._inbound._flows
        while True:
            now = {
                "runtime": engine._runtime.waiting,
                "request bytes": doors._requests._waiting_bytes,
                "outbox": len(doors._connection._outbox),
                "outbox bytes": doors._connection._outbox_bytes,
                "unsettled": flow._unsettled,
                "unsettled bytes": flow._unsettled_bytes,
                "core": doors._inbound._core_waiting,
                "core bytes": doors._inbound._core_bytes,
            }
            for name, size in now.items():
                self.longest[name] = max(self.longest[name], size)
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


async def test_every_request_of_a_flood_is_answered_and_the_queues_keep_their_bounds(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(engine.doors.endpoint) as nc:
        await client.start("light", {"limit": 1}, id="l-1")
        watch = Watch(engine)
        answers: Counter[str] = Counter()
        inbox = nc.new_inbox()

        async def on_answer(message: Any) -> None:
            reply = msgspec.json.decode(message.data)
            answers[reply["error"]["code"] if "error" in reply else reply["kind"]] += 1

        await nc.subscribe(f"{inbox}.*", cb=on_answer)
        for number in range(REQUESTS):
            headers = {"ce-id": f"e-{number}", "ce-type": "toggle"}
            await nc.publish("statewright.send.l-1", b"", reply=f"{inbox}.{number}", headers=headers)
        await eventually(lambda: answers.total() >= REQUESTS, "an answer to each request")
        watch.stop()

        assert answers.keys() <= {"recorded", "busy"}
        assert answers.total() == REQUESTS
        assert (await engine.status("l-1")).sequence == 1 + answers["recorded"]
        assert watch.longest["runtime"] <= runtime.QUEUE_MAX
        assert watch.longest["outbox"] <= connections.CROWDED + runtime.QUEUE_MAX
        assert (engine._runtime.waiting, engine.doors._requests._waiting_bytes) == (0, 0)


async def test_large_requests_are_bounded_in_bytes(tmp_path: Path) -> None:
    """Another connection holds the store, so that all that is taken waits."""
    async with serving(tmp_path) as (engine, client), raw(engine.doors.endpoint) as nc:
        await client.start("light", {"limit": 1}, id="l-1")
        watch = Watch(engine)
        payload = msgspec.json.encode("x" * LARGE)
        holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")

        async def ask(number: int) -> str:
            headers = {"ce-id": f"e-{number}", "ce-type": "toggle"}
            reply = msgspec.json.decode((await nc.request("statewright.send.l-1", payload, 60, headers=headers)).data)
            return str(reply["error"]["code"] if "error" in reply else reply["kind"])

        asked = []
        for number in range(requests.WAITING_BYTES_MAX // LARGE + 5):
            asked.append(asyncio.create_task(ask(number)))
            await eventually(lambda: engine.doors._requests._waiting == len(asked) or any(t.done() for t in asked))
            if asked[-1].done():
                break
        holder.close()
        answers = Counter(await asyncio.gather(*asked))
        watch.stop()

        assert answers["busy"] >= 1
        assert answers.keys() <= {"recorded", "busy", "unavailable"}
        assert (await engine.status("l-1")).sequence == 1 + answers["recorded"]
        assert requests.WAITING_BYTES_MAX - len(payload) < watch.longest["request bytes"] <= requests.WAITING_BYTES_MAX
        assert engine.doors._requests._waiting_bytes == 0


async def test_the_jetstream_door_pulls_no_more_than_it_can_hold_and_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(engine.doors.endpoint) as nc:
        await client.start("light", {"limit": 1}, id="l-1")
        watch = Watch(engine)
        large = msgspec.json.encode("x" * LARGE)
        js = nc.jetstream(publish_async_max_pending=EVENTS)
        for number in range(EVENTS):
            headers = {"ce-id": f"e-{number}", "ce-type": "toggle"}
            payload = large if number % 50 == 0 else b""
            await js.publish_async("statewright.events.l-1", payload, headers=headers)
        await js.publish_async_completed()

        async def all_recorded() -> bool:
            return (await engine.status("l-1")).sequence == 1 + EVENTS

        await eventually(all_recorded, "every event")
        watch.stop()

        assert watch.longest["unsettled"] <= pulls.UNSETTLED_MAX
        outstanding = (pulls.UNSETTLED_MAX // pulls.BATCH) * 2 * nc.max_payload
        assert watch.longest["unsettled bytes"] <= pulls.UNSETTLED_BYTES_MAX + outstanding


async def test_a_flood_of_core_messages_is_taken_up_to_the_bound(tmp_path: Path) -> None:
    """Nobody can be asked to wait: what is beyond the bound is lost, and counted in the log."""
    async with serving(tmp_path) as (engine, client), raw(engine.doors.endpoint) as nc:
        await client.start("light", {"limit": 1}, id="l-1")
        watch = Watch(engine)
        for number in range(REQUESTS):
            await nc.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-%d"}' % number)
        await nc.flush()
        doors = engine.doors._inbound

        async def settled() -> bool:
            return doors._core_waiting == 0 and doors._lost + (await engine.status("l-1")).sequence - 1 == REQUESTS

        await eventually(settled, "every message recorded or counted as lost")
        watch.stop()

        assert watch.longest["core"] <= inbound.CORE_MAX
        assert watch.longest["core bytes"] <= inbound.CORE_BYTES_MAX
        assert doors._core_bytes == 0
