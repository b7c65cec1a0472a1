"""Services in other processes: discovered through `nats.micro`, called through the queue group or one by one."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from statewright.adapters.nats.endpoint import Endpoint
from statewright.adapters.nats.services import NatsServices
from statewright.adapters.services import CircuitPolicy, ServiceEvent, Services
from statewright.engine import EffectCall, PermanentError, RetryLater
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import UnavailableError
from statewright.engine.services import NobodyListens
from statewright.engine.workflows import Orchestrator
from statewright.statecharts.facts import Policy
from statewright.statecharts.workflows import Workflow, WorkflowStep
from tests.adapters.nats.micro import Answering, announce, answering, deserted, javascript
from tests.adapters.nats.support import ORDER, eventually, known, raw, running_server, serving
from tests.adapters.services.asking import asking, kinds

pytestmark = pytest.mark.integration


@asynccontextmanager
async def looking(endpoint: Endpoint, **settings: Any) -> AsyncIterator[tuple[Services, list[ServiceEvent]]]:
    """Services on the bus at `endpoint`, that look only when they are told to."""
    async with await NatsServices.connect(endpoint) as bus:
        services = Services(bus, **settings)
        events: list[ServiceEvent] = []
        services.subscribe(events.append)
        await services.check()
        yield services, events
        await services.close()


async def ask(services: Services, method: str = "who", service: str = "parser") -> Any:
    return await services.call(asking(service, method))


async def test_what_announces_itself_is_found(tmp_path: Path) -> None:
    said = {
        "statewright-interfaces": "document-parser, ocr",
        "statewright-priority": "7",
        "statewright-tier": "high",
        "statewright-weight": "3",
        "site": "Bern",
    }
    async with running_server(tmp_path) as server, answering(server.endpoint, "parser", "p1", metadata=said) as parser:
        parser.data = {"load": 0.25}
        async with looking(server.endpoint) as (services, events):
            (info,) = services.list_services()
            assert (info.name, info.version, info.priority, info.tier) == ("parser", "1.0.0", 7, "high")
            assert (info.interfaces, info.metadata) == ({"document-parser", "ocr"}, {"site": "Bern"})
            assert info.methods == {"who", "refuse", "stumble"}
            assert services.metrics("parser")[0].instances[0].load == 0.25
            assert await ask(services) == "p1"
            assert await ask(services, service="ocr") == "p1", "by its interface"
            assert kinds(events)[0] == "service_registered"


async def test_a_call_carries_the_contracts_headers(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, answering(server.endpoint, "parser", "p1") as parser:
        async with looking(server.endpoint) as (services, _):
            policy = Policy(timeout_ns=5 * SECOND_NS)
            effect = EffectCall("x-1-2-0", "x-1", "parse", "step", None, 3, policy=policy)
            await services.call(msgspec.structs.replace(asking("parser", "who", a=1), effect=effect))
        (headers,) = parser.asked
        assert (headers["Statewright-Effect-Id"], headers["Statewright-Attempt"]) == ("x-1-2-0", "3")
        assert int(headers["Statewright-Deadline"]) > 0


async def test_instances_share_calls_by_the_strategy_in_a_fixed_order(tmp_path: Path) -> None:
    """A queue group would deal them out at random."""
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1", metadata={"statewright-weight": "3"}) as one,
        answering(server.endpoint, "parser", "p2") as two,
        looking(server.endpoint, strategy="weighted_round_robin") as (services, _),
    ):
        for _ in range(8):
            await ask(services)
        assert (len(one.asked), len(two.asked)) == (6, 2)


async def test_resource_based_takes_the_one_with_the_least_reported_load(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1") as one,
        answering(server.endpoint, "parser", "p2") as two,
    ):
        one.data, two.data = {"load": 0.8}, {"load": 0.3}
        async with looking(server.endpoint, strategy="resource_based") as (services, events):
            assert [await ask(services) for _ in range(3)] == ["p2"] * 3
            two.data = {"load": 0.95}
            await services.check()
            assert kinds(events)[-1].startswith("instance_overloaded:")
            assert await ask(services) == "p1"


async def test_a_killed_instance_costs_no_call(tmp_path: Path) -> None:
    """Its subject has no listener any more: the next one gets the call within the same attempt."""
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1"),
        raw(server.endpoint) as nc,
        looking(server.endpoint) as (services, events),
    ):
        async with answering(server.endpoint, "parser", "p2"):
            await services.check()
            assert {await ask(services) for _ in range(2)} == {"p1", "p2"}
        await deserted(nc, "statewright.calls.parser.who.p2")
        assert [await ask(services) for _ in range(4)] == ["p1"] * 4
        lost = [event for event in events if event.kind == "instance_lost"]
        assert len(lost) == 1
        assert "no service answers on 'statewright.calls.parser.who.p2'" in lost[0].detail
        assert services.metrics("parser")[0].failures == 0


async def test_silence_makes_instances_go_and_an_answer_brings_them_back(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, looking(server.endpoint) as (services, events):
        async with raw(server.endpoint) as nc:
            parser = await announce(nc, "parser", Answering("p1"))
            await services.check()
            assert services.get("parser").instances == 1
            parser.data = {"healthy": False}
            await services.check()
            assert services.get("parser").is_available, "once is no proof"
            await services.check()
            assert (events[-2].detail, events[-1].kind) == ("it says that it is not well", "service_unavailable")
            parser.data = {}
            await services.check()
            assert services.get("parser").is_available
        await services.check()
        await services.check()
        assert (events[-2].detail, events[-1].kind) == ("no answer 2 times", "service_unavailable")
        with pytest.raises(NobodyListens):
            await ask(services)
        async with answering(server.endpoint, "parser", "p1"):
            assert await ask(services) == "p1", "found by the queue group before the next look"
            await services.check()
            assert services.get("parser").is_available


async def test_one_that_can_not_be_asked_by_itself_is_asked_through_the_queue_group(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1", own=False) as one,
        answering(server.endpoint, "parser", "p2") as two,
        looking(server.endpoint) as (services, _),
    ):
        for _ in range(60):
            await ask(services)
        assert len(one.asked) + len(two.asked) == 60
        assert one.asked, "the queue group reaches it"
        assert two.asked, "and the other one"


async def test_a_plain_subscriber_needs_no_announcement(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        raw(server.endpoint) as nc,
        looking(server.endpoint) as (services, _),
    ):
        with pytest.raises(NobodyListens, match=r"no service answers on 'statewright\.calls\.billing\.charge'"):
            await ask(services, "charge", "billing")
        await nc.subscribe("statewright.calls.billing.*", cb=_replying(nc, b'{"receipt": 1}'))
        await known(nc)
        assert await ask(services, "charge", "billing") == {"receipt": 1}
        with pytest.raises(PermanentError, match=r"expected a subject of dot-separated words.*'bill ing\.charge'"):
            await ask(services, "charge", "bill ing")
        assert services.get("billing").is_available


async def test_answers_and_failures_over_the_bus(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1") as parser,
        looking(server.endpoint, circuit=CircuitPolicy(failures_max=2)) as (services, events),
    ):
        for _ in range(3):
            with pytest.raises(PermanentError, match=r"parser\.refuse answered 422: no such document"):
                await ask(services, "refuse")
        for _ in range(2):
            with pytest.raises(UnavailableError, match=r"parser\.stumble answered 500: out of memory"):
                await ask(services, "stumble")
        with pytest.raises(RetryLater, match="the circuit of service 'parser' is open"):
            await ask(services)
        assert kinds(events)[-1] == "circuit_opened"
        assert len(parser.asked) == 5, "an open circuit asks nobody"


async def test_what_code_says_of_a_remote_service_counts_before_what_it_says_itself(tmp_path: Path) -> None:
    said = {"statewright-interfaces": "ocr", "statewright-priority": "7"}
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1", metadata=said),
        looking(server.endpoint) as (services, _),
    ):
        services.register_remote("parser", priority=1, metadata={"site": "Bern"})
        await services.check()
        info = services.get("parser")
        assert (info.priority, info.interfaces, info.version) == (1, {"ocr"}, "1.0.0")
        assert (info.metadata, info.instances) == ({"site": "Bern"}, 1)


async def test_a_local_service_of_the_same_name_is_the_one_that_is_meant(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1") as parser,
        looking(server.endpoint) as (services, _),
    ):
        services.register("parser", {"who": lambda: "here"})
        await services.check()
        assert await ask(services) == "here"
        assert parser.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b'{"id": "x"}',
        b'{"id": "x", "name": "parser"}',
        b'{"id": "x", "name": "a.b", "type": "info", "endpoints": [{"subject": "statewright.calls.a.b.who"}]}',
        b'{"id": "x", "name": "mail", "type": "info", "endpoints": [{"subject": "mail.send"}]}',
        b'{"id": "x", "name": "mail", "type": "info", "endpoints": null, "metadata": null}',
    ],
)
async def test_what_is_no_service_of_ours_is_left_alone(tmp_path: Path, answer: bytes) -> None:
    async with (
        running_server(tmp_path) as server,
        raw(server.endpoint) as nc,
        answering(server.endpoint, "parser", "p1", metadata={"statewright-priority": "high", "statewright-tier": "x"}),
    ):
        await nc.subscribe("$SRV.INFO", cb=_replying(nc, answer))
        await known(nc)
        async with looking(server.endpoint) as (services, _):
            (info,) = services.list_services()
            assert (info.name, info.priority, info.tier) == ("parser", 0, "standard")


def _replying(nc: Any, answer: bytes) -> Callable[[Msg], Any]:
    async def reply(message: Msg) -> None:
        await nc.publish(message.reply, answer)

    return reply


async def test_a_bus_out_of_reach_says_nothing_about_services(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        running_server(tmp_path) as server,
        answering(server.endpoint, "parser", "p1"),
        looking(server.endpoint) as (services, events),
    ):
        heard = len(events)
        await server.stop()
        await eventually(lambda: "disconnected from" in caplog.text, "the loss of the connection")
        for _ in range(3):
            await services.check()
        assert services.get("parser").is_available
        assert len(events) == heard
        assert "services can't be looked for now: no connection to the nats-server" in caplog.text


# -- JavaScript ----------------------------------------------------------------------------------------------------


async def test_a_javascript_service_answers_a_step(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        javascript(server.endpoint, "js1"),
        javascript(server.endpoint, "js2", "0.5") as second,
        raw(server.endpoint) as nc,
        looking(server.endpoint, strategy="round_robin") as (services, _),
    ):
        (info,) = services.list_services("text-analysis")
        assert (info.name, info.version, info.tier, info.instances) == ("analyzer", "1.4.0", "high", 2)
        assert info.metadata == {"language": "JavaScript"}
        assert sorted(one.load or 0 for one in services.metrics("analyzer")[0].instances) == [0.0, 0.5]
        counted = [await services.call(asking("word-count", "words", text="to be or not")) for _ in range(4)]
        assert [found["words"] for found in counted] == [4, 4, 4, 4]
        assert counted[0]["by"] != counted[1]["by"], "each in turn, by a subject of its own"
        assert counted[:2] == counted[2:]
        identity = await services.call(asking("analyzer", "identity"))
        assert (identity["effect"], identity["attempt"]) == ("x-1-2-0", 1)
        with pytest.raises(PermanentError, match=r"analyzer\.refuse answered 422: this language is not supported"):
            await services.call(asking("analyzer", "refuse"))
        with pytest.raises(UnavailableError, match=r"analyzer\.stumble answered 500: out of memory"):
            await services.call(asking("analyzer", "stumble"))
        second.send_signal(signal.SIGKILL)
        await second.wait()
        await deserted(nc, "statewright.calls.analyzer.words.js2")
        left = [await services.call(asking("analyzer", "words", text="one two")) for _ in range(3)]
        assert [found["by"] for found in left] == ["js1"] * 3


async def test_a_workflows_step_is_answered_in_javascript(tmp_path: Path) -> None:
    step = WorkflowStep("count", service="word-count", method="words", parameters={"text": "${input.text}"})
    store = f"sqlite:///{tmp_path / 'store.db'}"
    async with (
        running_server(tmp_path) as server,
        javascript(server.endpoint, "js1"),
        looking(server.endpoint) as (services, _),
        Orchestrator.open(store, workflows=[Workflow("docs").add_step(step)], services=services) as orchestrator,
    ):
        execution = await orchestrator.execute("docs", {"text": "to be or not"})
        assert (await orchestrator.wait(execution, timeout=30)).status == "completed"
        assert (await orchestrator.step_result(execution, "count")).data == {"words": 4, "by": "js1"}


async def test_a_charts_calls_go_through_the_registry(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, charts=[ORDER]) as (engine, client),
        looking(client.connection.endpoint) as (services, _),
        raw(client.connection.endpoint) as nc,
    ):
        engine.performer("call", services.perform)
        await nc.subscribe("statewright.calls.billing.*", cb=_replying(nc, b'{"receipt": "r-1"}'))
        await known(nc)
        await client.start("order", id="o-1")
        await client.send("o-1", "charge")

        async def is_paid() -> bool:
            return "paid" in (await client.status("o-1"))["configuration"]

        await eventually(is_paid, "the payment")
        assert services.metrics("billing")[0].calls == 1
