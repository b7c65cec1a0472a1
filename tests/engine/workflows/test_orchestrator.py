"""Workflows run by the orchestrator, on real stores: what flows between steps, control, queries, restarts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import ManualClock
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError, UnavailableError
from statewright.engine.workflows import (
    ExecutionNotFound,
    ExecutionTimeout,
    InvalidState,
    Orchestrator,
    StepCall,
    WorkflowExists,
    WorkflowNotFound,
)
from statewright.statecharts.workflows import InvalidWorkflow, Workflow
from tests.engine.charts import COUNTER
from tests.engine.workflows.opening import Opening
from tests.engine.worlds import PATIENCE_S, until


def load(path: str) -> dict[str, Any]:
    return {"path": path, "rows": [1, 2, 3]}


async def clean(rows: list[int]) -> list[int]:
    return [row for row in rows if row > 1]


def save(rows: list[int], call: StepCall) -> dict[str, Any]:
    return {"count": len(rows), "effect": call.effect_id}


async def fail() -> None:
    raise ValueError("no")


def docs() -> Workflow:
    return (
        Workflow("docs")
        .add_step(id="load", function=load, parameters={"path": "${input.path}"})
        .add_step(id="images", function=fail, condition="size(input.path) > 100")
        .add_step(id="clean", function=clean, parameters={"rows": "${steps.load.rows}"})
        .add_step(id="save", function=save, parameters={"rows": "${steps.clean}"})
    )


async def test_data_flows_from_the_input_through_the_steps(opened: Opening) -> None:
    async with opened(docs()) as orchestrator:
        status = await orchestrator.execute_and_wait("docs", {"path": "a.txt"}, id="e-1", timeout=PATIENCE_S)
        results = await orchestrator.step_results("e-1")

    assert (status.status, status.progress, status.current_steps) == ("completed", 1.0, ())
    assert (status.completed_steps, status.skipped_steps, status.total_steps) == (3, 1, 4)
    assert {step: result.status for step, result in results.items()} == {
        "load": "completed",
        "images": "skipped",
        "clean": "completed",
        "save": "completed",
    }
    assert results["load"].data == {"path": "a.txt", "rows": [1, 2, 3]}
    assert results["save"].data["count"] == 2
    assert results["save"].data["effect"].startswith("e-1-")
    for step in ("load", "clean", "save"):
        one = results[step]
        assert one.started_at is not None
        assert one.ended_at is not None
        assert status.started_at <= one.started_at <= one.ended_at
        assert one.execution_time == (one.ended_at - one.started_at) / 1e9


@dataclass
class Table:
    path: Path
    rows: int


async def test_paths_and_dataclasses_go_from_step_to_step(opened: Opening) -> None:
    def write(folder: Path) -> Table:
        return Table(folder / "table.csv", 3)

    def read(table: Table) -> Path:
        assert isinstance(table.path, Path)
        return table.path.with_suffix(".zip")

    workflow = (
        Workflow("w", mode="pipeline")
        .add_step(id="write", function=write, parameters={"folder": "${input.folder}"})
        .add_step(id="read", function=read)
    )
    async with opened(workflow) as orchestrator:
        for _ in range(2):  # The same input again is the same execution.
            await orchestrator.execute_and_wait("w", {"folder": Path("a")}, id="e", timeout=PATIENCE_S)
        results = await orchestrator.step_results("e")
    assert results["write"].data == {"path": "a/table.csv", "rows": 3}
    assert results["read"].data == "a/table.zip"


async def test_in_a_pipeline_a_step_gets_what_the_last_one_gave(opened: Opening) -> None:
    def first(input: dict[str, Any]) -> list[int]:  # noqa: A002
        return list(input["rows"])

    def double(rows: list[int], factor: int) -> list[int]:
        return [row * factor for row in rows]

    def spare(rows: list[int]) -> list[int]:
        return [*rows, 100]

    def total(rows: list[int]) -> int:
        return sum(rows)

    pipeline = (
        Workflow("pipe", mode="pipeline")
        .add_step(id="first", function=first)
        .add_step(id="double", function=double, parameters={"factor": "${input.factor}"})
        .add_step(id="broken", function=fail, max_retries=0, on_error={"fallback": "spare"})
        .add_step(id="total", function=total)
        .add_step(id="spare", function=spare)
    )
    async with opened(pipeline) as orchestrator:
        status = await orchestrator.execute_and_wait("pipe", {"rows": [1, 2], "factor": 3}, id="p", timeout=PATIENCE_S)
        results = await orchestrator.step_results("p")

    assert status.status == "completed", status
    assert results["double"].data == [3, 6]
    assert results["broken"].status == "failed"
    assert results["spare"].data == [3, 6, 100]
    assert results["total"].data == 109


async def test_a_merge_step_gets_the_results_of_its_group(opened: Opening) -> None:
    async def one() -> int:
        return 1

    async def two() -> int:
        return 2

    def merge(results: dict[str, int], text: str) -> Any:
        return {"sum": sum(results.values()), "of": sorted(results), "text": text}

    grouped = (
        Workflow("grouped")
        .add_step(id="one", function=one)
        .add_step(id="two", function=two)
        .add_step(id="gone", function=fail, max_retries=0)
        .add_step(id="merge", function=merge, parameters={"text": "got ${results.one}"})
        .add_parallel_group("all", ["one", "two", "gone"], merge="merge", on_failure="partial")
    )
    async with opened(grouped) as orchestrator:
        status = await orchestrator.execute_and_wait("grouped", id="g", timeout=PATIENCE_S)
        merged = await orchestrator.step_result("g", "merge")

    assert status.status == "completed", status
    assert merged.data == {"sum": 3, "of": ["one", "two"], "text": "got 1"}


async def test_a_step_that_fails_is_tried_again_and_says_so(opened: Opening) -> None:
    clock = ManualClock()
    tries = []

    def flaky(call: StepCall) -> str:
        tries.append((call.attempt, call.effect_id))
        if call.attempt < 3:
            raise OSError("disk is full")
        return "ok"

    workflow = Workflow("w").add_step(id="flaky", function=flaky, retry_delay="10s", retry_backoff=1.0)
    async with opened(workflow, clock=clock) as orchestrator:
        await orchestrator.execute("w", id="e")
        for count in (1, 2):
            await until(lambda count=count: len(tries) == count and clock.waiting, "an attempt to fail")

            async def is_retrying() -> bool:
                return (await orchestrator.step_result("e", "flaky")).status == "retrying"

            await until(is_retrying, "the step to wait for its next attempt")
            shown = await orchestrator.step_result("e", "flaky")
            assert shown.error == "OSError: disk is full"
            assert (await orchestrator.status("e")).current_steps == ("flaky",)
            clock.advance(10)
        await orchestrator.wait("e")
        result = await orchestrator.step_result("e", "flaky")
        metrics = await orchestrator.metrics("e")

    assert (result.status, result.data, result.retries) == ("completed", "ok", 2)
    assert [attempt for attempt, _ in tries] == [1, 2, 3]
    assert len({effect_id for _, effect_id in tries}) == 1
    assert metrics.retries == 2


@pytest.mark.parametrize(
    ("function", "parameters", "error"),
    [
        (lambda: object(), {}, "InvalidError: expected the result of handler 'bad' to be JSON, got object"),
        (lambda: "x" * 2_000_000, {}, "TooLargeError: expected the result of handler 'bad' of at most 1,048,576 bytes"),
        (load, {}, "InvalidParameters: function 'load' takes path: parameter 'path' is missing"),
        (load, {"path": 5}, "parameter 'path': Expected `str`, got `int`"),
        (load, {"path": "${input.nope}"}, "InvalidParameters: parameters.path: ${input.nope}: input has no 'nope'"),
    ],
)
async def test_what_trying_again_cannot_help_fails_at_once(
    opened: Opening, function: Any, parameters: Any, error: str
) -> None:
    def bad(**given: Any) -> Any:
        return function(**given)

    step = load if function is load else bad
    workflow = Workflow("w").add_step(id="bad", function=step, parameters=parameters, retry_delay="60s")
    async with opened(workflow) as orchestrator:
        status = await orchestrator.execute_and_wait("w", id="e", timeout=PATIENCE_S)
        result = await orchestrator.step_result("e", "bad")

    assert status.status == "failed"
    assert (result.status, result.retries) == ("failed", 0)
    assert error in result.error
    assert error in status.error
    assert status.progress == 1.0


async def test_a_step_waits_for_a_process_that_has_its_function(
    opened: Opening, caplog: pytest.LogCaptureFixture
) -> None:
    written = Workflow("w").add_step(id="load", function="load_it", parameters={"path": "x"})
    async with opened(written) as orchestrator:
        assert "nothing in this process performs step.function.w.load_it" in caplog.text
        await orchestrator.execute("w", id="e")
        assert orchestrator.unperformed() == ["step.function.w.load_it"]
        with pytest.raises(ExecutionTimeout, match=r"expected execution 'e' of 'w' to end within 0\.2 s, it is active"):
            await orchestrator.wait("e", timeout=0.2)
        for no_seconds in ("1s", float("nan")):
            with pytest.raises(InvalidError, match="expected a timeout in seconds, a number or None, got"):
                await orchestrator.execute_and_wait("w", id="never", timeout=no_seconds)  # type: ignore[arg-type]
        with pytest.raises(ExecutionNotFound):
            await orchestrator.status("never")
        [effect] = await orchestrator.engine.effects("e")
        assert (effect.state, effect.attempt) == ("pending", 0)

    caplog.clear()
    async with opened(functions={"load_it": load, "other": clean}) as orchestrator:
        assert orchestrator.unperformed() == []
        assert "nothing in this process" not in caplog.text
        status = await orchestrator.wait("e", timeout=PATIENCE_S)

    assert status.status == "completed"


async def test_after_a_restart_completed_steps_do_not_run_again(opened: Opening) -> None:
    ran: list[str] = []
    hold = asyncio.Event()

    async def first() -> str:
        ran.append("first")
        return "one"

    async def second(text: str) -> str:
        ran.append("second")
        await hold.wait()
        return text + " two"

    workflow = (
        Workflow("w")
        .add_step(id="first", function=first)
        .add_step(id="second", function=second, parameters={"text": "${steps.first}"})
    )
    async with opened(workflow) as orchestrator:
        await orchestrator.execute("w", id="e")
        await until(lambda: "second" in ran, "the second step to run")
        assert (await orchestrator.status("e")).current_steps == ("second",)
        assert (await orchestrator.status("e")).progress == 0.5
    hold.set()
    async with opened(workflow) as orchestrator:
        status = await orchestrator.wait("e", timeout=PATIENCE_S)
        result = await orchestrator.step_result("e", "second")

    assert status.status == "completed"
    assert result.data == "one two"
    assert ran == ["first", "second", "second"]


def undoing(undone: list[str], hold: asyncio.Event) -> Workflow:
    async def reserve() -> dict[str, str]:
        return {"seat": "4A"}

    async def release(seat: str) -> str:
        undone.append(seat)
        return f"released {seat}"

    async def pay() -> None:
        await hold.wait()

    return (
        Workflow("trip")
        .add_step(id="reserve", function=reserve)
        .add_step(id="pay", function=pay)
        .add_rollback_step("reserve", id="release", function=release, parameters={"seat": "${steps.reserve.seat}"})
    )


async def _until_paying(orchestrator: Orchestrator, execution_id: str) -> None:
    async def paying() -> bool:
        return (await orchestrator.status(execution_id)).current_steps == ("pay",)

    await until(paying, "the second step to run")


async def test_cancelling_leaves_what_was_done_or_undoes_it(opened: Opening) -> None:
    undone: list[str] = []
    async with opened(undoing(undone, asyncio.Event())) as orchestrator:
        for execution_id in ("plain", "undone", "paused"):
            await orchestrator.execute("trip", id=execution_id)
            await _until_paying(orchestrator, execution_id)
        await orchestrator.cancel("plain", reason="changed my mind")
        plain = await orchestrator.wait("plain", timeout=PATIENCE_S)
        assert (plain.status, plain.error, undone) == ("cancelled", "changed my mind", [])
        assert (await orchestrator.step_result("plain", "pay")).status == "cancelled"

        await orchestrator.cancel("undone", compensate=True, reason="too dear")
        status = await orchestrator.wait("undone", timeout=PATIENCE_S)
        results = await orchestrator.step_results("undone")
        assert (status.status, status.error, undone) == ("cancelled", "too dear", ["4A"])
        assert (results["pay"].status, results["release"].status) == ("cancelled", "compensated")
        assert results["release"].data == "released 4A"
        assert results["release"].execution_time is not None
        assert (await orchestrator.metrics("undone")).compensated_steps == 1

        await orchestrator.pause("paused")
        await orchestrator.cancel("paused", compensate=True)
        assert (await orchestrator.wait("paused", timeout=PATIENCE_S)).status == "cancelled"
        assert undone == ["4A", "4A"]

        for compensate in (False, True):
            with pytest.raises(InvalidState, match="cancelled"):
                await orchestrator.cancel("plain", compensate=compensate)


async def test_rollback_steps_are_listed_in_the_order_in_which_they_ran(opened: Opening) -> None:
    def nothing() -> None: ...

    workflow = Workflow("w")
    for step in ("a", "b", "c"):
        workflow.add_step(id=step, function=nothing, rollback={"function": nothing})
    workflow.add_step(id="d", function=fail, max_retries=0)
    async with opened(workflow) as orchestrator:
        await orchestrator.execute_and_wait("w", id="e", timeout=PATIENCE_S)
        assert list(await orchestrator.step_results("e")) == ["a", "b", "c", "d", "undo_c", "undo_b", "undo_a"]


async def test_while_it_is_paused_no_step_begins(opened: Opening) -> None:
    hold = asyncio.Event()
    async with opened(undoing([], hold)) as orchestrator:
        await orchestrator.execute("trip", id="e")
        await _until_paying(orchestrator, "e")
        await orchestrator.pause("e", reason="audit")
        with pytest.raises(InvalidState, match="can't be paused"):
            await orchestrator.pause("e")
        hold.set()

        async def deferred() -> bool:
            return (await orchestrator.engine.effects("e"))[-1].state == "done"

        await until(deferred, "the result to be recorded")
        status = await orchestrator.status("e")
        assert (status.status, status.progress) == ("paused", 0.5)
        assert [one.execution_id for one in await orchestrator.active_executions()] == ["e"]
        await orchestrator.resume("e")
        assert (await orchestrator.wait("e", timeout=PATIENCE_S)).status == "completed"
        with pytest.raises(InvalidState):
            await orchestrator.resume("e")


async def test_who_waits_is_woken_by_the_commit_itself(opened: Opening) -> None:
    hold = asyncio.Event()
    clock = ManualClock()  # It never moves, so no look is ever due.
    async with opened(undoing([], hold), clock=clock) as orchestrator:
        await orchestrator.execute("trip", id="e")
        waiters = [asyncio.create_task(orchestrator.wait("e")) for _ in range(3)]
        await _until_paying(orchestrator, "e")
        hold.set()
        async with asyncio.timeout(PATIENCE_S):
            found = await asyncio.gather(*waiters)
        assert [status.status for status in found] == ["completed"] * 3

        await orchestrator.execute("trip", id="f")


async def test_who_waits_is_told_when_the_orchestrator_closes(opened: Opening) -> None:
    async with opened(undoing([], asyncio.Event())) as orchestrator:
        await orchestrator.execute("trip", id="e")
        waiter = asyncio.create_task(orchestrator.wait("e"))
        await _until_paying(orchestrator, "e")
    with pytest.raises(UnavailableError, match="not open"):
        async with asyncio.timeout(PATIENCE_S):
            await waiter


async def test_workflows_are_registered_listed_and_withdrawn(opened: Opening) -> None:
    async with opened(docs(), charts=[COUNTER]) as orchestrator:
        assert [one.id for one in await orchestrator.list_workflows()] == ["docs"]
        found = await orchestrator.get_workflow("docs")
        assert found.to_json() == docs().to_json()
        assert found.functions == {"load": load, "clean": clean, "save": save, "fail": fail}

        await orchestrator.register(docs())
        with pytest.raises(WorkflowExists, match="'docs' version '1' is stored with other content"):
            await orchestrator.register(docs().add_step(id="more", function=fail))
        with pytest.raises(InvalidWorkflow):
            await orchestrator.register(Workflow("empty"))
        with pytest.raises(InvalidError, match="expected a Workflow to register, got str"):
            await orchestrator.register("docs")  # type: ignore[arg-type]
        await orchestrator.register(
            Workflow("docs", version="2").add_step(id="only", function=clean, parameters={"rows": []})
        )
        assert (await orchestrator.get_workflow("docs")).version == "2"
        assert (await orchestrator.get_workflow("docs", "1")).version == "1"
        first = await orchestrator.execute_and_wait("docs", {"path": "x"}, version="1", timeout=PATIENCE_S)
        second = await orchestrator.execute_and_wait("docs", timeout=PATIENCE_S)
        assert (first.version, first.total_steps, second.version, second.total_steps) == ("1", 4, "2", 1)

        await orchestrator.unregister("docs")
        assert await orchestrator.list_workflows() == []
        for refused in (
            orchestrator.execute("docs"),
            orchestrator.unregister("docs"),
            orchestrator.get_workflow("docs"),
        ):
            with pytest.raises(WorkflowNotFound, match="no workflow 'docs'; there are: none"):
                await refused
        assert (await orchestrator.status(first.execution_id)).status == "completed"
        await orchestrator.register(docs())
        assert await orchestrator.execute("docs", {"path": "y"})


async def test_what_is_not_there_is_named(opened: Opening) -> None:
    async with opened(docs(), charts=[COUNTER]) as orchestrator:
        await orchestrator.engine.start("counter", id="c-1")
        with pytest.raises(WorkflowNotFound, match="no workflow 'dosc'; there are: docs"):
            await orchestrator.execute("dosc")
        with pytest.raises(WorkflowNotFound, match="'counter' is a chart, not a workflow"):
            await orchestrator.execute("counter")
        for ask in (orchestrator.status, orchestrator.step_results, orchestrator.metrics, orchestrator.wait):
            with pytest.raises(ExecutionNotFound, match="no execution 'e-1'"):
                await ask("e-1")  # type: ignore[operator]
            with pytest.raises(ExecutionNotFound, match="'c-1' is an instance of chart 'counter'"):
                await ask("c-1")  # type: ignore[operator]
        with pytest.raises(InvalidError, match="expected the input of 'docs' to be a mapping, got list"):
            await orchestrator.execute("docs", [1])  # type: ignore[arg-type]
        await orchestrator.execute("docs", {"path": "a"}, id="e-1")
        await orchestrator.execute("docs", {"path": "a"}, id="e-1")
        with pytest.raises(AlreadyExistsError):
            await orchestrator.execute("docs", {"path": "b"}, id="e-1")
        with pytest.raises(NotFoundError, match="has no step 'nope'"):
            await orchestrator.step_result("e-1", "nope")
        await orchestrator.wait("e-1", timeout=PATIENCE_S)
    with pytest.raises(UnavailableError, match="not open"):
        await orchestrator.status("e-1")


async def test_an_execution_that_the_engine_starts_is_the_same(opened: Opening) -> None:
    async with opened(docs()) as orchestrator:
        await orchestrator.engine.start("docs", {"input": {"path": "z"}}, id="e-1")
        status = await orchestrator.wait("e-1", timeout=PATIENCE_S)
        assert status.status == "completed"
        assert (await orchestrator.step_result("e-1", "load")).data["path"] == "z"


async def test_active_executions_are_paged_and_without_charts(opened: Opening) -> None:
    hold = asyncio.Event()
    async with opened(undoing([], hold), docs(), charts=[COUNTER]) as orchestrator:
        for number in range(5):
            await orchestrator.execute("trip", id=f"e-{number}")
        await orchestrator.engine.start("counter", id="e-2b")
        await _until_paying(orchestrator, "e-1")
        await orchestrator.pause("e-1")
        await orchestrator.execute_and_wait("docs", {"path": "a"}, id="e-9", timeout=PATIENCE_S)

        assert [one.execution_id for one in await orchestrator.active_executions()] == [f"e-{n}" for n in range(5)]
        page = await orchestrator.active_executions("trip", limit=2, after="e-0")
        assert [(one.execution_id, one.status) for one in page] == [("e-1", "paused"), ("e-2", "running")]
        assert await orchestrator.active_executions("docs") == []
