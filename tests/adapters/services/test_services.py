"""Services in this process: registered, selected, called, watched."""

from __future__ import annotations

import asyncio
import math
import textwrap
import threading
from typing import Any

import pytest

from statewright.adapters.services import CircuitPolicy, Criteria
from statewright.engine import EffectCall, PermanentError, RetryLater
from statewright.engine.errors import AlreadyExistsError, InvalidError, UnavailableError
from statewright.engine.workflows.errors import InvalidParameters, ServiceNotFound
from tests.adapters.services.asking import Instance, asking, kinds, world
from tests.engine.worlds import until

# -- the registry --------------------------------------------------------------------------------------------------


async def test_a_registered_object_answers_by_its_public_methods() -> None:
    services, _, events = world()
    services.register("math", Instance("m"), version="1.2", description="doubles", metadata={"eu": True})
    info = services.get("math")
    assert (info.version, info.metadata, info.is_available, info.instances) == ("1.2", {"eu": True}, True, 1)
    assert info.methods == {"who", "wait", "double", "healthy"}
    assert await services.call(asking("math", "who")) == "m"
    assert await services.call(asking("math", "double", number=21)) == 42
    assert kinds(events) == ["service_registered", "instance_added:1", "service_available"]


async def test_a_mapping_and_a_module_are_services_too() -> None:
    services, _, _ = world()
    services.register("text", {"join": lambda a, b: a + b})
    services.register("math", math)
    services.register("layout", textwrap)
    assert await services.call(asking("text", "join", a="x", b="y")) == "xy"
    assert await services.call(asking("math", "sqrt", x=4)) == 2.0
    assert await services.call(asking("layout", "dedent", text="  a")) == "a"
    assert services.get("layout").methods >= {"dedent", "wrap"}
    assert "re" not in services.get("layout").methods, "what a module has imported is not its own"


async def test_registering_does_not_run_properties() -> None:
    class Lazy:
        @property
        def model(self) -> Any:
            raise AssertionError("a property was asked for")

        @staticmethod
        def ping() -> str:
            return "pong"

    services, _, _ = world()
    services.register("lazy", Lazy())
    assert services.get("lazy").methods == {"ping"}
    assert await services.call(asking("lazy", "ping")) == "pong"


async def test_bad_registrations_are_refused() -> None:
    services, _, events = world()
    services.register("a", Instance())
    heard = len(events)
    with pytest.raises(AlreadyExistsError, match="a service called 'a' is registered already"):
        services.register("a", Instance())
    with pytest.raises(AlreadyExistsError, match="service 'a' has an instance '1' already"):
        services.add_instance("a", Instance(), instance="1")
    for target in (5, "textwrap", Instance, world, {}, object()):
        with pytest.raises(InvalidError, match="expected service 'b' to be an object with a public method"):
            services.register("b", target)
    with pytest.raises(InvalidError, match="service 'b' can't offer 'hypot': no signature"):
        services.register("b", {"hypot": math.hypot})
    for wrong, message in (
        ({"tier": "ultra"}, "of tier low, standard, high, got 'ultra'"),
        ({"priority": "1"}, "a whole number as priority, got '1'"),
        ({"interfaces": "word-count"}, "a list of interfaces, got the text 'word-count'"),
    ):
        with pytest.raises(InvalidError, match=message):
            services.register("b", Instance(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="a service name of the form"):
        services.register("a.b", Instance())
    with pytest.raises(InvalidError, match="a weight from 1 and a capacity from 0, got 0 and 0"):
        services.register("b", Instance(), weight=0)
    with pytest.raises(InvalidError, match=r"expected a strategy \(round_robin, .*got 'fair'"):
        services.register("b", Instance(), strategy="fair")  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="expected a bus for the remote service 'b'"):
        services.register_remote("b")
    with pytest.raises(ServiceNotFound, match="no service is called 'b'; registered: a"):
        services.add_instance("b", Instance(), instance="2")
    with pytest.raises(InvalidError, match="expected an instance of service 'a', got '9'; it has 1"):
        services.remove_instance("a", "9")
    assert [info.name for info in services.list_services()] == ["a"]
    assert len(events) == heard, "what is refused leaves nothing behind"


async def test_unregistered_is_gone() -> None:
    services, _, events = world()
    services.register("a", Instance())
    services.unregister("a")
    assert kinds(events)[-3:] == ["instance_lost:1", "service_unavailable", "service_unregistered"]
    with pytest.raises(ServiceNotFound, match="no service is called 'a' or has that interface; registered: none"):
        await services.call(asking("a", "who"))
    with pytest.raises(ServiceNotFound):
        services.get("a")


async def test_a_call_that_can_not_fit_is_refused_for_good() -> None:
    services, _, _ = world()
    services.register("math", Instance())
    with pytest.raises(ServiceNotFound, match="service 'math' has no method 'triple'; it has double, "):
        await services.call(asking("math", "triple"))
    with pytest.raises(InvalidParameters, match=r"math\.double.*parameter 'number': Expected `int`, got `str`"):
        await services.call(asking("math", "double", number="x"))
    (metrics,) = services.metrics()
    assert (metrics.calls, metrics.failures, metrics.in_flight) == (0, 0, 0), "it says nothing about the service"


async def test_a_listener_that_fails_keeps_nobody_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    services, _, events = world()

    def fail(_: object) -> None:
        raise ValueError("deaf")

    services.subscribe(fail)
    later: asyncio.Queue[Any] = asyncio.Queue()
    unsubscribe = services.subscribe(later.put_nowait)
    services.register("a", Instance())
    assert later.qsize() == 3
    unsubscribe()
    services.unregister("a")
    assert later.qsize() == 3
    assert len(events) == 6
    assert "a listener failed" in caplog.text


# -- selection -----------------------------------------------------------------------------------------------------


async def test_an_interface_is_performed_by_the_best_service_that_has_it() -> None:
    services, _, _ = world(circuit=CircuitPolicy(failures_max=1, open_for_s=30))
    cloud, local = Instance("cloud"), Instance("local")
    services.register("cloud", cloud, interfaces=["ocr"], priority=10, tier="high")
    services.register("local", local, interfaces=["ocr", "scan"])
    assert await services.call(asking("ocr", "who")) == "cloud"
    assert await services.call(asking("scan", "who")) == "local"
    assert [info.name for info in services.list_services("ocr")] == ["cloud", "local"]
    cloud.error = OSError("no network")
    with pytest.raises(OSError, match="no network"):
        await services.call(asking("ocr", "who"))
    assert services.get("cloud").circuit == "open"
    assert await services.call(asking("ocr", "who")) == "local", "the next best while its circuit is open"
    selected = services.select(Criteria(interface="ocr", tier="low"))
    assert selected is not None
    assert selected.name == "local"
    assert services.select(Criteria(interface="ocr", tier="high")) is None


async def test_a_step_may_ask_for_more_in_its_metadata() -> None:
    services, _, _ = world()
    services.register("slow", Instance("slow"), interfaces=["ocr"], priority=10, tier="low")
    services.register("fast", Instance("fast"), interfaces=["ocr"], tier="high")
    assert await services.call(asking("ocr", "who")) == "slow"
    assert await services.call(asking("ocr", "who", criteria={"tier": "standard"})) == "fast"
    with pytest.raises(UnavailableError, match="'slow' is of tier low, expected high or better"):
        await services.call(asking("slow", "who", criteria={"tier": "high"}))
    with pytest.raises(InvalidParameters, match=r"the criteria of step 'parse': .*unknown field `teir`"):
        await services.call(asking("ocr", "who", criteria={"teir": "high"}))


async def test_a_circuit_that_is_open_everywhere_says_when_to_come_again() -> None:
    services, clock, _ = world(circuit=CircuitPolicy(failures_max=1, open_for_s=30))
    broken = Instance()
    broken.error = OSError("broken")
    services.register("a", broken, interfaces=["ocr"])
    with pytest.raises(OSError, match="broken"):
        await services.call(asking("ocr", "who"))
    clock.advance(10)
    with pytest.raises(RetryLater, match="no service fits 'ocr' now: the circuit of 'a' is open") as later:
        await services.call(asking("ocr", "who"))
    assert (later.value.seconds, later.value.counted) == (20, False)
    clock.advance(20)
    broken.error = None
    assert await services.call(asking("ocr", "who")) == ""
    assert services.get("a").circuit == "closed"


# -- circuits ------------------------------------------------------------------------------------------------------


async def test_a_circuit_opens_says_when_and_closes_again() -> None:
    services, clock, events = world()
    instance = Instance("a")
    services.register("a", instance, circuit=CircuitPolicy(failures_max=2, open_for_s=30))
    instance.error = OSError("down")
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            await services.call(asking("a", "who"))
    instance.error = None
    clock.advance(12)
    with pytest.raises(RetryLater, match="the circuit of service 'a' is open: try again in 18 s") as later:
        await services.call(asking("a", "who"))
    assert (later.value.seconds, later.value.counted) == (18, False)
    clock.advance(18)
    assert await services.call(asking("a", "who")) == "a"
    assert kinds(events)[3:] == ["circuit_opened", "circuit_half_opened", "circuit_closed"]
    assert events[3].detail == "2 failures in a row, for 30 s"
    (metrics,) = services.metrics("a")
    assert (metrics.calls, metrics.failures, metrics.rejected) == (3, 2, 1)
    assert (metrics.circuit, metrics.circuit_openings) == ("closed", 1)


async def test_half_open_lets_one_call_try() -> None:
    services, clock, _ = world(circuit=CircuitPolicy(failures_max=1, open_for_s=30))
    instance = Instance("a")
    services.register("a", instance)
    instance.error = OSError("down")
    with pytest.raises(OSError, match="down"):
        await services.call(asking("a", "who"))
    instance.error = None
    clock.advance(30)
    trial = asyncio.create_task(services.call(asking("a", "wait")))
    await instance.waiting.wait()
    with pytest.raises(RetryLater, match="is half_open: try again in 31 s"):
        await services.call(asking("a", "who"))
    trial.cancel()
    await asyncio.wait((trial,))
    assert await services.call(asking("a", "who")) == "a", "a cancelled trial gives its place back"


@pytest.mark.parametrize("answer", [PermanentError("no funds"), RetryLater(5)])
async def test_an_answer_is_no_failure(answer: Exception) -> None:
    services, _, _ = world(circuit=CircuitPolicy(failures_max=1))
    instance = Instance()
    instance.error = answer
    services.register("a", instance)
    for _ in range(3):
        with pytest.raises(type(answer)):
            await services.call(asking("a", "who"))
    (metrics,) = services.metrics()
    assert (metrics.calls, metrics.failures, metrics.refusals, metrics.circuit) == (3, 0, 3, "closed")


@pytest.mark.parametrize(("passed_s", "failures"), [(5, 0), (10, 1)])
async def test_a_cancelled_call_counts_only_if_its_time_was_up(passed_s: float, failures: int) -> None:
    services, clock, _ = world()
    instance = Instance()
    services.register("a", instance)
    call = asyncio.create_task(services.call(asking("a", "wait", deadline_s=10)))
    await instance.waiting.wait()
    clock.advance(passed_s)
    call.cancel()
    await asyncio.wait((call,))
    (metrics,) = services.metrics()
    assert (metrics.failures, metrics.in_flight) == (failures, 0)


# -- instances -----------------------------------------------------------------------------------------------------


async def test_calls_are_shared_by_the_services_strategy() -> None:
    services, _, _ = world()
    services.register("a", Instance("1"), strategy="weighted_round_robin", weight=2)
    services.add_instance("a", Instance("2"), instance="2")
    assert [await services.call(asking("a", "who")) for _ in range(6)] == ["1", "2", "1", "1", "2", "1"]


async def test_least_connections_goes_by_calls_under_way() -> None:
    services, _, _ = world(strategy="least_connections")
    one, two = Instance("1"), Instance("2")
    services.register("a", one)
    services.add_instance("a", two, instance="2")
    waiting = asyncio.create_task(services.call(asking("a", "wait")))
    await one.waiting.wait()
    assert [await services.call(asking("a", "who")) for _ in range(3)] == ["2", "2", "2"]
    one.let_go.set()
    assert await waiting == "1"


async def test_resource_based_goes_by_reported_load() -> None:
    services, _, _ = world(strategy="resource_based")
    loads = {"1": 0.6, "2": 0.3}
    services.register("a", Instance("1"), load=lambda: loads["1"])
    services.add_instance("a", Instance("2"), instance="2", load=lambda: loads["2"])
    assert await services.call(asking("a", "who")) == "2"
    loads["2"] = 0.7
    assert await services.call(asking("a", "who")) == "1"


async def test_a_strategy_may_be_any_function() -> None:
    services, _, _ = world(strategy=lambda candidates, turn: (candidates[-1].id, turn))
    services.register("a", Instance("1"))
    services.add_instance("a", Instance("2"), instance="2")
    assert await services.call(asking("a", "who")) == "2"


async def test_overload_is_told_at_ninety_percent_and_avoided() -> None:
    services, _, events = world()
    loads = {"1": 0.1}
    services.register("a", Instance("1"), load=lambda: loads["1"])
    services.add_instance("a", Instance("2"), instance="2")
    loads["1"] = 0.93
    await services.check()
    assert (kinds(events)[-1], events[-1].detail) == ("instance_overloaded:1", "load 93%")
    assert {await services.call(asking("a", "who")) for _ in range(4)} == {"2"}
    loads["1"] = 0.85
    await services.check()
    assert kinds(events)[-1] == "instance_overloaded:1", "it must go below 80 % to be relieved"
    loads["1"] = 0.5
    await services.check()
    assert kinds(events)[-1] == "instance_relieved:1"
    assert {await services.call(asking("a", "who")) for _ in range(4)} == {"1", "2"}
    assert services.metrics("a")[0].overloads == 1


async def test_calls_under_way_are_a_load_where_there_is_a_capacity() -> None:
    services, _, events = world()
    instance = Instance("1")
    services.register("a", instance, capacity=2)
    calls = [asyncio.create_task(services.call(asking("a", "wait"))) for _ in range(2)]
    await until(lambda: services.metrics("a")[0].in_flight == 2, "both calls")
    assert kinds(events)[-1] == "instance_overloaded:1"
    assert services.get("a").is_overloaded
    assert await services.call(asking("a", "who")) == "1", "the only one is asked all the same"
    instance.let_go.set()
    await asyncio.gather(*calls)
    assert kinds(events)[-1] == "instance_relieved:1"


@pytest.mark.parametrize(("said", "load"), [(7.0, 1.0), (-1.0, 0.0), (float("nan"), None), ("busy", None)])
async def test_a_load_that_is_none_does_no_harm(said: Any, load: float | None) -> None:
    services, _, _ = world()
    services.register("a", Instance("1"), load=lambda: said)
    assert await services.call(asking("a", "who")) == "1"
    assert services.metrics("a")[0].instances[0].load == load


# -- health --------------------------------------------------------------------------------------------------------


async def test_a_dead_instance_gets_no_calls_until_it_is_back() -> None:
    services, clock, events = world()
    one, two = Instance("1"), Instance("2")
    services.register("a", one, health=one.healthy)
    services.add_instance("a", two, instance="2", health=two.healthy)
    one.is_well = False
    await services.check()
    assert "instance_lost:1" not in kinds(events), "one miss is none"
    await services.check()
    assert (kinds(events)[-1], events[-1].detail) == ("instance_lost:1", "the health check says no")
    assert {await services.call(asking("a", "who")) for _ in range(3)} == {"2"}
    two.is_well = False
    await services.check()
    await services.check()
    assert kinds(events)[-2:] == ["instance_lost:2", "service_unavailable"]
    clock.advance(10)
    with pytest.raises(UnavailableError, match="no instance of service 'a' is there for 'who' now"):
        await services.call(asking("a", "who"))
    one.is_well = True
    await services.check()
    assert kinds(events)[-2:] == ["instance_returned:1", "service_available"]
    assert await services.call(asking("a", "who")) == "1"
    clock.advance(30)
    assert services.metrics("a")[0].uptime == 0.75


async def test_a_health_check_that_hangs_is_a_no() -> None:
    services, _, events = world(misses_max=1, health_timeout_s=0.01)
    instance = Instance()

    async def hang() -> bool:
        return bool(await instance.let_go.wait())

    services.register("a", instance, health=hang)
    await services.check()
    assert events[-2].detail == "no answer to the health check within 0.01 s"


async def test_a_plain_health_check_runs_in_a_thread_and_its_failure_is_a_no() -> None:
    services, _, events = world(misses_max=1, health_timeout_s=60)

    def fail() -> bool:
        raise OSError(f"main thread: {threading.current_thread() is threading.main_thread()}")

    services.register("a", Instance(), health=fail)
    await services.check()
    assert events[-2].detail == "the health check failed: OSError: main thread: False"


async def test_health_is_checked_in_the_background() -> None:
    services, clock, events = world(check_every_s=5, misses_max=1)
    instance = Instance()
    services.register("a", instance, health=instance.healthy)
    async with services:
        instance.is_well = False
        await until(lambda: bool(clock.waiting), "the wait for the next check")
        clock.advance(5)
        await until(lambda: kinds(events)[-1] == "service_unavailable", "the check")
    assert not clock.waiting, "closed"


# -- what is measured, and a chart's calls -------------------------------------------------------------------------


async def test_latency_is_that_of_successful_calls() -> None:
    services, clock, _ = world()
    instance = Instance()
    services.register("a", instance)
    assert services.get("a").latency_ms is None
    for took_s in (0.1, 0.2):
        instance.waiting.clear()
        instance.let_go.clear()
        call = asyncio.create_task(services.call(asking("a", "wait")))
        await instance.waiting.wait()
        clock.advance(took_s)
        instance.let_go.set()
        await call
    assert services.get("a").latency_ms == pytest.approx(120)
    assert services.metrics("a")[0].instances[0].latency_ms == pytest.approx(120)


async def test_a_charts_call_goes_the_same_way() -> None:
    services, _, _ = world()
    services.register("math", Instance())
    effect = EffectCall("e-1", "i-1", "math.double", "call", {"number": 4}, 1)
    assert await services.perform(effect) == 8
    with pytest.raises(InvalidParameters, match=r"expected parameters by name for math\.double, got \[1\]"):
        await services.perform(EffectCall("e-1", "i-1", "math.double", "call", [1], 1))
    with pytest.raises(PermanentError, match=r"expected a call to name <service>\.<method>, got 'math'"):
        await services.perform(EffectCall("e-1", "i-1", "math", "call", None, 1))
