"""Steps of plugins and services, through the port that both satisfy."""

from __future__ import annotations

from typing import Any

import pytest

from statewright.engine import ManualClock
from statewright.engine.workflows import ExecutionTimeout, PluginNotFound, StepCall
from statewright.statecharts.workflows import Workflow
from tests.engine.workflows.opening import Opening
from tests.engine.worlds import PATIENCE_S


class Calls:
    """Stands where plugins or services do, and keeps what it is asked."""

    def __init__(self) -> None:
        self.seen: list[StepCall] = []

    async def call(self, call: StepCall) -> Any:
        self.seen.append(call)
        if call.plugin == "missing":
            raise PluginNotFound(f"step '{call.step}': no plugin '{call.plugin}'")
        return {"by": call.plugin or call.service, "method": call.method, "got": call.parameters}


def called() -> Workflow:
    return (
        Workflow("called", mode="pipeline")
        .add_step(id="parse", plugin="parser", method="parse", parameters={"path": "${input.path}"}, metadata={"k": 1})
        .add_step(id="index", service="search", method="index")
    )


async def test_steps_of_plugins_and_services_are_called_with_all_that_they_need(opened: Opening) -> None:
    plugins, services, clock = Calls(), Calls(), ManualClock()
    async with opened(called(), plugins=plugins, services=services, clock=clock) as orchestrator:
        status = await orchestrator.execute_and_wait("called", {"path": "a"}, id="e")
        result = await orchestrator.step_result("e", "index")

    assert status.status == "completed"
    [parse] = plugins.seen
    assert (parse.execution_id, parse.workflow, parse.step, parse.plugin, parse.method) == (
        ("e", "called", "parse", "parser", "parse")
    )
    assert (parse.parameters, parse.metadata, parse.attempt, parse.effect_id) == ({"path": "a"}, {"k": 1}, 1, "e-1-0")
    assert parse.deadline_ns == clock.now() + 60 * 10**9
    first = {"by": "parser", "method": "parse", "got": {"path": "a"}}
    assert result.data == {"by": "search", "method": "index", "got": {"previous": first}}


async def test_without_plugins_and_services_such_steps_wait(opened: Opening) -> None:
    async with opened(called()) as orchestrator:
        await orchestrator.execute("called", {"path": "a"}, id="e")
        assert orchestrator.unperformed() == ["step.plugin", "step.service"]
        with pytest.raises(ExecutionTimeout):
            await orchestrator.wait("e", timeout=0.1)
    async with opened(plugins=Calls(), services=Calls()) as orchestrator:
        assert (await orchestrator.wait("e", timeout=PATIENCE_S)).status == "completed"


async def test_an_unknown_plugin_has_failed_for_good(opened: Opening) -> None:
    workflow = Workflow("w").add_step(id="parse", plugin="missing", method="parse", retry_delay="60s")
    async with opened(workflow, plugins=Calls()) as orchestrator:
        status = await orchestrator.execute_and_wait("w", timeout=PATIENCE_S)
    assert status.error == "step 'parse' failed: PluginNotFound: step 'parse': no plugin 'missing'"
