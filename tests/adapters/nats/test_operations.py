"""Lists, histories, parked messages and pruning over the bus, beside an engine at work."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from statewright.adapters.cli.pruning import prune
from statewright.adapters.nats.client import Client
from statewright.adapters.nats.inbound import ATTEMPTS_MAX, _matches
from statewright.adapters.sqlite.backup import back_up
from statewright.engine import Engine, InstanceFilter
from statewright.engine.errors import InvalidError, NotFoundError
from statewright.engine.recorder import EndedFilter
from statewright.engine.verify import verify_store
from statewright.projections.metrics import kept_of
from statewright.statecharts import chart, final, state, to
from tests.adapters.nats.support import LIGHT, eventually, running_server, serving, store_in, url_of

pytestmark = pytest.mark.integration


def allowed(context: Any, event: Any) -> bool:
    return True


def guarded() -> Any:
    return chart("guarded", initial="on", states=[state("on", on={"go": to("off", guard=allowed)}), final("off")])


async def test_lists_and_histories_come_in_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        for number in range(5):
            await client.start("light", {"limit": 1}, id=f"l-{number}")
        for number in range(6):
            await client.send("l-0", "toggle", {"n": number})
        page = await client.list(InstanceFilter(definition="light", limit=3))
        assert [row["id"] for row in page.items] == ["l-0", "l-1", "l-2"]
        assert page.more
        page = await client.list(InstanceFilter(definition="light", limit=3, after="l-2"))
        assert ([row["id"] for row in page.items], page.more) == (["l-3", "l-4"], False)
        whole = await client.history("l-0", limit=100)
        assert [line["sequence"] for line in whole.items] == [1, 2, 3, 4, 5, 6, 7]
        rest = await client.history("l-0", after=4, limit=2)
        assert rest.items == whole.items[4:6]
        with pytest.raises(NotFoundError, match="nobody"):
            await client.history("nobody", limit=1)
        with pytest.raises(InvalidError, match="limit"):
            await client.list(InstanceFilter(limit=0))


async def test_pages_fit_into_a_message(tmp_path: Path) -> None:
    """What doesn't fit comes with the next page."""
    async with serving(tmp_path) as (_, client):
        await client.start("light", {"limit": 1}, id="l-0")
        for _ in range(4):
            await client.send("l-0", "toggle", {"text": "x" * 200_000})
        seen: list[int] = []
        while (page := await client.history("l-0", after=seen[-1] if seen else 0, limit=100)).items:
            assert len(page.items) < 4
            seen += [line["sequence"] for line in page.items]
        assert seen == [1, 2, 3, 4, 5]


async def test_poison_is_parked_after_a_few_deliveries_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The guard is gone with a new deployment, and comes back with the next."""
    caplog.set_level("DEBUG", "statewright.nats")
    async with running_server(tmp_path) as server:
        url = url_of(server.endpoint)
        async with serving(tmp_path, url, charts=[guarded()]) as (_, client):
            await client.start("guarded", id="g-1")
        async with serving(tmp_path, url, charts=[LIGHT]) as (_, client):
            await client.start("light", {"limit": 1}, id="l-1")
            await client.publish("g-1", "go", event_id="e-1")
            await client.publish("l-1", "toggle", event_id="e-2")
            page = await eventually(lambda: _parked(client), "the parked message")
            (item,) = page.items
            assert item["subject"] == "statewright.events.g-1"
            assert "allowed" in item["reason"]
            assert sum("is tried again" in record.message for record in caplog.records) == ATTEMPTS_MAX - 1
            assert (await client.status("l-1"))["configuration"] == ["on"]
            with pytest.raises(Exception, match="allowed"):
                await client.retry_parked(item["parked_id"])
            assert await _parked(client)
        async with serving(tmp_path, url, charts=[guarded()]) as (_, client):
            retried = await client.retry_parked(item["parked_id"])
            assert retried.outcome is not None
            assert (retried.outcome.kind, retried.outcome.configuration) == ("recorded", ("off",))
            assert not await _parked(client)
            await client.publish("g-1", "go", event_id="e-1")
            with pytest.raises(NotFoundError, match="nothing is parked"):
                await client.retry_parked(item["parked_id"])


async def _parked(client: Client) -> Any:
    page = await client.parked(10)
    return page if page.items else None


async def test_a_foreign_message_is_retried_by_the_chart_that_it_was_for(tmp_path: Path) -> None:
    other = chart(
        "other",
        initial="on",
        states=[state("on", on={"toggle": to("off")}), state("off")],
        subscribe=[{"subject": "sensor.*", "event": "toggle", "instance": "data.lamp"}],
    )
    async with serving(tmp_path, charts=[LIGHT, other]) as (engine, client):
        nc = client.connection.nc
        await nc.publish("sensor.a", b'{"lamp": "l-1"}')
        await eventually(lambda: len(engine.recorder.select_parked(10)) == 2, "a parked message for each chart")
        await client.start("light", {"limit": 1}, id="l-1")
        ids = [row.parked_id for row in engine.recorder.select_parked(10)]
        kinds = [outcome.kind for parked_id in ids if (outcome := (await client.retry_parked(parked_id)).outcome)]
        assert kinds[0] == "recorded"
        assert len(await engine.history("l-1")) == 3
        await nc.publish("sensor.a", b"junk")
        await eventually(lambda: len(engine.recorder.select_parked(10)) == 2, "the junk")
        for row in engine.recorder.select_parked(10):
            await client.drop_parked(row.parked_id, reason="junk")
        assert engine.recorder.select_parked(10) == []


def test_wildcards_match_as_in_nats() -> None:
    assert _matches("a.*.c", "a.b.c")
    assert _matches("a.>", "a.b.c")
    assert _matches("a.b", "a.b")
    assert not _matches("a.>", "a")
    assert not _matches("a.*", "a.b.c")
    assert not _matches("a.b", "a.c")


async def test_pruning_and_backing_up_beside_an_engine_at_work(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        for number in range(300):
            await engine.start("light", {"limit": 1}, id=f"old-{number}")
            await engine.send(f"old-{number}", "toggle")
            await engine.send(f"old-{number}", "smash")
        await engine.start("light", {"limit": 1}, id="l-1")
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await client.send("l-1", "toggle", event_id=f"e-{sent}")
                sent += 1

        sending = asyncio.ensure_future(send())
        backup = tmp_path / "backup.db"
        await asyncio.to_thread(back_up, engine.store.path, str(backup), lambda path: None)  # type: ignore[attr-defined]
        ended = EndedFilter(status="completed", ended_before=engine.clock.now())
        async with Engine.open(store_in(tmp_path), read_only=True) as reader:
            done = await prune(reader, client, [ended], str(tmp_path / "a.jsonl.gz"), store_in(tmp_path))
        assert (done.pruned, done.facts) == (300, 900)
        before = sent
        await eventually(lambda: sent > before, "sending to go on")
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        with pytest.raises(NotFoundError, match="was pruned"):
            await client.send("old-7", "toggle")
        with pytest.raises(InvalidError, match="position"):
            await client._request("statewright.store.prune", b'{"tombstones": []}', {}, dict)
        copied = verify_store(f"sqlite:///{backup}")
        assert (copied.differences, copied.instances, copied.pruned) == ([], 301, 0)
        live = verify_store(store_in(tmp_path))
        assert (live.differences, live.instances, live.pruned) == ([], 1, 300)
        assert kept_of(await engine.history("l-1"))
