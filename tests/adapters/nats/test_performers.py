"""Effects over the bus: messages emitted, services called."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from statewright.adapters.nats.client import Client
from statewright.engine import Engine
from statewright.statecharts import Retry, call, chart, state, to
from tests.adapters.nats.support import eventually, raw, running_server, serving, url_of

pytestmark = pytest.mark.integration


async def is_in(client: Client, instance_id: str, state: str) -> bool:
    return state in (await client.status(instance_id))["configuration"]


async def test_emit_reaches_a_core_subscriber(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        heard = await nc.subscribe("orders.*")
        await nc.flush()
        await client.start("order", id="o-1")
        await client.send("o-1", "announce")
        message = await heard.next_msg(timeout=10)
        assert (message.subject, msgspec.json.decode(message.data)) == ("orders.announced", {"n": 1})
        assert message.headers == {
            "ce-specversion": "1.0",
            "ce-id": "o-1-2-0",
            "ce-type": "orders.announced",
            "ce-source": "statewright/o-1",
            "content-type": "application/json",
            "Nats-Msg-Id": "o-1-2-0",
        }
        await eventually(lambda: _effect_is(engine, "o-1", "done"), "the effect's end")


async def _effect_is(engine: Engine, instance_id: str, state: str) -> bool:
    return [row.state for row in await engine.effects(instance_id)] == [state]


async def test_emit_waits_for_the_stream_that_captures_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        await nc.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
        await client.start("order", id="o-1")
        await client.send("o-1", "announce")
        await eventually(lambda: _effect_is(engine, "o-1", "done"), "the effect's end")
        stored = await nc.jetstream().get_msg("ORDERS", 1)
        assert (stored.headers or {})["Nats-Msg-Id"] == "o-1-2-0"
        result = (await engine.history("o-1"))[-1].trigger
        assert (result.name, result.data) == ("done.effect.orders.announced", {"stream": "ORDERS", "sequence": 1})


async def test_a_call_carries_its_identity_and_brings_the_result(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        asked: list[Msg] = []

        async def charge(message: Msg) -> None:
            asked.append(message)
            await nc.publish(message.reply, b'{"receipt": "r-1"}')

        await nc.subscribe("statewright.calls.billing.*", cb=charge)
        await nc.flush()
        await client.start("order", id="o-1")
        sent_at = engine.clock.now()
        await client.send("o-1", "charge")
        await eventually(lambda: is_in(client, "o-1", "paid"), "the payment")
        (message,) = asked
        assert (message.subject, message.data) == ("statewright.calls.billing.charge", b'{"amount":42}')
        headers: Any = message.headers
        assert (headers["Statewright-Effect-Id"], headers["Statewright-Attempt"]) == ("o-1-2-0", "1")
        assert sent_at < int(headers["Statewright-Deadline"]) < sent_at + 60_000_000_000
        assert (await engine.history("o-1"))[-1].trigger.data == {"receipt": "r-1"}


async def test_a_services_refusal_is_final_and_its_trouble_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:
        answers = [
            ({"Nats-Service-Error": "database is down", "Nats-Service-Error-Code": "500"}, b""),
            ({"Nats-Service-Error": "no funds", "Nats-Service-Error-Code": "402"}, b""),
        ]
        attempts: list[str] = []

        async def charge(message: Msg) -> None:
            headers, payload = answers[len(attempts)]
            attempts.append((message.headers or {})["Statewright-Attempt"])
            await nc.publish(message.reply, payload, headers=headers)

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        await client.start("order", id="o-1")
        await client.send("o-1", "charge")
        await eventually(lambda: is_in(client, "o-1", "unpaid"), "the refusal")
        assert attempts == ["1", "2"]
        trigger = (await engine.history("o-1"))[-1].trigger
        assert trigger.name == "error.effect.billing.charge"
        assert "billing.charge answered 402: no funds" in trigger.data["message"]


async def test_an_answer_that_is_no_json_is_final(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:

        async def charge(message: Msg) -> None:
            await nc.publish(message.reply, b"<html>")

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        await client.start("order", id="o-1")
        await client.send("o-1", "charge")
        await eventually(lambda: is_in(client, "o-1", "unpaid"), "the failure")
        assert (
            "expected billing.charge to answer with JSON" in (await engine.history("o-1"))[-1].trigger.data["message"]
        )


async def test_a_service_that_comes_later_is_asked_again(tmp_path: Path) -> None:
    """Nobody there at the first attempt; the next run of the engine goes on with the second."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        async with serving(tmp_path, url_of(server.endpoint)) as (engine, client):
            await client.start("order", id="o-1")
            await client.send("o-1", "charge")

            async def has_failed() -> bool:
                (row,) = await engine.effects("o-1")
                return row.state == "pending" and "no service answers" in row.error

            await eventually(has_failed, "the first failure")
        attempts: list[str] = []

        async def charge(message: Msg) -> None:
            attempts.append((message.headers or {})["Statewright-Attempt"])
            await nc.publish(message.reply, b"null")

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await eventually(lambda: is_in(client, "o-1", "paid"), "the payment")
        assert attempts == ["2"]


async def test_closing_while_a_service_is_silent(tmp_path: Path) -> None:
    """The engine does not wait for it; the call is made again by the next run."""
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        asked: asyncio.Queue[Msg] = asyncio.Queue()

        async def charge(message: Msg) -> None:
            asked.put_nowait(message)

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            await client.start("order", id="o-1")
            await client.send("o-1", "charge")
            await asyncio.wait_for(asked.get(), 10)
        async with serving(tmp_path, url_of(server.endpoint)) as (_, client):
            again = await asyncio.wait_for(asked.get(), 10)
            assert (again.headers or {})["Statewright-Effect-Id"] == "o-1-2-0"
            await nc.publish(again.reply, b"null")
            await eventually(lambda: is_in(client, "o-1", "paid"), "the payment")


SLOW = chart(
    "slow",
    initial="open",
    states=[
        state("open", on={"charge": to("charging")}),
        state(
            "charging",
            entry=[
                call(
                    "billing",
                    "charge",
                    timeout="2h",
                    heartbeat="20m",
                    retry=Retry(attempts=3, initial="1ms", maximum="1ms", final=("503",)),
                )
            ],
            on={"done.effect.billing.charge": to("paid"), "error.effect.billing.charge": to("unpaid")},
        ),
        state("paid"),
        state("unpaid"),
    ],
)


async def test_a_call_with_heartbeats_takes_any_number_before_its_one_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, charts=[SLOW]) as (engine, client), raw(client.connection.endpoint) as nc:
        asked: asyncio.Queue[Msg] = asyncio.Queue()

        async def charge(message: Msg) -> None:
            asked.put_nowait(message)

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        await client.start("slow", id="o-1")
        sent_at = engine.clock.now()
        await client.send("o-1", "charge")
        message = await asyncio.wait_for(asked.get(), 10)
        headers: Any = message.headers
        assert headers["Statewright-Heartbeat"] == "1200000000000"
        deadline = int(headers["Statewright-Deadline"]) - sent_at
        assert 7_200_000_000_000 <= deadline < 7_260_000_000_000

        for page in (1, 2):
            await nc.publish(message.reply, f'+WPI {{"page": {page}}}'.encode())
        await nc.publish(message.reply, b"+WPI")

        async def is_kept() -> bool:
            (row,) = await engine.effects("o-1")
            return row.details == '{"page":2}'

        await eventually(is_kept, "the heartbeat")
        await nc.publish(message.reply, b'{"receipt": "r-1"}')
        await eventually(lambda: is_in(client, "o-1", "paid"), "the payment")
        assert (await engine.history("o-1"))[-1].trigger.data == {"receipt": "r-1"}


async def test_a_call_with_heartbeats_to_nobody_fails_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, charts=[SLOW]) as (engine, client):
        await client.start("slow", id="o-1")
        await client.send("o-1", "charge")
        await eventually(lambda: is_in(client, "o-1", "unpaid"), "the failure")
        (row,) = await engine.effects("o-1")
        assert (row.attempt, row.error) == (
            3,
            "NobodyListens: no service answers on 'statewright.calls.billing.charge'",
        )


@pytest.mark.parametrize(
    ("headers", "attempts"),
    [
        ({"Nats-Service-Error-Code": "500"}, 3),
        ({"Nats-Service-Error-Code": "429", "Retry-After": "0"}, 3),
        ({"Nats-Service-Error-Code": "409"}, 1),
        ({"Nats-Service-Error-Code": "503"}, 1),
    ],
)
async def test_a_services_code_says_whether_it_is_asked_again(
    tmp_path: Path, headers: dict[str, str], attempts: int
) -> None:
    async with serving(tmp_path, charts=[SLOW]) as (engine, client), raw(client.connection.endpoint) as nc:

        async def charge(message: Msg) -> None:
            await nc.publish(message.reply, b"", headers={"Nats-Service-Error": "no", **headers})

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        await client.start("slow", id="o-1")
        await client.send("o-1", "charge")
        await eventually(lambda: is_in(client, "o-1", "unpaid"), "the failure")
        (row,) = await engine.effects("o-1")
        assert (row.state, row.attempt) == ("failed", attempts)
        assert f"answered {headers['Nats-Service-Error-Code']}: no" in row.error


async def test_a_service_says_when_it_can_be_asked_again(tmp_path: Path) -> None:
    async with serving(tmp_path, charts=[SLOW]) as (engine, client), raw(client.connection.endpoint) as nc:

        async def charge(message: Msg) -> None:
            headers = {"Nats-Service-Error": "busy", "Nats-Service-Error-Code": "429", "Retry-After": "3600"}
            await nc.publish(message.reply, b"", headers=headers)

        await nc.subscribe("statewright.calls.billing.charge", cb=charge)
        await nc.flush()
        await client.start("slow", id="o-1")
        before = engine.clock.now()
        await client.send("o-1", "charge")

        async def is_put_off() -> bool:
            (row,) = await engine.effects("o-1")
            return row.state == "pending" and row.due_at >= before + 3_600_000_000_000

        await eventually(is_put_off, "the effect to wait an hour")
