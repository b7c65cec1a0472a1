"""A running workflow is changed: what has not started may be added, replaced and removed; what runs goes on."""

from __future__ import annotations

from typing import Any

import pytest

from statewright.engine.errors import InvalidError
from statewright.engine.workflows import ExecutionNotFound, InvalidState
from statewright.statecharts.workflows import InvalidWorkflow, Workflow, WorkflowStep
from tests.engine.workflows.staged import Stage
from tests.engine.worlds import until


async def begun(stage: Stage, *steps: str) -> None:
    """The execution "e", with these steps running."""
    stage.held |= set(steps)
    await stage.orchestrator.execute("w", {"path": "x"}, id="e")
    for step in steps:
        await stage.until_begun(step)


async def test_steps_are_added_replaced_and_removed_while_one_runs(stage: Stage) -> None:
    async with stage.opened(stage.line("abcd")) as orchestrator:
        await begun(stage, "b")
        outcome = await orchestrator.change(
            "e",
            add=[stage.step("x", "b"), stage.step("y")],
            replace=[stage.step("c", parameters={"from": "${steps.x.by}"})],
            remove=["d"],
            reason="the plan has changed",
            actor="ann",
        )
        assert (outcome.kind, outcome.status) == ("recorded", "active")
        row = await orchestrator.engine.status("e")
        assert row.version.startswith("1+")
        stage.let_go("b")
        status = await stage.over()
        assert (status.status, status.completed_steps, status.total_steps) == ("completed", 5, 5)
        assert stage.ran == ["a", "b", "x", "c", "y"]
        assert (await orchestrator.step_result("e", "c")).data["from"] == "x"
        assert await stage.statuses() == dict.fromkeys("abxcy", "completed")
        fact = (await orchestrator.engine.history("e", after=2, to=3))[0]
        assert (fact.__struct_config__.tag, fact.exited, fact.effects) == ("instance_modified", (), ())
        # Others run what they always ran.
        assert (await orchestrator.get_workflow("w")).version == "1"
        stage.ran = []
        await orchestrator.execute_and_wait("w", id="other", timeout=10)
        assert stage.ran == ["a", "b", "c", "d"]


async def test_what_can_run_at_once_does(stage: Stage) -> None:
    """Lanes are laid out anew: one that was alone is one of several, a step follows another than before."""
    steps = [stage.step("a"), stage.step("b", "a"), stage.step("c", "b")]
    async with stage.opened(stage.workflow(*steps, mode="parallel")) as orchestrator:
        await begun(stage, "b")
        held = (await orchestrator.engine.effects("e"))[-1].effect_id
        stage.held.add("x")
        await orchestrator.change(
            "e",
            add=[stage.step("x", "a"), stage.step("y")],
            replace=[stage.step("c", "b", "x", "y", parameters={"x": "${steps.x.by}"})],
        )
        await stage.until_begun("x")
        await stage.until_begun("y")
        stage.let_go("b")
        await until(lambda: completed(stage, "b"), "b to complete")
        stage.let_go("x")
        assert (await stage.over()).status == "completed"
        assert sorted(stage.ran) == ["a", "b", "c", "x", "y"]
        assert stage.ran[-1] == "c"
        states = {row.effect_id: row.state for row in await orchestrator.engine.effects("e")}
        assert states[held] == "done"
        assert set(states.values()) == {"done"}


async def completed(stage: Stage, step: str) -> bool:
    return (await stage.orchestrator.step_result("e", step)).status == "completed"


async def test_joins_conditions_and_counters_are_those_of_the_results(stage: Stage) -> None:
    steps = [stage.step("a"), stage.step("b"), stage.step("c"), stage.step("d", "a", "b", "c", undo=True)]
    stage.failing = {"b"}
    steps[1] = stage.step("b", critical=False)
    async with stage.opened(stage.workflow(*steps, mode="parallel")) as orchestrator:
        stage.held = {"c"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("c")
        await until(lambda: completed(stage, "a"), "a to complete")
        await until(lambda: failed(stage, "b"), "b to fail")
        await orchestrator.change(
            "e",
            add=[
                stage.step("yes", "a", condition="steps.a.run == 1"),
                stage.step("no", "a", condition="steps.a.run > 1"),
                stage.step("after", "no"),
            ],
        )
        await until(lambda: completed(stage, "yes"), "the new step to complete")
        status = await orchestrator.status("e")
        assert (status.completed_steps, status.failed_steps, status.skipped_steps) == (2, 1, 2)
        stage.let_go("c")
        assert (await stage.over()).status == "completed"
        assert await stage.statuses() == {
            "a": "completed",
            "b": "failed",
            "c": "completed",
            "d": "completed",
            "yes": "completed",
            "no": "skipped",
            "after": "skipped",
        }


async def failed(stage: Stage, step: str) -> bool:
    return (await stage.orchestrator.step_result("e", step)).status == "failed"


async def test_a_limit_of_concurrency_holds_on(stage: Stage) -> None:
    steps = [stage.step(one) for one in "abcd"]
    async with stage.opened(stage.workflow(*steps, mode="parallel", concurrency=2)) as orchestrator:
        await begun(stage, "a", "b")
        stage.held |= {"c", "d", "x"}
        await orchestrator.change("e", add=[stage.step("x")], remove=["c"])
        assert sorted(stage.ran) == ["a", "b"]
        stage.let_go("a")
        await stage.until_begun("d")
        assert (await orchestrator.status("e")).current_steps == ("b", "d")
        stage.let_go("b", "d", "x")
        assert (await stage.over()).status == "completed"
        assert sorted(stage.ran) == ["a", "b", "d", "x"]


async def test_a_new_step_can_be_undone(stage: Stage) -> None:
    async with stage.opened(stage.line("ab", undo="a")) as orchestrator:
        await begun(stage, "b")
        await orchestrator.change("e", add=[stage.step("x", undo=True), stage.step("y")])
        stage.failing = {"y"}
        stage.let_go("b")
        assert (await stage.over()).status == "failed"
        assert stage.ran == ["a", "b", "x", "y", "undo_x", "undo_a"]


async def test_twice_paused_restarted_and_back_to_a_checkpoint(stage: Stage) -> None:
    async with stage.opened(stage.line("abc")) as orchestrator:
        await begun(stage, "b")
        await orchestrator.checkpoint("e", "start")
        await orchestrator.change("e", add=[stage.step("x")])
        await orchestrator.pause("e")
        await orchestrator.change("e", remove=["c"], add=[stage.step("y")])
        assert (await orchestrator.status("e")).status == "paused"
        version = (await orchestrator.engine.status("e")).version
        assert version.count("+") == 1
    stage.ran, stage.held = [], set()
    async with stage.opened() as orchestrator:
        await orchestrator.resume("e")
        assert (await stage.over()).status == "completed"
        assert stage.ran == ["b", "x", "y"]
        assert (await orchestrator.engine.status("e")).version == version
        stage.ran = []
        await orchestrator.resume_from("e", "start")
        assert (await stage.over()).status == "completed"
        assert stage.ran == ["b", "x", "y"]


async def test_the_same_change_of_two_executions_is_one_definition(stage: Stage) -> None:
    async with stage.opened(stage.line("abc")) as orchestrator:
        stage.held = {"a"}
        for execution in ("e", "f"):
            await orchestrator.execute("w", id=execution)
            await orchestrator.change(execution, remove=["c"])
        rows = [await orchestrator.engine.status(execution) for execution in ("e", "f")]
        assert rows[0].digest == rows[1].digest
        stored = await orchestrator.engine.on_reader(orchestrator.engine.recorder.select_definitions)
        assert [row.version for row in stored if row.name == "w"] == ["1", rows[0].version]


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({}, InvalidError, "expected steps to add, to replace or to remove, got none"),
        ({"remove": ["zz"]}, InvalidError, "has no step 'zz' that could be changed"),
        ({"remove": ["a"]}, InvalidState, "expected step 'a' of execution 'e' not to have started, it is completed"),
        ({"remove": ["b"]}, InvalidState, "expected step 'b' of execution 'e' not to have started, it is running"),
        ({"replace": [{"id": "b", "plugin": "p"}]}, InvalidState, "step 'b' of execution 'e' not to have started"),
        ({"replace": [{"plugin": "p"}]}, InvalidError, "has no step 'None'"),
        ({"remove": ["c"]}, InvalidWorkflow, "there is no step 'c'"),
        ({"add": [{"id": "c", "plugin": "p", "method": "m"}]}, InvalidWorkflow, "the id 'c' is given twice"),
        ({"add": [{"id": "x", "plugin": "p", "dependencies": ["q"]}]}, InvalidWorkflow, "there is no step 'q'"),
        ({"add": [{"id": "x"}]}, InvalidWorkflow, "one of function, plugin and service"),
        ({"add": [{"id": "x", "plugin": "p", "what": 1}]}, InvalidWorkflow, "what"),
        ({"remove": "cd"}, InvalidError, "expected a list of steps to remove, got str"),
        ({"add": {"id": "x", "plugin": "p", "method": "m"}}, InvalidError, "expected a list of steps to add, got dict"),
        ({"add": [7]}, InvalidError, "expected a WorkflowStep or its fields, got int"),
        (
            {
                "add": [{"id": "x", "plugin": "p", "method": "m", "dependencies": ["c"]}],
                "replace": [{"id": "c", "plugin": "p", "method": "m", "dependencies": ["x"]}],
            },
            InvalidWorkflow,
            "circle: ",
        ),
    ],
)
async def test_a_bad_change_gets_its_error_and_changes_nothing(
    stage: Stage, asked: dict[str, Any], error: type[Exception], said: str
) -> None:
    steps = [stage.step("a"), stage.step("b", "a"), stage.step("c", "b"), stage.step("d", "c")]
    async with stage.opened(stage.workflow(*steps, mode="parallel")) as orchestrator:
        await begun(stage, "b")
        before = await orchestrator.engine.status("e")
        with pytest.raises(error) as raised:
            await orchestrator.change("e", **asked)
        assert said in str(raised.value)
        assert await orchestrator.engine.status("e") == before
        stored = await orchestrator.engine.on_reader(orchestrator.engine.recorder.select_definitions)
        assert [row.version for row in stored] == ["1"]
        stage.let_go("b")
        assert (await stage.over()).status == "completed"


async def test_what_has_ended_or_rolls_back_is_not_changed(stage: Stage) -> None:
    async with stage.opened(stage.line("ab", undo="a")) as orchestrator:
        with pytest.raises(ExecutionNotFound):
            await orchestrator.change("e", remove=["b"])
        stage.failing, stage.held = {"b"}, {"undo_a"}
        await orchestrator.execute("w", id="e")
        await stage.until_begun("undo_a")
        with pytest.raises(InvalidState, match="expected execution 'e' to have steps to do, it is rolling back"):
            await orchestrator.change("e", add=[stage.step("x")])
        stage.let_go("undo_a")
        assert (await stage.over()).status == "failed"
        with pytest.raises(InvalidState, match="expected execution 'e' to run, it is failed"):
            await orchestrator.change("e", add=[stage.step("x")])


async def test_another_function_of_a_known_name_is_refused(stage: Stage) -> None:
    def play() -> None:
        """Not that of the stage."""

    async with stage.opened(stage.line("ab")) as orchestrator:
        await begun(stage, "a")
        with pytest.raises(InvalidError, match="workflow 'w' has another function 'play'"):
            await orchestrator.change("e", add=[WorkflowStep(id="x", function=play)])
        assert (await orchestrator.engine.status("e")).version == "1"
        stage.let_go("a")
        await stage.over()


async def test_a_changed_workflow_reads_like_any_other(stage: Stage) -> None:
    async with stage.opened(stage.line("ab")) as orchestrator:
        await begun(stage, "a")
        await orchestrator.change("e", add=[stage.step("x")])
        row = await orchestrator.engine.status("e")
        chart = await orchestrator.engine.on_reader(
            orchestrator.engine.definitions.pinned, row.definition, row.version, row.digest
        )
        workflow = Workflow.of(chart.definition)
        assert workflow is not None
        assert [step.id for step in workflow.steps] == ["a", "b", "x"]
        assert workflow.version == row.version
        stage.let_go("a")
        await stage.over()
