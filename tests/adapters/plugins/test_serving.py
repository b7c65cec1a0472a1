"""Plugins served over a real nats-server: as any client sees them, and as the engine's `call` effects reach them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient
from packaging.version import Version

from statewright.adapters.plugins import PluginNotFound, Plugins, PluginServer, serve_plugin
from statewright.adapters.plugins.serving import WAITING_MAX, semantic
from statewright.engine.calls import EffectCancelled, PermanentError, RetryLater
from statewright.engine.clock import SystemClock
from statewright.engine.errors import InvalidError
from statewright.engine.workflows.calls import StepCall
from tests.adapters.nats.support import eventually, raw, running_server, serving

pytestmark = pytest.mark.integration


class Billing:
    """Charges."""

    name, version = "billing", "1.2rc1"

    def __init__(self) -> None:
        self.asked: list[StepCall] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended: list[str] = []

    def charge(self, amount: int, call: StepCall, currency: str = "EUR") -> dict[str, Any]:
        """Takes the money."""
        self.asked.append(call)
        return {"receipt": f"r-{amount}", "currency": currency}

    async def wait(self) -> str:
        self.begun.set()
        try:
            await self.may_end.wait()
        finally:
            self.ended.append("wait")
        return "done"

    def fail(self, how: str) -> Any:
        raise {
            "plain": ValueError("bad\r\nNats-Service-Error-Code: 200\r\n\r\n\ud800 day"),
            "final": PermanentError("no funds"),
            "later": RetryLater(1.2, "busy"),
            "exit": SystemExit(3),
        }[how]

    def lie(self) -> int:
        return "x"  # type: ignore[return-value]

    def long(self, length: int) -> str:
        return "x" * length

    def beat(self, call: StepCall) -> str:
        assert call.effect is not None
        call.effect.heartbeat({"page": 1})
        call.effect.heartbeat()
        return "read"

    def beat_for_ever(self, call: StepCall) -> None:
        assert call.effect is not None
        while True:
            try:
                call.effect.heartbeat()
            except EffectCancelled:
                self.ended.append("beat_for_ever")
                raise
            threading.Event().wait(0.001)


class Answer(NamedTuple):
    data: Any
    code: str = ""
    error: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)


class Caller:
    """Asks as any client of NATS does."""

    def __init__(self, nc: NatsClient) -> None:
        self.nc = nc

    async def ask(self, method: str, body: bytes | dict[str, Any] = b"", **headers: str) -> Answer:
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {f"Statewright-{key.replace('_', '-')}": value for key, value in headers.items()}
        reply = await self.nc.request(f"statewright.calls.{method}", payload, timeout=20, headers=sent or None)
        got = reply.headers or {}
        code = got.get("Nats-Service-Error-Code", "")
        data = msgspec.json.decode(reply.data) if reply.data else None
        return Answer(data, code, got.get("Nats-Service-Error", ""), got)

    async def told(self, verb: str) -> dict[str, Any]:
        reply = await self.nc.request(f"$SRV.{verb}.billing", timeout=20)
        found: dict[str, Any] = msgspec.json.decode(reply.data)
        return found


class Served(NamedTuple):
    billing: Billing
    plugins: Plugins
    server: PluginServer
    caller: Caller
    nc: NatsClient


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    billing = Billing()
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(running_server(tmp_path))
        mine = await stack.enter_async_context(raw(nats.endpoint))
        theirs = await stack.enter_async_context(raw(nats.endpoint))
        plugins = await stack.enter_async_context(Plugins([billing]))
        server = await stack.enter_async_context(serve_plugin(mine, "billing", plugins=plugins, closing_s=10.0))
        yield Served(billing, plugins, server, Caller(theirs), mine)


async def test_a_method_answers_and_is_told_who_asks(served: Served) -> None:
    deadline = SystemClock().now() + 60_000_000_000
    headers = {"Effect_Id": "o-1-2-0", "Attempt": "3", "Deadline": str(deadline)}
    answer = await served.caller.ask("billing.charge", {"amount": 42}, **headers)
    assert answer.data == {"receipt": "r-42", "currency": "EUR"}
    (call,) = served.billing.asked
    assert (call.effect_id, call.attempt, call.deadline_ns) == ("o-1-2-0", 3, deadline)
    assert (call.plugin, call.method, call.parameters) == ("billing", "charge", {"amount": 42})


async def test_one_instance_can_be_asked_by_itself(served: Served) -> None:
    info = await served.caller.told("INFO")
    word = info["metadata"]["statewright-instance"]
    assert word == served.server.id
    assert (await served.caller.ask(f"billing.charge.{word}", {"amount": 1})).data["receipt"] == "r-1"


@pytest.mark.parametrize(
    ("method", "body", "code", "says"),
    [
        ("charge", {}, "400", "billing.charge(amount: int, currency: str = 'EUR') -> dict[str, typing.Any]: parameter"),
        ("charge", {"amount": "1"}, "400", "parameter 'amount': Expected `int`, got `str`"),
        ("charge", b"[1]", "400", "expected the parameters of billing.charge as a JSON object, got b'[1]'"),
        ("charge", b"{", "400", "as a JSON object: Input data was truncated"),
        ("charge", b"null", "400", "parameter 'amount' is missing"),
        ("refund", {}, "404", "plugin 'billing' 1.2rc1 has no method 'refund'; it has charge(amount: int"),
        ("initialise", b"", "404", "has no method 'initialise'"),
        ("__init__", b"", "404", "has no method '__init__'"),
        ("fail", {"how": "plain"}, "500", "ValueError: bad Nats-Service-Error-Code: 200 \\ud800 day"),
        ("fail", {"how": "exit"}, "500", "SystemExit: 3"),
        ("fail", {"how": "final"}, "422", "no funds"),
        ("fail", {"how": "later"}, "503", "busy"),
        ("lie", {}, "422", "the result of billing.lie() -> int is not what it says"),
        ("long", {"length": 1_048_575}, "413", "of at most 1,048,576 bytes as JSON, got 1,048,577"),
    ],
)
async def test_errors_say_whether_asking_again_can_help(
    served: Served, method: str, body: bytes | dict[str, Any], code: str, says: str
) -> None:
    answer = await served.caller.ask(f"billing.{method}", body)
    assert answer.code == code
    assert says in answer.error
    assert answer.headers.get("Retry-After") == ("2" if says == "busy" else None)


@pytest.mark.parametrize(
    ("header", "value", "code", "says"),
    [
        ("Attempt", "one", "400", "expected header statewright-attempt to be a whole number, got 'one'"),
        ("Deadline", "-1", "400", "expected header statewright-deadline to be a whole number"),
        ("Deadline", "1", "408", "its deadline has passed"),
    ],
)
async def test_headers_are_checked_before_anything_is_done(
    served: Served, header: str, value: str, code: str, says: str
) -> None:
    answer = await served.caller.ask("billing.charge", {"amount": 1}, **{header: value})
    assert answer.code == code
    assert says in answer.error
    assert served.billing.asked == []


async def test_a_coroutine_is_given_up_at_its_deadline(served: Served) -> None:
    deadline = SystemClock().now() + 50_000_000
    answer = await served.caller.ask("billing.wait", b"", Deadline=str(deadline))
    # On a busy machine it may have come too late.
    assert (answer.code, served.billing.ended) in [("408", ["wait"]), ("408", [])]


async def test_heartbeats_come_before_the_answer_if_they_were_asked_for(served: Served) -> None:
    nc = served.caller.nc
    replies = await nc.subscribe("beats")
    await nc.publish("statewright.calls.billing.beat", reply="beats", headers={"Statewright-Heartbeat": "1000"})
    got = [(await replies.next_msg(timeout=20)).data for _ in range(3)]
    assert got == [b'+WPI {"page":1}', b"+WPI", b'"read"']
    assert (await served.caller.ask("billing.beat")).data == "read"


async def test_a_plain_function_hears_that_its_time_is_up(served: Served) -> None:
    deadline = SystemClock().now() + 300_000_000
    answer = await served.caller.ask("billing.beat_for_ever", b"", Deadline=str(deadline))
    assert answer.code == "408"
    await eventually(lambda: served.billing.ended == ["beat_for_ever"] or "deadline" in answer.error, "its end")


async def test_one_slow_call_holds_up_no_other(served: Served) -> None:
    slow = asyncio.create_task(served.caller.ask("billing.wait"))
    await served.billing.begun.wait()
    assert (await served.caller.ask("billing.charge", {"amount": 1})).data["receipt"] == "r-1"
    stats = await served.caller.told("STATS")
    assert stats["endpoints"][0]["data"] == {"load": 0.01, "healthy": True, "in_flight": 1, "concurrency": 100}
    served.billing.may_end.set()
    assert (await slow).data == "done"


async def test_discovery_and_statistics_are_those_of_nats_micro(served: Served) -> None:
    await served.caller.ask("billing.charge", {"amount": 1})
    await served.caller.ask("billing.charge", {})
    info, stats = await served.caller.told("INFO"), await served.caller.told("STATS")
    assert (info["name"], info["version"], info["description"]) == ("billing", "1.2.0-rc1", "Charges.")
    assert info["metadata"] == {"version": "1.2rc1", "statewright-instance": served.server.id}
    charge = next(each for each in info["endpoints"] if each["subject"] == "statewright.calls.billing.charge")
    assert charge["metadata"] == {
        "signature": "charge(amount: int, currency: str = 'EUR') -> dict[str, typing.Any]",
        "description": "Takes the money.",
    }
    counted = next(each for each in stats["endpoints"] if each["subject"] == "statewright.calls.billing.charge")
    assert (counted["num_requests"], counted["num_errors"]) == (2, 1)
    assert counted["last_error"].startswith("400: billing.charge(amount: int")
    assert counted["processing_time"] >= counted["average_processing_time"] > 0
    assert (await served.caller.told("PING"))["id"] == served.server.id


async def test_load_and_health_are_told(served: Served) -> None:
    def load() -> float:
        return loads.pop()

    loads = [0.7, 7.0]
    async with PluginServer(served.nc, served.plugins, "billing", load=load) as server:

        async def data() -> Any:
            reply = await served.caller.nc.request(f"$SRV.STATS.billing.{server.id}", timeout=20)
            return msgspec.json.decode(reply.data)["endpoints"][0]["data"]

        assert await data() == {"load": 1.0, "healthy": True, "in_flight": 0, "concurrency": 100}
        assert (await data())["load"] == 0.7
        await served.plugins.close()
        # It has raised: then the calls under way tell the load.
        assert await data() == {"load": 0.0, "healthy": False, "in_flight": 0, "concurrency": 100}
    answer = await served.caller.ask("billing.charge", {"amount": 1})
    assert (answer.code, answer.error) == ("503", "plugin 'billing' is registered, but not active yet")


async def test_calls_wait_for_their_turn_a_bounded_number(served: Served) -> None:
    async with PluginServer(served.nc, served.plugins, "billing", concurrency=1) as server:
        nc = served.caller.nc
        replies = await nc.subscribe(inbox := nc.new_inbox())
        for _ in range(1 + WAITING_MAX + 2):
            await nc.publish(f"statewright.calls.billing.wait.{server.id}", reply=inbox)
        for _ in range(2):
            refused = await replies.next_msg(timeout=20)
            assert refused.headers == {
                "Nats-Service-Error": "too many calls wait here",
                "Nats-Service-Error-Code": "503",
            }
        assert server.in_flight == 1 + WAITING_MAX
        served.billing.may_end.set()
        for _ in range(1 + WAITING_MAX):
            assert (await replies.next_msg(timeout=20)).data == b'"done"'
    with pytest.raises(InvalidError, match="a concurrency of at least 1, got 0"):
        PluginServer(served.nc, served.plugins, "billing", concurrency=0)


async def test_stopping_lets_calls_end_and_takes_no_more(served: Served) -> None:
    slow = asyncio.create_task(served.caller.ask("billing.wait"))
    await served.billing.begun.wait()
    stopping = asyncio.create_task(served.server.stop())
    await eventually(lambda: is_alone(served.caller), "the service to be gone")
    served.billing.may_end.set()
    await stopping
    assert (await slow).data == "done"


async def is_alone(caller: Caller) -> bool:
    """Whether nobody hears of a service called billing any more; whoever asks before gets an answer."""
    try:
        await caller.ask("billing.charge", {"amount": 1})
    except nats.errors.NoRespondersError:
        return True
    return False


async def test_a_call_that_does_not_end_is_answered_when_the_service_stops(served: Served) -> None:
    server = PluginServer(served.nc, served.plugins, "billing", closing_s=0.01)
    await server.start()
    slow = asyncio.create_task(served.caller.ask(f"billing.wait.{server.id}"))
    await served.billing.begun.wait()
    await server.stop()
    answer = await slow
    assert (answer.code, answer.error) == ("503", "the call was cancelled: the service stops")
    assert served.billing.ended == ["wait"]
    await server.stop()


async def test_a_method_that_only_another_version_has_is_left_to_it(served: Served) -> None:
    class Newer(Billing):
        name, version = "billing", "2.0"

        def refund(self) -> str:
            return "refunded"

    async with serve_plugin(served.nc, Newer):
        assert {(await served.caller.ask("billing.refund")).data for _ in range(10)} == {"refunded"}
    assert (await served.caller.ask("billing.refund")).code == "404"


async def test_one_of_several_plugins_with_what_it_needs(served: Served) -> None:
    class Ledger:
        name, version, dependencies = "ledger", "1", ("billing >= 1",)

        def initialise(self, needs: dict[str, Billing]) -> None:
            self.billing = needs["billing"]

        def owner(self) -> str:
            return type(self.billing).__name__

    async with serve_plugin(served.nc, Ledger, needs=(Billing,)):
        assert (await served.caller.ask("ledger.owner")).data == "Billing"
    async with Plugins([Ledger, Billing]) as plugins, serve_plugin(served.nc, "ledger", plugins=plugins):
        assert (await served.caller.ask("ledger.owner")).data == "Billing"
    with pytest.raises(PluginNotFound):
        async with Plugins([Billing]) as plugins, serve_plugin(served.nc, "ledger", plugins=plugins):
            pass


async def test_a_call_effect_reaches_it_and_retries_what_is_not_final(tmp_path: Path) -> None:
    attempts: list[tuple[str, int]] = []

    class Flaky:
        name, version = "billing", "1"

        def charge(self, amount: int, call: StepCall) -> dict[str, int]:
            attempts.append((call.effect_id, call.attempt))
            if call.attempt == 1:
                raise ConnectionError("database is down")
            return {"charged": amount}

    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc, serve_plugin(nc, Flaky):
        await client.start("order", id="o-1")
        await client.send("o-1", "charge")

        async def is_paid() -> bool:
            return "paid" in (await client.status("o-1"))["configuration"]

        await eventually(is_paid, "the payment")
        assert attempts == [("o-1-2-0", 1), ("o-1-2-0", 2)]
        assert (await engine.history("o-1"))[-1].trigger.data == {"charged": 42}


async def test_a_call_effect_ends_at_once_where_asking_again_cannot_help(tmp_path: Path) -> None:
    class Strict:
        name, version = "billing", "1"

        def charge(self, amount: str) -> None: ...

    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc, serve_plugin(nc, Strict):
        await client.start("order", id="o-1")
        await client.send("o-1", "charge")

        async def is_unpaid() -> bool:
            return "unpaid" in (await client.status("o-1"))["configuration"]

        await eventually(is_unpaid, "the refusal")
        (row,) = await engine.effects("o-1")
        assert (row.state, row.attempt) == ("failed", 1)
        assert "answered 400: billing.charge(amount: str) -> None: parameter 'amount': Expected `str`" in row.error


@pytest.mark.parametrize(
    ("version", "semver"),
    [
        ("1", "1.0.0"),
        ("1.2", "1.2.0"),
        ("1.2.3", "1.2.3"),
        ("1.2.3.4", "1.2.3+4"),
        ("2.0a1.dev3", "2.0.0-a1.dev3"),
        ("2.0.post1+local.2", "2.0.0+post1.local.2"),
    ],
)
def test_versions_become_semantic_versions(version: str, semver: str) -> None:
    assert semantic(Version(version)) == semver
