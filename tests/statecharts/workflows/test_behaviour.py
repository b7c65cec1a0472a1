"""What workflows do, played through purely: one test for each thing that a workflow can say."""

from __future__ import annotations

from typing import Any

from statewright.statecharts.simulate import Simulation, parse_token
from statewright.statecharts.workflows import Workflow


class Played:
    """An execution whose steps end when they are told to. `status`: the last record of each step."""

    def __init__(self, workflow: Workflow, **context: Any) -> None:
        self.simulation = Simulation(workflow.chart(), context)
        self.line = self.simulation.begin()

    def __call__(self, *tokens: str) -> Played:
        """`load` ends the step, `load!` has it fail, anything with a dot, `=` or `+` is a token as it is."""
        for token in tokens:
            if token.endswith("!"):
                token = f'error.effect.{token[:-1]}={{"message": "no"}}'
            elif not any(mark in token for mark in ".=+"):
                token = f"done.effect.{token}"
            self.line = self.simulation.feed(parse_token(token))
            assert self.simulation.reason == ""
        return self

    @property
    def status(self) -> dict[str, str]:
        return {record.step: record.status for step in self.simulation.steps for record in step.records}

    @property
    def running(self) -> list[str]:
        return sorted(step for step, status in self.status.items() if status == "running")

    @property
    def ended(self) -> tuple[str, Any]:
        return self.line.status, self.line.context["error"]


def steps(workflow: Workflow, text: str) -> Workflow:
    """Adds steps: `a b<a c<a,b` are `a`, `b` that depends on it, and `c` that depends on both."""
    for word in text.split():
        name, _, needed = word.partition("<")
        workflow.add_step(id=name, function="f", dependencies=needed.split(",") if needed else [])
    return workflow


def test_a_sequence_runs_one_step_after_the_other() -> None:
    played = Played(steps(Workflow("w"), "a b c"))
    seen = [played.running, *(played(step).running for step in "abc")]
    assert seen == [["a"], ["b"], ["c"], []]
    assert played.ended == ("completed", None)
    assert played.line.context["completed"] == 3


def test_independent_steps_run_at_once_and_a_join_waits_for_all() -> None:
    played = Played(steps(Workflow("w", mode="parallel"), "a b c<a,b"))
    assert played.running == ["a", "b"]
    assert played("b").running == ["a"]
    assert played("a").running == ["c"]
    assert played("c").ended == ("completed", None)


def test_many_may_wait_for_one_and_several_for_the_same() -> None:
    played = Played(steps(Workflow("w", mode="parallel"), "a b<a c<a d<b,c e<c,b f<d,e"))
    assert played("a").running == ["b", "c"]
    assert played("c", "b").running == ["d", "e"]
    assert played("e", "d", "f").ended == ("completed", None)


def branching(mode: Any) -> Workflow:
    workflow = steps(Workflow("w", mode=mode), "count big small report<big,small")
    return workflow.add_conditional_branch("count", "steps.count.rows > 10", then="big", otherwise="small")


def test_a_branch_runs_one_side_and_in_conditional_mode_a_join_runs_after_either() -> None:
    played = Played(branching("conditional"))('done.effect.count={"rows": 50}')
    assert played.running == ["big"]
    assert played("big").running == ["report"]
    assert played.status["small"] == "skipped"
    played = Played(branching("parallel"))('done.effect.count={"rows": 5}', "small")
    assert played.status == {"count": "completed", "small": "completed", "big": "skipped", "report": "skipped"}
    assert played.ended == ("completed", None)


def test_an_any_join_says_so_in_any_mode() -> None:
    for mode in ("parallel", "sequential", "pipeline"):
        workflow = steps(Workflow("w", mode=mode), "a b")
        workflow.add_step(id="c", function="f", dependencies=["a", "b"], join="any")
        workflow.add_conditional_branch("a", "false", then=["b"])
        assert Played(workflow)("a").running == ["c"]


def test_a_condition_skips_and_what_depends_on_it_too() -> None:
    workflow = steps(Workflow("w"), "a").add_step(id="b", function="f", condition="input.b")
    played = Played(steps(workflow, "c<b d e<a,b"), input={"b": False})("a")
    assert played.running == ["d"]
    assert played("d").status["e"] == "skipped"
    assert played.line.context["skipped"] == 3


def test_has_asks_whether_a_step_has_data() -> None:
    for condition, running in (("has(steps.a)", ["c"]), ("!has(steps.a)", []), ("!has(steps.b)", ["c"])):
        workflow = steps(Workflow("w"), "a").add_step(id="b", function="f", condition="false")
        workflow.add_step(id="c", function="f", condition=condition)
        assert Played(workflow)("done.effect.a={}").running == running


def test_a_condition_that_fails_aborts() -> None:
    workflow = steps(Workflow("w"), "a").add_step(id="b", function="f", condition="steps.a.rows > 1")
    status, error = Played(workflow)('done.effect.a={"lines": 2}').ended
    assert status == "failed"
    assert 'Key not found in map : "rows"' in error
    workflow = steps(Workflow("w"), "a").add_step(id="b", function="f", condition="steps.a.rows")
    status, error = Played(workflow)('done.effect.a={"rows": 2}').ended
    assert (status, error.rpartition(": ")[2]) == (
        "failed",
        "expected a condition that is true or false, it is neither",
    )


def test_a_failure_aborts_and_undoes_in_the_reverse_order_of_completion() -> None:
    workflow = steps(Workflow("w", mode="parallel"), "a b c d<c")
    for step in "abc":
        workflow.add_rollback_step(step, function="f")
    played = Played(workflow)("b", "a", "c", "d!")
    assert played.running == ["undo_c"]
    assert played("undo_c", "undo_a!").running == ["undo_b"]
    assert played("undo_b").ended == ("failed", "step 'd' failed: no")
    assert {step: status for step, status in played.status.items() if step.startswith("undo")} == {
        "undo_c": "compensated",
        "undo_a": "compensation_failed",
        "undo_b": "compensated",
    }


def test_an_abort_cancels_what_runs() -> None:
    played = Played(steps(Workflow("w", mode="parallel"), "a b c"))("a", "b!")
    assert played.status == {"a": "completed", "b": "failed", "c": "cancelled"}
    assert played.ended == ("failed", "step 'b' failed: no")


def test_a_step_may_have_its_own_failure_undone() -> None:
    workflow = Workflow("w").add_step(id="store", function="f", compensate_failure=True)
    workflow.add_rollback_step("store", id="clean", function="f")
    assert Played(workflow)("store!").running == ["clean"]
    assert Played(workflow)("workflow.cancel").running == ["clean"]
    assert Played(workflow)("store").ended == ("completed", None)


def test_skip_continue_and_optional_steps() -> None:
    workflow = Workflow("w", mode="parallel")
    for name, fields in (("a", {"on_error": "skip"}), ("b", {"on_error": "continue"}), ("c", {"critical": False})):
        workflow.add_step({"id": name, "function": "f", **fields})
    played = Played(steps(workflow, "d<a e<b f<c"))("a!", "b!", "c!")
    assert played.status["d"] == "skipped"
    assert played.running == ["e", "f"]
    assert played.simulation.steps[-1].logs == ("warning: step 'c' failed: no",)
    assert (played.line.context["failed"], played.line.context["skipped"]) == (2, 2)


def test_a_fallback_is_done_in_the_place_of_a_step() -> None:
    workflow = Workflow("w").add_step(id="a", function="f", on_error={"fallback": "spare"})
    workflow.add_step(id="spare", function="f").add_step(id="b", function="f", condition="steps.a.rows == 2")
    played = Played(workflow)("a!")
    assert played.running == ["spare"]
    assert played('done.effect.spare={"rows": 2}').running == ["b"]
    unused = Played(workflow)('done.effect.a={"rows": 1}')
    assert unused.status == {"a": "completed", "spare": "skipped", "b": "skipped"}


def test_a_group_is_merged_and_its_first_failure_cancels_the_others() -> None:
    workflow = steps(Workflow("w"), "a x y z m").add_parallel_group("g", ["x", "y", "z"], merge="m")
    assert Played(workflow)("a").running == ["x", "y", "z"]
    assert Played(workflow)("a", "z", "x", "y").running == ["m"]
    played = Played(workflow)("a", "x", "y!")
    assert played.status == {"a": "completed", "x": "completed", "y": "failed", "z": "cancelled"}
    assert played.ended[0] == "failed"


def test_a_group_with_a_deadline_takes_what_is_there() -> None:
    workflow = steps(Workflow("w"), "x y z m")
    workflow.add_parallel_group("g", ["x", "y", "z"], merge="m", on_failure="partial", deadline="10s")
    played = Played(workflow)("x", "y!", "+9s")
    assert played.running == ["z"]
    assert played("+1s").running == ["m"]
    assert played.status["z"] == "cancelled"
    assert played("m", "+1h").ended == ("completed", None)


def test_concurrency_is_limited_and_the_first_to_wait_is_the_first_to_run() -> None:
    played = Played(steps(Workflow("w", mode="parallel", concurrency=2), "a b c d e<a"))
    assert played.running == ["a", "b"]
    assert played("b").running == ["a", "c"]
    assert played("a").running == ["c", "d"]
    assert played("c").running == ["d", "e"]
    assert played("d", "e").line.context["free"] == 2


def test_a_workflow_that_takes_too_long_is_aborted() -> None:
    played = Played(steps(Workflow("w", timeout="1m"), "a"))("+60s")
    assert played.ended == ("failed", "it took longer than 1m")
    assert played.status == {"a": "cancelled"}


def test_it_is_cancelled_and_aborted_from_outside() -> None:
    workflow = steps(Workflow("w"), "a b").add_rollback_step("a", function="f")
    assert Played(workflow)("a", "workflow.cancel", "undo_a").ended == ("cancelled", "cancelled")
    reason = 'workflow.abort={"reason": "no budget"}'
    assert Played(workflow)("a", reason, "undo_a").ended == ("failed", "no budget")


def test_in_a_transaction_it_waits_to_be_committed() -> None:
    workflow = steps(Workflow("w"), "a").add_rollback_step("a", function="f")
    played = Played(workflow, transaction="t-1")("a")
    assert played.line.leaves == ("prepared",)
    assert played("workflow.commit").ended == ("completed", None)
    undone = Played(workflow, transaction="t-1")("a", "workflow.rollback", "undo_a")
    assert undone.ended == ("cancelled", "the transaction was rolled back")


def test_ids_with_dashes_are_told_apart() -> None:
    workflow = steps(Workflow("w"), "a-b a_b")
    workflow.add_step(id="c", function="f", condition="steps['a-b'].n == 1 && steps.a_b.n == 2 && 'steps.x' != ''")
    assert Played(workflow)('done.effect.a-b={"n": 1}', 'done.effect.a_b={"n": 2}').running == ["c"]


def test_a_thousand_steps_that_are_skipped_one_after_the_other() -> None:
    workflow = Workflow("w", mode="parallel").add_step(id="s0", function="f", condition="false")
    for number in range(1, 1000):
        workflow.add_step(id=f"s{number}", function="f", dependencies=[f"s{number - 1}"])
    played = Played(workflow)
    assert played.line.context["skipped"] == 1000
    assert played.ended == ("completed", None)
