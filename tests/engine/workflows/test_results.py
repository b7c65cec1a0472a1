"""What steps have come to, as users are told."""

from __future__ import annotations

from statewright.engine.calls import PermanentError
from statewright.engine.workflows import StepCall
from statewright.statecharts.workflows import Workflow
from tests.engine.workflows.opening import Opening
from tests.engine.worlds import PATIENCE_S


def load(path: str) -> str:
    raise AssertionError("it is never reached")


async def test_what_was_skipped_for_its_failure_says_why_and_what_was_never_reached_is_pending(opened: Opening) -> None:
    def fail(call: StepCall) -> None:
        raise PermanentError(f"no {call.step}")

    workflow = (
        Workflow("w")
        .add_step(id="optional", function=fail, on_error="skip")
        .add_step(id="after", function=load, dependencies=["optional"])
        .add_step(id="needed", function=fail)
        .add_step(id="never", function=load)
    )
    async with opened(workflow) as orchestrator:
        status = await orchestrator.execute_and_wait("w", id="e", timeout=PATIENCE_S)
        results = await orchestrator.step_results("e")
        metrics = await orchestrator.metrics("e")

    assert (status.status, status.error) == ("failed", "step 'needed' failed: PermanentError: no needed")
    assert [(result.status, result.error) for result in results.values()] == [
        ("skipped", "PermanentError: no optional"),
        ("skipped", ""),
        ("failed", "PermanentError: no needed"),
        ("pending", ""),
    ]
    assert (metrics.total_steps, metrics.skipped_steps, metrics.failed_steps, metrics.cancelled_steps) == (4, 2, 1, 0)
    assert list(metrics.errors) == ["optional", "needed"]
