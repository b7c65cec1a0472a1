"""What the doors let in, what they give out when it is too much, and what of it lies on the server's disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from statewright.adapters.encryption.keyring import IDENTITIES, new_entry
from statewright.adapters.nats.client import Client
from statewright.adapters.nats.connection import connect
from statewright.adapters.nats.envelope import encode_event
from statewright.engine import Engine
from statewright.engine.cipher import KEYS
from statewright.engine.errors import BusyError, InvalidError
from statewright.engine.requests import ExternalEvent
from statewright.statecharts import assign, chart, state, to
from tests.adapters.nats import secured
from tests.adapters.nats.support import LIGHT, eventually, free_port, running_server, serving, store_in

SECRET = "xyzzy-plugh"
NOTES = chart(
    "notes",
    context={"text": {"type": "string", "default": ""}},
    initial="open",
    states=[state("open", on={"write": to(actions=[assign(text="event.data.text")])})],
)


async def test_a_rate_is_kept_at_the_request_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEWRIGHT_RATE_ACTOR", "0.001")  # One, and then none for a quarter of an hour.
    async with serving(tmp_path) as (engine, client):
        await engine.start("light", {"limit": 3}, id="l-1")
        assert (await client.send("l-1", "toggle", actor="ann")).kind == "recorded"
        with pytest.raises(BusyError, match=r"at most 0\.001 requests a second for actor 'ann'"):
            await client.send("l-1", "toggle", actor="ann")
        assert (await client.send("l-1", "toggle", actor="bob")).kind == "recorded"
        assert (await engine.status("l-1")).sequence == 3


async def test_what_is_over_the_rate_waits_at_the_jetstream_door_and_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEWRIGHT_RATE_INSTANCE", "20")
    async with serving(tmp_path) as (engine, client):
        await engine.start("light", {"limit": 3}, id="l-1")
        for number in range(30):
            await client.publish("l-1", "toggle", event_id=f"e-{number}")

        async def all_there() -> bool:
            return (await engine.status("l-1")).sequence == 31

        await eventually(all_there, "all events")
        assert engine.recorder.select_parked(1) == []


async def test_a_full_queue_is_said_to_be_busy_and_holds_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path, queue_max=5) as (engine, client):
        await engine.start("light", {"limit": 3}, id="l-1")
        results = await asyncio.gather(
            *(client.send("l-1", "toggle", event_id=f"e-{n}") for n in range(200)), return_exceptions=True
        )
        busy = [one for one in results if isinstance(one, BusyError)]
        recorded = [one for one in results if not isinstance(one, BaseException)]
        assert len(busy) + len(recorded) == 200
        assert busy
        assert (await engine.status("l-1")).sequence == 1 + len(recorded)
        for number in range(50):
            await client.publish("l-1", "toggle", event_id=f"j-{number}")

        async def all_there() -> bool:
            return (await engine.status("l-1")).sequence == 51 + len(recorded)

        await eventually(all_there, "what came through JetStream, which waits")


async def test_the_outbox_is_bounded(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        connection = await connect(server.endpoint, name="test")
        connection.outbox_max = 10
        for _ in range(50):  # The task that empties it has no turn in between.
            connection.post("nobody", b"x")
        assert len(connection._outbox) == 10
        await connection.flushed()
        connection.post("nobody", b"x")
        await connection.flushed()
        assert len(connection._outbox) == 0
        await connection.close()


async def test_an_actor_in_the_subject_is_the_one_that_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEWRIGHT_ACTORS", "subject")
    config = (
        'jetstream { store_dir: "STORE" }\nauthorization { users: [\n { user: engine, password: e }\n'
        " { user: ann, password: a, permissions: {"
        ' publish: ["statewright.as.ann.>"], subscribe: ["_INBOX.>"] } }\n] }\n'
    )
    async with (
        secured.server(tmp_path, config) as address,
        serving(tmp_path, f"nats://engine:e@{address}") as (engine, _),
        await Client.connect(f"nats://ann:a@{address}") as ann,
    ):
        await ann.start("light", {"limit": 3}, id="l-1", actor="ann")
        assert (await ann.send("l-1", "toggle", actor="ann")).kind == "recorded"
        assert (await ann.control("l-1", "pause", actor="ann")).kind == "recorded"
        facts = await engine.history("l-1")
        assert [getattr(fact, "actor", None) or fact.trigger.actor for fact in facts] == ["ann"] * 3  # type: ignore[union-attr]
        nc = ann.connection.nc
        headers, payload = encode_event(ExternalEvent("l-1", "toggle", None, "f-1", actor="bob"))
        forged = await nc.request("statewright.as.ann.send.l-1", payload, timeout=5, headers=headers)
        assert "expected no other actor than the subject's, 'ann', got 'bob'" in forged.data.decode()
        with pytest.raises(Exception, match="timeout"):  # NATS itself forbids it.
            await nc.request("statewright.as.bob.send.l-1", payload, timeout=0.5, headers=headers)
        with pytest.raises(InvalidError, match="one word of a subject"):
            await ann.send("l-1", "toggle", actor="a.b")


async def test_an_actor_claimed_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as (_, client):
        await client.start("light", {"limit": 3}, id="l-1", actor="anybody")  # The default: what the message says.
    monkeypatch.setenv("STATEWRIGHT_ACTORS", "subject")
    async with serving(tmp_path) as (engine, client):
        headers, payload = encode_event(ExternalEvent("l-1", "toggle", None, "f-1", actor="bob"))
        nc = client.connection.nc
        answer = await nc.request("statewright.send.l-1", payload, timeout=5, headers=headers)
        assert json.loads(answer.data)["error"]["code"] == "invalid"
        await nc.jetstream().publish("statewright.events.l-1", payload, headers=headers)
        parked = await eventually(lambda: engine.recorder.select_parked(1), "the parked message")
        assert "got one that the message claims" in parked[0].reason
        assert (await client.send("l-1", "toggle")).kind == "recorded"
    monkeypatch.setenv("STATEWRIGHT_ACTORS", "trust me")
    with pytest.raises(InvalidError, match="STATEWRIGHT_ACTORS to be claimed or subject"):
        await Engine.open(store_in(tmp_path), nats="embedded").__aenter__()


async def test_a_fact_that_is_too_large_for_the_bus_is_published_by_reference(tmp_path: Path) -> None:
    config = 'jetstream { store_dir: "STORE" }\nmax_payload: 8KB\n'
    text = "é" * 20_000
    async with secured.server(tmp_path, config) as address:
        async with serving(tmp_path, f"nats://{address}", charts=[NOTES]) as (engine, client):
            await engine.start("notes", id="n-1")
            await engine.send("n-1", "write", {"text": text})
            await engine.send("n-1", "write", {"text": "short"})
            js = client.connection.nc.jetstream()

            async def count() -> bool:
                return (await js.stream_info("STATEWRIGHT_HISTORY")).state.messages == 3

            await eventually(count, "all facts")
            message = await js.get_msg("STATEWRIGHT_HISTORY", 2)
            reference = json.loads(message.data or b"")
            assert reference["reference"]["subject"] == "statewright.query.fact.n-1.2"
            assert (message.headers or {})["Statewright-Reference"] == "statewright.query.fact.n-1.2"
            assert reference["reference"]["bytes"] > 8_192
            fact = await client.fact("n-1", 2)
            assert fact["trigger"]["data"] == {"text": text}
            assert (fact["type"], fact["sequence"]) == (reference["type"], 2)
            for subject, payload, code in (
                ("statewright.query.fact.n-1.9", b"", "not_found"),
                ("statewright.query.fact.n-1.x", b"", "invalid"),
                ("statewright.query.fact.n-1.2", b'{"offset": -1}', "invalid"),
                ("statewright.query.fact.n-1.2", b'{"offset": 10000000}', "not_found"),
            ):
                answer = await client.connection.nc.request(subject, payload, timeout=5)
                assert json.loads(answer.data)["error"]["code"] == code
        async with serving(tmp_path, f"nats://{address}", charts=[NOTES]) as (engine, client):
            await engine.send("n-1", "write", {"text": text})

            async def again() -> bool:
                return (await client.connection.nc.jetstream().stream_info("STATEWRIGHT_HISTORY")).state.messages == 4

            await eventually(again, "one more, and nothing twice")


async def test_the_embedded_server_encrypts_its_streams_if_the_store_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]

    async def leave_some(folder: Path) -> None:
        async with serving(folder, charts=[NOTES]) as (engine, client):
            await engine.start("notes", id="n-1")
            for number in range(20):
                await client.publish("n-1", "write", {"text": f"{SECRET}{number}"}, event_id=f"e-{number}")

            async def published() -> bool:
                info = await client.connection.nc.jetstream().stream_info("STATEWRIGHT_HISTORY")
                return info.state.messages == 21

            await eventually(published, "all facts")
            assert (folder / "store.db.nats" / "server.conf").stat().st_mode & 0o077 == 0
            assert (folder / "store.db.nats" / "identity").stat().st_mode & 0o077 == 0

    for name in ("sealed", "plain"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(KEYS, f"{new_entry('k')},{new_entry(IDENTITIES)}")
    await leave_some(tmp_path / "sealed")
    assert found() == []
    monkeypatch.delenv(KEYS)
    await leave_some(tmp_path / "plain")
    assert found() != [], "the search finds what is there"


async def test_a_warning_where_it_cannot_be_seen_that_the_server_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if "sync_interval" in record.getMessage()]

    for sync, expected in (("", 1), (", sync_interval: always", 0)):
        home = tmp_path / f"sync{expected}"
        home.mkdir()
        port = free_port()
        config = f'http: "127.0.0.1:{port}"\njetstream {{ store_dir: "STORE"{sync} }}\n'
        async with secured.server(home, config) as address:
            monkeypatch.setenv("STATEWRIGHT_NATS_MONITOR", f"http://127.0.0.1:{port}")
            caplog.clear()
            async with serving(home, f"nats://{address}", charts=[LIGHT]):
                assert len(warnings()) == expected
            monkeypatch.delenv("STATEWRIGHT_NATS_MONITOR")
            caplog.clear()
            async with serving(home, f"nats://{address}", charts=[LIGHT]):
                assert len(warnings()) == 1
                assert "can't be seen" in warnings()[0]
    caplog.clear()
    async with serving(tmp_path):
        assert warnings() == [], "the embedded one always syncs"
