"""The request doors, from a client of ours and from one that knows only the subjects."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client as NatsClient

from statewright.engine import Outcome, Started
from statewright.engine.errors import (
    AlreadyExistsError,
    IdReusedError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from statewright.engine.requests import PAYLOAD_BYTES_MAX
from tests.adapters.nats.support import raw, running_server, serving, url_of

pytestmark = pytest.mark.integration


async def asked(nc: NatsClient, subject: str, payload: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await nc.request(subject, payload, timeout=5, headers=named or None)
    return msgspec.json.decode(reply.data)


async def test_an_instance_from_start_to_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        started = await client.start("light", {"limit": 3}, id="l-1", actor="ann")
        assert started == Started("l-1", 1, ("off",), "active")
        on = await client.send("l-1", "toggle", {"by": "ann"}, event_id="e-1", source="app", actor="ann", time=5)
        assert on == Outcome("recorded", "", 2, ("on",), "active")
        trigger = (await engine.history("l-1"))[1].trigger
        assert (trigger.id, trigger.source, trigger.actor, trigger.time, trigger.data) == (
            "e-1",
            "app",
            "ann",
            5,
            {"by": "ann"},
        )
        assert (await client.control("l-1", "pause", reason="lunch")).status == "paused"
        assert (await client.send("l-1", "toggle")).status == "paused"
        assert (await client.control("l-1", "resume")).status == "active"
        row = await client.status("l-1")
        assert (row["configuration"], row["context"], row["failure"]) == (["off"], {"limit": 3}, "")
        assert row["sequence"] == (await engine.status("l-1")).sequence == 6
        assert (await client.control("l-1", "cancel", reason="dark enough")).status == "cancelled"
        assert (await client.status("l-1"))["ended_at"] > 0


async def test_a_server_has_one_engine(tmp_path: Path) -> None:
    """With two stores behind one server, chance would decide where a request is recorded."""
    (tmp_path / "other").mkdir()
    async with running_server(tmp_path) as server:
        url = url_of(server.endpoint)
        async with serving(tmp_path, url) as (_, client):
            with pytest.raises(UnavailableError, match="served by an engine with another store already"):
                async with serving(tmp_path / "other", url):
                    pass
            assert (await client.start("light", {"limit": 3}, id="l-1")).sequence == 1
        async with serving(tmp_path / "other", url) as (_, client):
            assert (await client.start("light", {"limit": 4}, id="l-1")).sequence == 1


async def test_a_refusal_is_an_outcome_with_its_reason(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await client.start("light", {"limit": 3}, id="l-1")
        refused = await client.send("l-1", "never")
        assert (refused.kind, refused.sequence, refused.configuration) == ("refused", 2, ("off",))
        assert "context.limit < 0" in refused.reason


async def test_the_same_identity_is_recorded_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        first = await client.send("l-1", "toggle", 1, event_id="e-1", source="s")
        again = await client.send("l-1", "toggle", 1, event_id="e-1", source="s")
        assert again == Outcome("duplicate", "", first.sequence, first.configuration, first.status)
        with pytest.raises(IdReusedError):
            await client.send("l-1", "toggle", 2, event_id="e-1", source="s")
        assert (await client.send("l-1", "toggle", 1, event_id="e-1", source="other")).kind == "recorded"
        same = await asyncio.gather(*(client.send("l-1", "toggle", event_id="e-2") for _ in range(20)))
        assert sorted(outcome.kind for outcome in same) == ["duplicate"] * 19 + ["recorded"]
        assert len({outcome.sequence for outcome in same}) == 1
        assert len(await engine.history("l-1")) == 4


async def test_starting_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        first = await client.start("light", {"limit": 3}, id="l-1")
        await client.send("l-1", "toggle")
        assert await client.start("light", {"limit": 3}, id="l-1") == first
        with pytest.raises(AlreadyExistsError):
            await client.start("light", {"limit": 4}, id="l-1")
        assert (await client.start("light", {"limit": 3})).id != (await client.start("light", {"limit": 3})).id


async def test_errors_come_as_what_they_are(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        with pytest.raises(NotFoundError, match="no instance 'nobody'"):
            await client.send("nobody", "toggle")
        with pytest.raises(NotFoundError, match="no instance 'nobody'"):
            await client.status("nobody")
        with pytest.raises(NotFoundError, match="no instance 'nobody'"):
            await client.control("nobody", "pause")
        with pytest.raises(NotFoundError, match="no definition 'nothing'"):
            await client.start("nothing")
        with pytest.raises(InvalidError, match="limit"):
            await client.start("light", {"limit": "three"})
        with pytest.raises(InvalidError, match="an instance id"):
            await client.send("a b", "toggle")
        with pytest.raises(InvalidError, match="event name"):
            await client.send("a", "")


MALFORMED = {
    "send, no JSON": ("statewright.send.l-1", b'{"a":', {"ce_id": "x", "ce_type": "toggle"}, "to be JSON"),
    "send, no envelope": ("statewright.send.l-1", b'{"a": 1}', {}, "'ce-id'"),
    "send, no id": ("statewright.send.l-1", b"", {"ce_type": "toggle"}, "'ce-id'"),
    "send, an id with a dot": ("statewright.send.l.1", b"", {"ce_id": "x", "ce_type": "toggle"}, "an instance id"),
    "send, broken CloudEvent": (
        "statewright.send.l-1",
        b"{nonsense",
        {"content_type": "application/cloudevents+json"},
        "CloudEvent",
    ),
    "start, no JSON": ("statewright.start.light", b"{nonsense", {}, "the start"),
    "start, no object": ("statewright.start.light", b"[1]", {}, "the start"),
    "start, a name with a dot": ("statewright.start.li.ght", b"{}", {}, "a definition name"),
    "control, no JSON": ("statewright.control.l-1", b"pause", {}, "the control request"),
    "control, other action": ("statewright.control.l-1", b'{"action": "explode"}', {}, "explode"),
    "query, no JSON": ("statewright.query.status.l-1", b"{nonsense", {}, "the query"),
    "query, an id with a dot": ("statewright.query.status.l.1", b"", {}, "an instance id"),
}


async def test_malformed_requests_are_answered_and_harm_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        await client.start("light", {"limit": 3}, id="l-1")
        for what, (subject, payload, headers, message) in MALFORMED.items():
            body = await asked(nc, subject, payload, **headers)
            assert set(body) == {"error"}, what
            assert body["error"]["code"] == "invalid", what
            assert message in body["error"]["message"], what
        for subject, payload, _, _ in MALFORMED.values():
            await nc.publish(subject, payload)  # Without a reply subject: nobody to answer.
        await nc.flush()
        assert (await client.send("l-1", "toggle")).kind == "recorded"
        assert len(await engine.history("l-1")) == 2
        assert client.connection.endpoint == engine.doors.endpoint


async def test_a_client_that_knows_only_the_subjects(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client), raw(client.connection.endpoint) as nc:
        started = await asked(nc, "statewright.start.light", b'{"id": "l-1", "context": {"limit": 3}}')
        assert started == {"id": "l-1", "sequence": 1, "configuration": ["off"], "status": "active"}
        cloud = b'{"specversion": "1.0", "id": "e-1", "source": "/x", "type": "toggle", "data": {"a": 1}}'
        once = await asked(nc, "statewright.send.l-1", cloud, content_type="application/cloudevents+json")
        assert once == {
            "kind": "recorded",
            "reason": "",
            "sequence": 2,
            "configuration": ["on"],
            "status": "active",
        }
        binary = {"ce_id": "e-1", "ce_source": "/x", "ce_type": "toggle"}
        assert await asked(nc, "statewright.send.l-1", b'{"a":1}', **binary) == {**once, "kind": "duplicate"}
        reused = await asked(nc, "statewright.send.l-1", b'{"a":2}', **binary)
        assert reused["error"]["code"] == "id_reused"
        unknown = await asked(nc, "statewright.query.status.nobody", b"")
        assert unknown == {"error": {"code": "not_found", "message": "no instance 'nobody'"}}


async def test_ten_megabytes(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client), raw(client.connection.endpoint) as nc:
        await client.start("light", {"limit": 3}, id="l-1")
        payload = b'"' + b"x" * 10_000_000 + b'"'
        for subject in ("statewright.send.l-1", "statewright.start.light", "statewright.control.l-1"):
            body = await asked(nc, subject, payload, ce_id="x", ce_type="toggle")
            assert body["error"]["code"] == "too_large", subject
            assert "10,000,002" in body["error"]["message"]
        with pytest.raises(TooLargeError, match=f"{PAYLOAD_BYTES_MAX:,}"):
            await client.send("l-1", "toggle", "x" * 10_000_000)
        # Just over the engine's limit, and just within.
        over = await asked(nc, "statewright.send.l-1", b'"%b"' % (b"x" * PAYLOAD_BYTES_MAX), ce_id="x", ce_type="t")
        assert over["error"]["code"] == "too_large"
        within = await client.send("l-1", "toggle", "x" * (PAYLOAD_BYTES_MAX - 2))
        assert within.kind == "recorded"


async def test_nothing_is_answered_before_it_is_durable(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        release, holding = threading.Event(), threading.Event()

        def hold() -> None:
            holding.set()
            release.wait(10)

        held = asyncio.create_task(engine.on_writer(hold))
        await asyncio.to_thread(holding.wait)
        sent = asyncio.create_task(client.send("l-1", "toggle"))
        assert (await client.status("l-1"))["sequence"] == 1
        await client.connection.nc.flush()
        assert not sent.done()
        release.set()
        await held
        assert (await sent).sequence == 2
        assert (await client.status("l-1"))["sequence"] == 2


async def test_closing_answers_what_was_taken(tmp_path: Path) -> None:
    """Every request is either answered, or finds nobody; none is taken and left without an answer."""
    async with serving(tmp_path) as (engine, client):
        await client.start("light", {"limit": 3}, id="l-1")
        doors = engine.doors
        sent = [asyncio.create_task(client.send("l-1", "toggle", event_id=f"e-{n}")) for n in range(300)]
        await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        closing = asyncio.create_task(doors._requests.close())
        results = await asyncio.gather(*sent, return_exceptions=True)
        await closing
        recorded = len(await engine.history("l-1")) - 1
        answered = sum(isinstance(result, Outcome) for result in results)
        assert answered == recorded > 0
