"""Checkpoints: named once, resumed from whatever has become of the execution, which does nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from statewright.engine.errors import InvalidError
from statewright.engine.workflows import CheckpointExists, CheckpointNotFound, ExecutionNotFound, InvalidState
from statewright.statecharts.workflows import WorkflowStep
from tests.engine.charts import COUNTER
from tests.engine.workflows.staged import Stage
from tests.engine.worlds import until


async def checkpoint_after_b(stage: Stage) -> None:
    """The execution "e" of a, b, c, d waits in c, and "half" was taken there."""
    stage.held = {"c"}
    await stage.orchestrator.execute("w", {"path": "x"}, id="e")
    await stage.until_begun("c")
    await stage.orchestrator.checkpoint("e", "half", actor="ann")


@pytest.mark.parametrize("end", ["active", "paused", "failed", "completed", "cancelled"])
async def test_what_was_done_by_then_is_not_done_again(stage: Stage, end: str) -> None:
    async with stage.opened(stage.line()) as orchestrator:
        await checkpoint_after_b(stage)
        if end == "paused":
            await orchestrator.pause("e")
        elif end == "cancelled":
            await orchestrator.cancel("e")
        elif end != "active":
            stage.failing = {"d"} if end == "failed" else set()
            stage.let_go("c")
            assert (await stage.over()).status == end
        stage.failing, stage.ran = set(), []
        before = set(stage.effects)

        outcome = await orchestrator.resume_from("e", "half", reason="once more", actor="ann")

        assert (outcome.kind, outcome.status) == ("recorded", "active")
        stage.let_go("c")
        status = await stage.over()
        assert (status.status, status.completed_steps, status.failed_steps, status.progress) == ("completed", 4, 0, 1.0)
        assert stage.ran == ["c", "d"]
        assert not before.intersection(stage.effects[-2:])
        assert await stage.statuses() == dict.fromkeys("abcd", "completed")
        results = await orchestrator.step_results("e")
        assert {step: result.data["by"] for step, result in results.items()} == {step: step for step in "abcd"}


async def test_it_survives_the_process(stage: Stage) -> None:
    async with stage.opened(stage.line()):
        await checkpoint_after_b(stage)
    stage.held, stage.failing = set(), {"d"}
    async with stage.opened() as orchestrator:
        assert (await stage.over()).status == "failed"
        stage.held = {"c"}
        await orchestrator.resume_from("e", "half")
    stage.held, stage.failing, stage.ran = set(), set(), []
    async with stage.opened():
        assert (await stage.over()).status == "completed"
        assert stage.ran == ["c", "d"]


async def test_what_ran_at_the_checkpoint_is_asked_for_anew_and_cancelled_where_it_runs(stage: Stage) -> None:
    steps = [stage.step("a"), stage.step("b"), stage.step("c", "a", "b")]
    async with stage.opened(stage.workflow(*steps, mode="parallel")) as orchestrator:
        stage.held = {"a", "b"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("a")
        await stage.until_begun("b")
        await orchestrator.checkpoint("e", "begun")
        await orchestrator.resume_from("e", "begun")
        rows = await orchestrator.engine.effects("e")
        assert sorted((row.name, row.state != "cancelled") for row in rows) == [
            ("a", False),
            ("a", True),
            ("b", False),
            ("b", True),
        ]
        stage.let_go("a", "b")
        assert (await stage.over()).status == "completed"
        assert sorted(stage.ran) == ["a", "a", "b", "b", "c"]


async def test_a_join_counts_what_was_done_before(stage: Stage) -> None:
    steps = [stage.step("a"), stage.step("b"), stage.step("c"), stage.step("d", "a", "b", "c")]
    async with stage.opened(stage.workflow(*steps, mode="parallel")) as orchestrator:
        stage.held = {"c", "b"}
        await orchestrator.execute("w", id="e")
        await until_completed(stage, "a")
        stage.let_go("b")
        await until_completed(stage, "b")
        await orchestrator.checkpoint("e", "two of three")
        stage.failing = {"c"}
        stage.let_go("c")
        assert (await stage.over()).status == "failed"
        stage.failing, stage.ran = set(), []
        await orchestrator.resume_from("e", "two of three")
        assert (await stage.over()).status == "completed"
        assert stage.ran == ["c", "d"]


async def until_completed(stage: Stage, step: str) -> None:
    async def completed() -> bool:
        return (await stage.orchestrator.step_result("e", step)).status == "completed"

    await until(completed, f"step '{step}' to complete")


async def test_conditions_limits_and_policies_stand_as_they_did(stage: Stage) -> None:
    """A skipped step, a failed optional one, a limit of concurrency."""
    steps = [
        stage.step("a"),
        stage.step("b", condition="steps.a.run > 1"),
        stage.step("c", critical=False),
        stage.step("d", "a", "c"),
        stage.step("e", "d", condition="has(steps.a)"),
        stage.step("f", "b"),
    ]
    steps[1] = stage.step("b", "a", condition="steps.a.run > 1")
    steps[4] = stage.step("e", "d", "a", condition="steps.a.run == 1")
    stage.failing, stage.held = {"c"}, {"d"}
    async with stage.opened(stage.workflow(*steps, mode="parallel", concurrency=2)) as orchestrator:
        await orchestrator.execute("w", id="e")
        await stage.until_begun("d")
        await orchestrator.checkpoint("e", "here")
        before = await orchestrator.status("e")
        stage.let_go("d")
        assert (await stage.over()).status == "completed"
        stage.ran = []
        stage.held = {"d"}
        await orchestrator.resume_from("e", "here")
        await stage.until_begun("d")
        after = await orchestrator.status("e")
        assert (after.completed_steps, after.failed_steps, after.skipped_steps) == (
            before.completed_steps,
            before.failed_steps,
            before.skipped_steps,
        )
        stage.let_go("d")
        assert (await stage.over()).status == "completed"
        assert stage.ran == ["d", "e"]
        assert await stage.statuses() == {
            "a": "completed",
            "b": "skipped",
            "c": "failed",
            "d": "completed",
            "e": "completed",
            "f": "skipped",
        }


async def test_what_was_compensated_runs_again_with_what_comes_after_it(stage: Stage) -> None:
    async with stage.opened(stage.line("abcd", undo="b")) as orchestrator:
        stage.held = {"d"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("d")
        await orchestrator.checkpoint("e", "before d")
        stage.failing = {"d"}
        stage.let_go("d")
        assert (await stage.over()).status == "failed"
        assert stage.ran == ["a", "b", "c", "d", "undo_b"]
        stage.failing, stage.ran = set(), []
        await orchestrator.resume_from("e", "before d")
        assert (await stage.over()).status == "completed"
        assert stage.ran == ["b", "c", "d"]
        assert await stage.statuses() == dict.fromkeys("abcd", "completed")


async def test_what_was_done_after_it_is_undone_once_by_a_later_rollback(stage: Stage) -> None:
    async with stage.opened(stage.line("abcd", undo="abc")) as orchestrator:
        stage.held = {"b"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("b")
        await orchestrator.checkpoint("e", "after a")
        stage.held = {"d"}
        stage.let_go("b")
        await stage.until_begun("d")

        # Before b is done again: its first time is undone.
        stage.held |= {"b"}
        await orchestrator.resume_from("e", "after a")
        await stage.until_begun("b", 2)
        stage.ran = []
        await orchestrator.cancel("e", compensate=True)
        assert (await stage.over()).status == "cancelled"
        assert stage.ran == ["undo_c", "undo_b", "undo_a"]


async def test_what_is_undone_before_it_is_done_again_is_told_what_it_had_done(stage: Stage) -> None:
    rollback = WorkflowStep(id="undo_b", function=stage.function, parameters={"what": "${steps.b.run}"}, max_retries=0)
    steps = [stage.step("a"), stage.step("b", rollback=rollback), stage.step("c")]
    async with stage.opened(stage.workflow(*steps)) as orchestrator:
        stage.held = {"a", "c"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("a")
        await orchestrator.checkpoint("e", "begun")
        stage.let_go("a")
        await stage.until_begun("c")
        stage.held.add("a")
        await orchestrator.resume_from("e", "begun")
        await stage.until_begun("a", 2)
        await orchestrator.cancel("e", compensate=True)
        assert (await stage.over()).status == "cancelled"
        result = await orchestrator.step_result("e", "undo_b")
        assert (result.status, result.data["what"]) == ("compensated", 1)


async def test_what_is_done_again_is_undone_once_and_in_its_new_place(stage: Stage) -> None:
    async with stage.opened(stage.line("abcd", undo="abc")) as orchestrator:
        stage.held = {"b"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("b")
        await orchestrator.checkpoint("e", "after a")
        stage.held = {"d"}
        stage.let_go("b")
        await stage.until_begun("d")
        await orchestrator.resume_from("e", "after a")
        await stage.until_begun("d", 2)
        stage.ran, stage.failing = [], {"d"}
        stage.let_go("d")
        assert (await stage.over()).status == "failed"
        assert stage.ran == ["undo_c", "undo_b", "undo_a"]


async def test_from_an_earlier_one_and_then_from_a_later_one(stage: Stage) -> None:
    """What was done by the later one is not done again, although the earlier one had it begin again."""
    async with stage.opened(stage.line("abc")) as orchestrator:
        stage.held = {"a"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("a")
        await orchestrator.checkpoint("e", "first")
        stage.held = {"c"}
        stage.let_go("a")
        await stage.until_begun("c")
        await orchestrator.checkpoint("e", "later")
        stage.held = {"a", "c"}
        await orchestrator.resume_from("e", "first")
        await stage.until_begun("a", 2)
        await orchestrator.resume_from("e", "later")
        await stage.until_begun("c", 2)
        assert stage.ran == ["a", "b", "c", "a", "c"]
        result = await orchestrator.step_result("e", "a")
        assert (result.status, result.data["run"]) == ("completed", 1)
        stage.let_go("c")
        assert (await stage.over()).status == "completed"


async def test_the_workflows_timeout_begins_again(stage: Stage) -> None:
    async with stage.opened(stage.line("ab", timeout="1h")) as orchestrator:
        stage.held = {"b"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("b")
        await orchestrator.checkpoint("e", "here")
        first = await due_at(stage)
        await orchestrator.resume_from("e", "here")
        assert await due_at(stage) > first


async def due_at(stage: Stage) -> int:
    engine = stage.orchestrator.engine
    (row,) = await engine.on_reader(engine.recorder.select_timers, "e")
    due: int = row.due_at
    return due


async def test_bad_input_gets_its_error(stage: Stage) -> None:
    async with stage.opened(stage.line("abc", undo="ab"), charts=[COUNTER]) as orchestrator:
        with pytest.raises(ExecutionNotFound, match="no execution 'e'"):
            await orchestrator.checkpoint("e", "x")
        with pytest.raises(ExecutionNotFound, match="no execution 'e'"):
            await orchestrator.resume_from("e", "x")
        await orchestrator.engine.start("counter", id="n")
        with pytest.raises(ExecutionNotFound, match="not of a workflow"):
            await orchestrator.checkpoint("n", "x")
        stage.held = {"c"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("c")
        await orchestrator.checkpoint("e", "here")
        with pytest.raises(CheckpointExists, match="'e' has a checkpoint 'here' already, taken at sequence 4"):
            await orchestrator.checkpoint("e", "here")
        bad: Any
        for bad, said in (("", "expected a name"), (7, "to be a text"), ("x" * 300, "at most 256 characters")):
            with pytest.raises(InvalidError, match=said):
                await orchestrator.checkpoint("e", bad)
        with pytest.raises(CheckpointNotFound, match="has no checkpoint 'there'; there are: here"):
            await orchestrator.resume_from("e", "there")
        stage.held = {"undo_b"}
        stage.failing = {"c"}
        stage.let_go("c")
        await stage.until_begun("undo_b")
        with pytest.raises(InvalidState, match="it is rolling back"):
            await orchestrator.checkpoint("e", "late")
        with pytest.raises(InvalidState, match="it rolls back"):
            await orchestrator.resume_from("e", "here")
        stage.let_go("undo_b")
        assert (await stage.over()).status == "failed"
        with pytest.raises(InvalidState, match="execution 'e' is failed"):
            await orchestrator.checkpoint("e", "late")
