"""Several executions that are made final together, or undone together, whatever happens in between."""

from __future__ import annotations

import msgspec
import pytest

from statewright.engine import ManualClock
from statewright.engine.errors import AlreadyExistsError, InvalidError
from statewright.engine.workflows import ExecutionTimeout, InvalidState, TransactionNotFound, WorkflowNotFound
from statewright.statecharts.workflows import Workflow
from tests.engine.workflows.staged import Stage
from tests.engine.worlds import PATIENCE_S, until


def flow(stage: Stage, name: str, undo: str) -> Workflow:
    """Two steps, `<name>1` and `<name>2`, of which those in `undo` can be undone."""
    workflow = Workflow(name)
    for number in "12":
        workflow.add_step(stage.step(f"{name}{number}", undo=number in undo))
    return workflow


def flows(stage: Stage) -> list[Workflow]:
    return [flow(stage, name, "12") for name in "pqr"]


async def begun(stage: Stage, *names: str, timeout: str = "1h") -> str:
    """A transaction over executions of these workflows, each with the id of its workflow."""
    transaction = await stage.orchestrator.begin_transaction(timeout, id="t")
    for name in names:
        assert await stage.orchestrator.execute(name, {"of": name}, id=name, transaction=transaction) == name
    return transaction


async def statuses(stage: Stage, *executions: str) -> list[str]:
    return [(await stage.orchestrator.status(execution)).status for execution in executions]


async def until_status(stage: Stage, wanted: str, transaction: str = "t") -> None:
    async def reached() -> bool:
        return (await stage.orchestrator.transaction_status(transaction)).status == wanted

    await until(reached, f"the transaction to be {wanted}")


async def test_commit_makes_all_of_them_final(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        transaction = await begun(stage, "p", "q")
        assert [(await stage.over(name)).status for name in "pq"] == ["prepared", "prepared"]
        status = await orchestrator.transaction_status(transaction)
        assert (status.status, status.members, status.ended_at) == ("open", ("p", "q"), None)
        done = await orchestrator.commit_transaction(transaction, timeout=PATIENCE_S)
        assert (done.status, sorted(done.prepared), done.failures) == ("committed", ["p", "q"], ())
        assert [(await stage.over(name)).status for name in "pq"] == ["completed", "completed"]
        assert not any(step.startswith("undo") for step in stage.ran)
        with pytest.raises(InvalidState, match="can't be rolled back: it is committed"):
            await orchestrator.rollback_transaction(transaction)
        assert (await orchestrator.commit_transaction(transaction)).status == "committed"


async def test_commit_waits_for_those_that_run(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        stage.held = {"q2"}
        transaction = await begun(stage, "p", "q")
        await stage.until_begun("q2")
        with pytest.raises(ExecutionTimeout):
            await orchestrator.commit_transaction(transaction, timeout=0)
        assert (await orchestrator.transaction_status(transaction)).status == "preparing"
        stage.let_go("q2")
        await until_status(stage, "committed")
        assert [(await stage.over(name)).status for name in "pq"] == ["completed", "completed"]


async def test_rollback_undoes_the_newest_first_and_stops_what_runs(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        stage.held = {"q2"}
        transaction = await begun(stage, "p", "q", "r")
        await stage.until_begun("q2")
        await stage.over("p")
        await stage.over("r")
        stage.ran = []
        done = await orchestrator.rollback_transaction(transaction, reason="not today", timeout=PATIENCE_S)
        assert (done.status, done.error, done.failures) == ("rolled_back", "not today", ())
        assert stage.ran == ["undo_r2", "undo_r1", "undo_q1", "undo_p2", "undo_p1"]
        assert await statuses(stage, "p", "q", "r") == ["cancelled"] * 3
        assert (await orchestrator.rollback_transaction(transaction)).status == "rolled_back"
        with pytest.raises(InvalidState, match="'t' was rolled back: not today"):
            await orchestrator.commit_transaction(transaction)
        assert stage.ran == ["undo_r2", "undo_r1", "undo_q1", "undo_p2", "undo_p1"]


async def test_one_that_fails_has_the_others_undone(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        stage.failing, stage.held = {"q2"}, {"q2"}
        transaction = await begun(stage, "p", "q", "r")
        await stage.over("p")
        await stage.over("r")
        await stage.until_begun("q2")
        stage.ran = []
        stage.let_go("q2")
        await until_status(stage, "rolled_back")
        assert stage.ran == ["undo_q1", "undo_r2", "undo_r1", "undo_p2", "undo_p1"]
        assert await statuses(stage, "p", "q", "r") == ["cancelled", "failed", "cancelled"]
        status = await orchestrator.transaction_status(transaction)
        assert status.error.startswith("execution 'q' is failed: step 'q2' failed: ValueError: q2 fails")
        with pytest.raises(InvalidState, match="rolled back: execution 'q' is failed"):
            await orchestrator.commit_transaction(transaction)


async def test_a_failed_compensation_is_recorded_and_the_rest_still_run(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        transaction = await begun(stage, "p", "q")
        await stage.over("p")
        await stage.over("q")
        stage.failing, stage.ran = {"undo_q2"}, []
        done = await orchestrator.rollback_transaction(transaction, timeout=PATIENCE_S)
        assert done.status == "rolled_back"
        assert stage.ran == ["undo_q2", "undo_q1", "undo_p2", "undo_p1"]
        result = await orchestrator.step_result("q", "undo_q2")
        assert (result.status, result.error) == ("compensation_failed", "ValueError: undo_q2 fails")


async def test_it_is_rolled_back_when_its_time_is_up(stage: Stage) -> None:
    clock = ManualClock()
    async with stage.opened(*flows(stage), clock=clock) as orchestrator:
        transaction = await begun(stage, "p", timeout="30s")
        await stage.over("p")
        clock.advance(29)
        assert (await orchestrator.transaction_status(transaction)).status == "open"
        clock.advance(1)
        await until_status(stage, "rolled_back")
        status = await orchestrator.transaction_status(transaction)
        assert status.error == "it was not committed within 30s"
        assert await statuses(stage, "p") == ["cancelled"]
        assert stage.ran == ["p1", "p2", "undo_p2", "undo_p1"]


@pytest.mark.parametrize("held", ["undo_q2", "undo_q1", "undo_p2"])
async def test_a_rollback_goes_on_after_a_restart(stage: Stage, held: str) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        transaction = await begun(stage, "p", "q")
        await stage.over("p")
        await stage.over("q")
        stage.held, stage.ran = {held}, []
        with pytest.raises(ExecutionTimeout):
            await orchestrator.rollback_transaction(transaction, timeout=0)
        await stage.until_begun(held)
    before = list(stage.ran)
    stage.held = set()
    async with stage.opened() as orchestrator:
        await until_status(stage, "rolled_back")
        order = ["undo_q2", "undo_q1", "undo_p2", "undo_p1"]
        assert before == order[: len(before)]
        # What was under way is performed again: its result had not been recorded.
        assert stage.ran == [*before, *order[len(before) - 1 :]]
        assert await statuses(stage, "p", "q") == ["cancelled", "cancelled"]


async def test_a_commit_goes_on_after_a_restart(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        stage.held = {"q2"}
        transaction = await begun(stage, "p", "q")
        await stage.until_begun("q2")
        with pytest.raises(ExecutionTimeout):
            await orchestrator.commit_transaction(transaction, timeout=0)
    stage.held = set()
    async with stage.opened():
        await until_status(stage, "committed")
        assert [(await stage.over(name)).status for name in "pq"] == ["completed", "completed"]


async def test_what_has_joined_and_was_not_started_is_undone_too(stage: Stage) -> None:
    """As after a crash between the two: nothing of it may start later."""
    async with stage.opened(*flows(stage)) as orchestrator:
        transaction = await orchestrator.begin_transaction(id="t")
        assert orchestrator._transactions is not None
        await orchestrator._transactions.join(transaction, "p", "p", None, {"of": "p"}, "")
        await orchestrator.rollback_transaction(transaction, timeout=PATIENCE_S)
        assert (await orchestrator.status("p")).status == "cancelled"
        # Whoever was about to start it finds it over.
        context = {"input": {"of": "p"}, "transaction": "t", "execution": "p"}
        started = await orchestrator.engine.start("p", context, id="p")
        assert started.id == "p"
        assert (await orchestrator.status("p")).status == "cancelled"


async def test_one_that_is_paused_goes_on_to_be_undone(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        stage.held = {"p2"}
        transaction = await begun(stage, "p")
        await stage.until_begun("p2")
        await orchestrator.pause("p")
        await orchestrator.rollback_transaction(transaction, timeout=PATIENCE_S)
        assert await statuses(stage, "p") == ["cancelled"]
        assert stage.ran == ["p1", "p2", "undo_p1"]


async def test_one_that_was_cancelled_from_outside_lets_nothing_be_committed(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        transaction = await begun(stage, "p", "q")
        await stage.over("p")
        await stage.over("q")
        await orchestrator.cancel("q", reason="a mistake")
        with pytest.raises(InvalidState, match="was rolled back: execution 'q' is cancelled: a mistake"):
            await orchestrator.commit_transaction(transaction, timeout=PATIENCE_S)
        assert await statuses(stage, "p", "q") == ["cancelled", "cancelled"]


async def test_the_same_again_is_the_same_member(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        transaction = await begun(stage, "p")
        assert await orchestrator.execute("p", {"of": "p"}, id="p", transaction=transaction) == "p"
        assert (await orchestrator.transaction_status(transaction)).members == ("p",)
        with pytest.raises(AlreadyExistsError, match="has another member 'p'"):
            await orchestrator.execute("p", {"of": "other"}, id="p", transaction=transaction)
        await orchestrator.commit_transaction(transaction, timeout=PATIENCE_S)


async def test_an_empty_one_is_committed_and_rolled_back(stage: Stage) -> None:
    async with stage.opened() as orchestrator:
        one, other = await orchestrator.begin_transaction(), await orchestrator.begin_transaction()
        assert (await orchestrator.commit_transaction(one, timeout=PATIENCE_S)).status == "committed"
        assert (await orchestrator.rollback_transaction(other, timeout=PATIENCE_S)).status == "rolled_back"


async def test_bad_input_gets_its_error(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        for bad in ("", "soon", "0s", 5):
            with pytest.raises(InvalidError, match="expected the transaction's timeout as a duration"):
                await orchestrator.begin_transaction(bad)  # type: ignore[arg-type]
        for ask in ("commit_transaction", "rollback_transaction", "transaction_status"):
            with pytest.raises(TransactionNotFound, match="no transaction 'nope'"):
                await getattr(orchestrator, ask)("nope")
        with pytest.raises(TransactionNotFound):
            await orchestrator.execute("p", id="p", transaction="nope")
        await orchestrator.execute("p", {"of": "p"}, id="alone")
        with pytest.raises(TransactionNotFound):
            await orchestrator.commit_transaction("alone")
        transaction = await orchestrator.begin_transaction()
        with pytest.raises(AlreadyExistsError, match="execution 'alone' exists"):
            await orchestrator.execute("p", {"of": "p"}, id="alone", transaction=transaction)
        with pytest.raises(WorkflowNotFound):
            await orchestrator.execute("nothing", id="x", transaction=transaction)
        assert (await orchestrator.transaction_status(transaction)).members == ()
        await orchestrator.commit_transaction(transaction)
        with pytest.raises(InvalidState, match="to be open, it is committed"):
            await orchestrator.execute("p", id="late", transaction=transaction)
        assert await orchestrator.list_workflows() != []
        assert all(workflow.id in "pqr" for workflow in await orchestrator.list_workflows())
        assert (await stage.over("alone")).status == "completed"


async def test_a_member_that_is_through_is_not_resumed(stage: Stage) -> None:
    async with stage.opened(*flows(stage)) as orchestrator:
        stage.held = {"p2"}
        transaction = await begun(stage, "p")
        await stage.until_begun("p2")
        await orchestrator.checkpoint("p", "half")
        await orchestrator.resume_from("p", "half")
        stage.let_go("p2")
        await stage.over("p")
        with pytest.raises(InvalidState, match="transaction 't' was told that it is through"):
            await orchestrator.resume_from("p", "half")
        await orchestrator.commit_transaction(transaction, timeout=PATIENCE_S)
        row = await orchestrator.engine.status("p")
        assert msgspec.json.decode(row.context)["transaction"] == "t"
