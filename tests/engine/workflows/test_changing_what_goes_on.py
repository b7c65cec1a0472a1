"""Executions of hundreds of quick steps are changed and put back while they go on: nobody has to pause them first."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from statewright.engine.errors import BusyError
from statewright.engine.verify import verify_store
from statewright.engine.workflows import InvalidState, Orchestrator
from statewright.engine.workflows.changing import Change, into
from statewright.engine.workflows.standing import TRIES_MAX, Move, Standing, move
from statewright.statecharts.workflows import Workflow, WorkflowStep
from tests.engine.workflows.staged import Stage
from tests.postgres_server import new_url

STEPS = 200
AFTER = "s30"
"""The step after whose beginning something is asked for."""


def quick(stage: Stage, *, mode: str = "sequential") -> Workflow:
    """In a graph each waits for the one before the last, so that two run at once. The last ones wait to be let go: so
    what is asked for comes in time, however slow the machine is."""
    stage.held = {f"s{number}" for number in range(STEPS - 5, STEPS)}
    return stage.workflow(
        *(stage.step(f"s{number}", *([f"s{number - 2}"] if number > 1 else [])) for number in range(STEPS)),
        mode=mode,
    )


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_it_is_changed_as_it_goes(stage: Stage, mode: str) -> None:
    async with stage.opened(quick(stage, mode=mode)) as orchestrator:
        await orchestrator.execute("w", id="e")
        await stage.until_begun(AFTER)
        await orchestrator.change(
            "e",
            add=[stage.step("x", "s1"), stage.step("y")],
            replace=[stage.step("s196", "s194", "x", parameters={"from": "${steps.x.by}"})],
            remove=["s199"],
        )
        stage.let_go(*stage.held)
        status = await stage.over()
        assert (status.status, status.completed_steps, status.total_steps) == ("completed", STEPS + 1, STEPS + 1)
        assert Counter(stage.ran) == Counter([*(f"s{number}" for number in range(STEPS - 1)), "x", "y"])
        assert (await orchestrator.step_result("e", "s196")).data["from"] == "x"
        assert {row.state for row in await orchestrator.engine.effects("e")} == {"done"}


async def test_it_goes_back_to_a_checkpoint_as_it_goes(stage: Stage) -> None:
    async with stage.opened(quick(stage)) as orchestrator:
        await orchestrator.execute("w", id="e")
        await stage.until_begun("s20")
        taken = await orchestrator.checkpoint("e", "here")
        then = await orchestrator.engine.history("e", to=taken.sequence)
        done = sum(one.status == "completed" for fact in then for one in getattr(fact, "steps", ()))
        await stage.until_begun(f"s{done + 20}")
        await orchestrator.resume_from("e", "here")
        stage.let_go(*stage.held)
        assert (await stage.over()).status == "completed"
        runs = Counter(stage.ran)
        again = [step for step, times in runs.items() if times > 1]
        assert again == [f"s{number}" for number in range(done, done + len(again))]
        assert len(again) >= 20
        assert len(runs) == STEPS


async def test_all_of_many_who_change_it_at_once_are_heard(stage: Stage) -> None:
    async with stage.opened(quick(stage)) as orchestrator:
        await orchestrator.execute("w", id="e")
        await stage.until_begun(AFTER)
        await asyncio.gather(*(orchestrator.change("e", add=[stage.step(f"x{n}")]) for n in range(5)))
        stage.let_go(*stage.held)
        assert (await stage.over()).completed_steps == STEPS + 5
        assert sorted(stage.ran[-5:]) == [f"x{n}" for n in range(5)]


async def test_what_has_started_meanwhile_is_refused_and_what_was_removed_never_runs(stage: Stage) -> None:
    async with stage.opened(quick(stage, mode="parallel")) as orchestrator:
        # Nothing comes after them, so that each can be removed by itself.
        leaves = [f"leaf{number}" for number in (*range(0, STEPS, 25), STEPS - 1)]
        added = [stage.step(leaf, f"s{leaf[4:]}") for leaf in leaves]
        await orchestrator.execute("w", id="e")
        await orchestrator.change("e", add=added)
        await stage.until_begun(AFTER)
        answers = await asyncio.gather(
            *(orchestrator.change("e", remove=[leaf]) for leaf in leaves), return_exceptions=True
        )
        stage.let_go(*stage.held)
        assert (await stage.over()).status == "completed"
        refused = {leaf for leaf, one in zip(leaves, answers, strict=True) if isinstance(one, BaseException)}
        assert {type(one) for one in answers if isinstance(one, BaseException)} <= {InvalidState}
        assert all("not to have started" in str(one) for one in answers if isinstance(one, BaseException))
        assert "leaf0" in refused
        assert leaves[-1] not in refused
        assert {step for step in stage.ran if step.startswith("leaf")} == refused


@pytest.mark.integration
class TestWithAnotherWorker:
    """Which records, on the same store, what the one that is asked to change it doesn't hold back."""

    @pytest.fixture
    async def stage(self) -> Stage:
        return Stage(new_url())

    async def test_it_is_decided_anew_and_what_has_started_is_refused(self, stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        change = Change([], [], ["c"])

        def decide(standing: Standing) -> Move:
            """The second time, the first in the hold, the other worker goes on to the step that is to be removed."""
            seen.append(standing.instance.sequence)
            found = into(standing, *change.derive(standing))
            if len(seen) == 2:
                stage.let_go("b")
                asyncio.run_coroutine_threadsafe(stage.until_begun("c"), loop).result()
            return found

        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(Orchestrator.open(stage.url, run_due=False))
            await stack.enter_async_context(stage.opened(stage.line("abcd")))
            stage.held = {"b", "c"}
            await stage.orchestrator.execute("w", id="e")
            await stage.until_begun("b")
            with pytest.raises(InvalidState, match="expected step 'c' of execution 'e' not to have started"):
                await move(asked.engine, "e", decide, reason="", actor="")
            assert len(seen) == 3
            assert (await asked.engine.status("e")).version == "1"
            stage.let_go("c")
            assert (await stage.over()).status == "completed"
            assert stage.ran == ["a", "b", "c", "d"]

    async def test_it_is_tried_so_often_and_no_more(self, stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        change = Change([WorkflowStep(id="x", function="play")], [], [])
        tries = 0

        def decide(standing: Standing) -> Move:
            nonlocal tries
            tries += 1
            found = into(standing, *change.derive(standing))
            asyncio.run_coroutine_threadsafe(stage.orchestrator.checkpoint("e", f"c{tries}"), loop).result()
            return found

        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(Orchestrator.open(stage.url, run_due=False))
            await stack.enter_async_context(stage.opened(stage.line("ab")))
            stage.held = {"a"}
            await stage.orchestrator.execute("w", id="e")
            await stage.until_begun("a")
            with pytest.raises(BusyError, match="other workers have gone on with execution 'e' each of the 20 times"):
                await move(asked.engine, "e", decide, reason="", actor="")
            assert tries == 1 + TRIES_MAX
            assert (await asked.engine.status("e")).version == "1"
            stage.let_go("a")
            assert (await stage.over()).status == "completed"
            assert stage.ran == ["a", "b"]
        assert verify_store(stage.url).differences == []

    async def test_all_who_change_it_on_several_workers_are_heard(self, stage: Stage) -> None:
        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(Orchestrator.open(stage.url, run_due=False))
            await stack.enter_async_context(stage.opened(stage.line("ab")))
            stage.held = {"a"}
            await stage.orchestrator.execute("w", id="e")
            await stage.until_begun("a")
            added = [f"x{number}" for number in range(8)]
            changers = [asked, stage.orchestrator] * 4
            await asyncio.gather(
                *(
                    changer.change("e", add=[WorkflowStep(id=step, function="play")])
                    for changer, step in zip(changers, added, strict=True)
                )
            )
            stage.let_go("a")
            assert (await stage.over()).status == "completed"
            assert stage.ran[:2] == ["a", "b"]
            assert sorted(stage.ran[2:]) == added
