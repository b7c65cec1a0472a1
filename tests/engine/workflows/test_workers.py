"""Several workers on one store: steps are performed once, and who waits learns of the end."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import pytest

from statewright.engine.workflows import Orchestrator, StepCall
from statewright.statecharts.workflows import Workflow
from tests.engine.worlds import PATIENCE_S
from tests.postgres_server import new_url

pytestmark = pytest.mark.integration

WORKFLOW = (
    Workflow("shared", mode="parallel")
    .add_step(id="a", function="left", parameters={"got": "${input.n}"})
    .add_step(id="b", function="right", dependencies=["a"], parameters={"got": "${steps.a}"})
    .add_step(id="c", function="left", dependencies=["b"], parameters={"got": "${steps.b}"})
)


async def test_workers_share_the_steps_and_a_worker_goes() -> None:
    url = new_url()
    performed: Counter[str] = Counter()

    async def add(got: int, call: StepCall) -> int:
        performed[call.effect_id] += 1
        return got + 1

    functions = {"left": add, "right": add}
    async with Orchestrator.open(url, workflows=[WORKFLOW], run_due=False) as asking, AsyncExitStack() as stack:
        workers = [Orchestrator.open(url, functions=functions) for _ in range(2)]
        staying = await stack.enter_async_context(workers[0])
        async with workers[1]:
            ids = [await asking.execute("shared", {"n": number}, id=f"e-{number}") for number in range(12)]
            done = [await asking.wait(execution_id, timeout=PATIENCE_S) for execution_id in ids[:6]]
        done += [await staying.wait(execution_id, timeout=PATIENCE_S) for execution_id in ids[6:]]
        assert [status.status for status in done] == ["completed"] * 12
        for number, execution_id in enumerate(ids):
            assert (await asking.step_result(execution_id, "c")).data == number + 3
    assert len(performed) == 36
