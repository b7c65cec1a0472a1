"""The JetStream door and foreign subjects: acked after the commit, parked when hopeless, never lost, never for ever."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client as NatsClient

from statewright.adapters.nats.envelope import encode_event
from statewright.adapters.nats.pulls import UNSETTLED_MAX
from statewright.engine import Engine, ExternalEvent
from tests.adapters.nats.support import LIGHT, eventually, raw, running_server, serving, store_in, url_of

pytestmark = pytest.mark.integration


async def left_in_stream(nc: NatsClient) -> int:
    messages: int = (await nc.jetstream().stream_info("STATEWRIGHT_EVENTS")).state.messages
    return messages


async def is_empty(nc: NatsClient) -> bool:
    return await left_in_stream(nc) == 0


async def publish(nc: NatsClient, event: ExternalEvent) -> None:
    headers, payload = encode_event(event)
    await nc.jetstream().publish(f"statewright.events.{event.instance_id}", payload, headers=headers)


async def triggers(engine: Engine, instance_id: str) -> list[str]:
    return [fact.trigger.id for fact in (await engine.history(instance_id))[1:]]


async def test_published_events_are_recorded_in_order_and_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        for number in range(50):
            await client.publish("l-1", "toggle", {"n": number}, event_id=f"e-{number}")
        await eventually(lambda: is_empty(client.connection.nc), "an empty stream")
        assert await triggers(engine, "l-1") == [f"e-{number}" for number in range(50)]


async def test_more_than_the_window_holds(tmp_path: Path) -> None:
    """Twice as many as may be unsettled at once, left there before the engine comes."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("light", {"limit": 3}, id="l-1")
        js = nc.jetstream()
        headers, payload = encode_event(ExternalEvent("l-1", "toggle", None, "?"))
        count = 2 * UNSETTLED_MAX + 7
        acks = [
            await js.publish_async("statewright.events.l-1", payload, headers={**headers, "ce-id": f"e-{number}"})
            for number in range(count)
        ]
        await asyncio.gather(*acks)
        assert await left_in_stream(nc) == count
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, _):
            await eventually(lambda: is_empty(nc), "an empty stream")
            assert await triggers(engine, "l-1") == [f"e-{number}" for number in range(count)]


async def test_it_is_acked_only_after_the_commit(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        nc = client.connection.nc
        await client.start("light", {"limit": 3}, id="l-1")
        release, holding = threading.Event(), threading.Event()

        def hold() -> None:
            holding.set()
            release.wait(10)

        async def is_with_the_engine() -> bool:
            info = await nc.jetstream().consumer_info("STATEWRIGHT_EVENTS", "statewright-engine")
            return bool(info.num_ack_pending)

        held = asyncio.create_task(engine.on_writer(hold))
        await asyncio.to_thread(holding.wait)
        await client.publish("l-1", "toggle", event_id="e-1")
        await eventually(is_with_the_engine, "the delivery")
        await nc.flush()
        assert await left_in_stream(nc) == 1
        assert await triggers(engine, "l-1") == []
        release.set()
        await held
        await eventually(lambda: is_empty(nc), "an empty stream")
        assert await triggers(engine, "l-1") == ["e-1"]


async def test_what_came_before_a_crash_between_commit_and_ack_is_recorded_once(tmp_path: Path) -> None:
    """The state that such a crash leaves: recorded in the store, still in the stream."""
    event = ExternalEvent("l-1", "toggle", {"n": 1}, "e-1", "app")
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("light", {"limit": 3}, id="l-1")
        async with Engine.open(store_in(tmp_path), charts=[LIGHT]) as engine:
            await engine.send("l-1", "toggle", {"n": 1}, event_id="e-1", source="app")
        await publish(nc, event)
        await publish(nc, event)
        assert await left_in_stream(nc) == 2
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, _):
            await eventually(lambda: is_empty(nc), "an empty stream")
            assert await triggers(engine, "l-1") == ["e-1"]
            assert engine.recorder.select_parked(10) == []


HOPELESS = {
    "no JSON": (b'{"a":', {"ce-id": "p-1", "ce-type": "toggle"}, "to be JSON"),
    "no envelope": (b"{}", None, "'ce-id'"),
    "no such instance": (b"", {"ce-id": "p-2", "ce-type": "toggle"}, "no instance 'l-9'"),
    "id reused": (b"1", {"ce-id": "e-1", "ce-type": "toggle"}, "other content"),
    "too large": (b'"' + b"x" * 2_000_000 + b'"', {"ce-id": "p-3", "ce-type": "toggle"}, "2,000,002"),
}


async def test_the_hopeless_is_parked_with_its_reason_and_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        nc = client.connection.nc
        await client.start("light", {"limit": 3}, id="l-1")
        await client.publish("l-1", "toggle", event_id="e-1")
        for what, (payload, headers, _) in HOPELESS.items():
            subject = "statewright.events.l-9" if "instance" in what else "statewright.events.l-1"
            await nc.jetstream().publish(subject, payload, headers=headers)
        await client.publish("l-1", "toggle", event_id="e-2")
        await eventually(lambda: is_empty(nc), "an empty stream")
        parked = engine.recorder.select_parked(10)
        for payload, headers, reason in HOPELESS.values():
            (row,) = [row for row in parked if reason in row.reason]
            assert row.payload == payload
            assert msgspec.json.decode(row.headers) == (headers or {})
            assert row.subject.startswith("statewright.events.l-")
        assert len(parked) == len(HOPELESS)
        assert await triggers(engine, "l-1") == ["e-1", "e-2"]


async def test_refusals_and_duplicates_are_acked(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        for name, event_id in (("never", "e-1"), ("never", "e-1"), ("unheard-of", "e-2"), ("toggle", "e-3")):
            await client.publish("l-1", name, event_id=event_id)
        await eventually(lambda: is_empty(client.connection.nc), "an empty stream")
        assert await triggers(engine, "l-1") == ["e-1", "e-2", "e-3"]
        assert engine.recorder.select_parked(10) == []


async def test_a_publisher_that_knows_nothing_of_us(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        await client.start("light", {"limit": 3}, id="l-1")
        await nc.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-1", "rows": 7}')
        await nc.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-1", "rows": 7}')
        await nc.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-2", "rows": 8}')
        await nc.publish("sensor.kitchen", b'{"lamp": "l-1"}', headers={"ce-id": "s-1", "ce-source": "kitchen"})
        await nc.publish("sensor.kitchen", b'{"lamp": "l-1"}', headers={"Nats-Msg-Id": "s-2"})
        await nc.publish("sensor.kitchen", b'{"lamp": "l-1"}')
        await nc.publish("sensor.kitchen", b'{"lamp": "l-1"}')
        await eventually(lambda: _length(engine, "l-1", 7), "seven facts")
        found = [(fact.trigger.source, fact.trigger.id) for fact in (await engine.history("l-1"))[1:]]
        assert set(found) >= {
            ("data.processed", "j-1"),
            ("data.processed", "j-2"),
            ("kitchen", "s-1"),
            ("sensor.kitchen", "s-2"),
        }
        assert len(set(found)) == 6, "two messages without an identity are two events"
        assert (await engine.history("l-1"))[1].trigger.data == {
            "workflowInstanceId": "l-1",
            "job": "j-1",
            "rows": 7,
        }


async def _length(engine: Engine, instance_id: str, length: int) -> bool:
    return len(await engine.history(instance_id)) == length


FOREIGN_FAULTS: dict[str, tuple[str, bytes]] = {
    "to be JSON": ("data.processed", b'{"workflowInstanceId":'),
    "instance of a message on 'data.processed'": ("data.processed", b'{"job": "j-1"}'),
    "an instance id": ("data.processed", b'{"workflowInstanceId": "a b", "job": "j-1"}'),
    "no instance 'nobody'": ("data.processed", b'{"workflowInstanceId": "nobody", "job": "j-1"}'),
    "expected a text": ("sensor.x", b'{"lamp": ["l-1"]}'),
}


async def test_foreign_messages_that_mean_nothing_are_parked(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        for subject, payload in FOREIGN_FAULTS.values():
            await nc.publish(subject, payload)
        parked: Any = await eventually(lambda: _parked(engine, len(FOREIGN_FAULTS)), "the parked messages")
        for reason, (subject, payload) in FOREIGN_FAULTS.items():
            (row,) = [row for row in parked if reason in row.reason]
            assert (row.subject, row.payload) == (subject, payload)


def _parked(engine: Engine, count: int) -> Any:
    rows = engine.recorder.select_parked(100)
    return rows if len(rows) == count else None


async def test_a_captured_foreign_subject_is_not_missed_while_no_engine_runs(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        js = nc.jetstream()
        await js.add_stream(name="DATA", subjects=["data.>"])
        await js.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "before"}')
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, client):
            await client.start("light", {"limit": 3}, id="l-1")
            await js.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-1"}')
            await eventually(lambda: _length(engine, "l-1", 2), "the first")
        await js.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-2"}')
        await js.publish("data.processed", b'{"workflowInstanceId": "l-1", "job": "j-1"}')
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, _):
            await eventually(lambda: _length(engine, "l-1", 3), "the second")
            assert await triggers(engine, "l-1") == ["j-1", "j-2"]
            assert (await js.stream_info("DATA")).state.messages == 4, "somebody else's stream is left as it is"


async def test_an_administrators_stream_is_taken_as_it_is(tmp_path: Path) -> None:
    """Limits and consumers of theirs stand; nothing is purged that others may want to read."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        js = nc.jetstream()
        await js.add_stream(name="STATEWRIGHT_EVENTS", subjects=["statewright.events.>"], max_age=3_600)
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, client):
            await client.start("light", {"limit": 3}, id="l-1")
            await client.publish("l-1", "toggle", event_id="e-1")
            await eventually(lambda: _length(engine, "l-1", 2), "the event")
        info = await js.stream_info("STATEWRIGHT_EVENTS")
        assert (info.config.max_age, info.config.subjects) == (3_600, ["statewright.events.>"])
        assert info.state.messages == 1


async def test_a_stream_of_that_name_for_something_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Said clearly; the other doors work."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        await nc.jetstream().add_stream(name="STATEWRIGHT_EVENTS", subjects=["other.*"])
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("light", {"limit": 3}, id="l-1")
            assert (await client.send("l-1", "toggle")).kind == "recorded"
    assert "expected stream STATEWRIGHT_EVENTS to take 'statewright.events.*', but it takes other.*" in caplog.text
