"""Steps of workflows that services perform, and that a router sends on their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from statewright.adapters.services import CircuitPolicy, Services
from statewright.engine.routing import Router, Rule
from statewright.engine.workflows import Orchestrator
from statewright.statecharts.workflows import Workflow, WorkflowStep


class Parser:
    """Counts words; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.asked = 0

    def count(self, text: str) -> dict[str, int]:
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError("the parser is out of breath")
        return {"words": len(text.split())}


async def performed(folder: Path, workflow: Workflow, given: dict[str, Any], services: Services) -> Any:
    """(the execution's status, the results by step) of one execution."""
    async with (
        services,
        Orchestrator.open(f"sqlite:///{folder / 'store.db'}", workflows=[workflow], services=services) as orchestrator,
    ):
        execution = await orchestrator.execute(workflow.id, given)
        done = await orchestrator.wait(execution, timeout=30)
        return done, await orchestrator.step_results(execution)


def counting(**fields: Any) -> Workflow:
    step = {"service": "parser", "method": "count", "parameters": {"text": "${input.text}"}}
    return Workflow("counting").add_step(WorkflowStep("count", **{**step, **fields}))


async def test_a_step_is_performed_by_a_service(tmp_path: Path) -> None:
    services = Services()
    services.register("parser", Parser(), interfaces=["word-count"])
    done, results = await performed(tmp_path, counting(service="word-count"), {"text": "to be or not"}, services)
    assert done.status == "completed"
    assert results["count"].data == {"words": 4}


async def test_an_open_circuit_puts_a_step_off(tmp_path: Path) -> None:
    """The circuit opens at the first failure; then one is refused, which does not count, and the next is its trial."""
    services = Services(circuit=CircuitPolicy(failures_max=1, open_for_s=0.2))
    parser = Parser(failures=1)
    services.register("parser", parser)
    heard: list[str] = []
    services.subscribe(lambda event: heard.append(event.kind))
    workflow = counting(max_retries=1, retry_delay="1ms")
    done, results = await performed(tmp_path, workflow, {"text": "a b"}, services)
    assert (done.status, results["count"].data) == ("completed", {"words": 2})
    assert (parser.asked, results["count"].retries) == (2, 1)
    assert heard == ["circuit_opened", "circuit_half_opened", "circuit_closed"]
    assert services.metrics("parser")[0].rejected == 1


async def test_a_service_that_is_not_there_is_final_without_a_bus(tmp_path: Path) -> None:
    done, results = await performed(tmp_path, counting(max_retries=9), {"text": "a"}, Services())
    assert done.status == "failed"
    assert "no service is called 'parser' or has that interface; registered: none" in results["count"].error
    assert results["count"].retries == 0


ROUTER = Router(
    "kinds",
    [
        Rule("invoice", "invoices", "input.kind == 'invoice'", parameters={"account": "${input.account}"}),
        Rule("spam", "bin", "input.sender.endsWith('.spam')", priority=5),
    ],
    default="manual",
)


def handled(route: dict[str, Any]) -> dict[str, Any]:
    return {"route": route}


def routing() -> Workflow:
    workflow = Workflow("routing", mode="conditional")
    workflow.add_step(WorkflowStep("route", function=ROUTER))
    for name in ("book", "look"):
        step = WorkflowStep(name, function=handled, parameters={"route": "${steps.route}"})
        workflow.add_step(step).add_dependency(name, "route")
    condition = "steps.route.target == 'invoices'"
    return workflow.add_conditional_branch("route", condition, then=["book"], otherwise=["look"])


async def test_a_routers_decision_is_recorded_and_drives_the_branches(tmp_path: Path) -> None:
    given = {"kind": "invoice", "sender": "ann@example.org", "account": 17}
    done, results = await performed(tmp_path, routing(), given, Services())
    assert done.status == "completed"
    assert {step: result.status for step, result in results.items()} == {
        "route": "completed",
        "book": "completed",
        "look": "skipped",
    }
    decision = results["route"].data
    assert (decision["target"], decision["parameters"], decision["confidence"]) == ("invoices", {"account": 17}, 1.0)
    assert decision["reason"] == "rule 'invoice' holds: input.kind == 'invoice'"
    assert decision["rules"] == [
        {"rule": "spam", "priority": 5, "verdict": "not_matched"},
        {"rule": "invoice", "priority": 0, "verdict": "matched"},
    ]
    assert results["book"].data["route"]["parameters"] == {"account": 17}
