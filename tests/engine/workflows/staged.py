"""Steps that a test holds, lets go and has fail, and the orchestrator that runs them on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from statewright.engine.verify import verify_store
from statewright.engine.workflows import ExecutionStatus, Orchestrator, StepCall
from statewright.statecharts.workflows import Workflow, WorkflowStep
from tests.engine.worlds import PATIENCE_S, until


class Stage:
    """`ran`: the steps that were begun, in order. Those in `held` wait to be let go, those in `failing` fail."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ran: list[str] = []
        self.effects: list[str] = []
        self.held: set[str] = set()
        self.failing: set[str] = set()
        self._moved = asyncio.Event()
        self.function = self.play  # The same object each time it is asked for.
        self.orchestrator: Orchestrator

    async def play(self, call: StepCall, **parameters: Any) -> dict[str, Any]:
        self.ran.append(call.step)
        self.effects.append(call.effect_id)
        while call.step in self.held:
            await self._moved.wait()
            self._moved.clear()
        if call.step in self.failing:
            raise ValueError(f"{call.step} fails")
        return {"by": call.step, "run": self.ran.count(call.step), **parameters}

    def let_go(self, *steps: str) -> None:
        self.held.difference_update(steps)
        self._moved.set()

    def step(self, id: str, *dependencies: str, undo: bool = False, **fields: Any) -> WorkflowStep:  # noqa: A002
        """A step that plays; with `undo` it can be undone, by `undo_<id>`."""
        rollback = WorkflowStep(id=f"undo_{id}", function=self.function, max_retries=0) if undo else None
        given = {"function": self.function, "max_retries": 0, "dependencies": dependencies, "rollback": rollback}
        return WorkflowStep(id=id, **{**given, **fields})

    def workflow(self, *steps: WorkflowStep, **settings: Any) -> Workflow:
        workflow = Workflow("w", **settings)
        for step in steps:
            workflow.add_step(step)
        return workflow

    def line(self, ids: str = "abcd", undo: Collection[str] = (), **settings: Any) -> Workflow:
        """One after another."""
        return self.workflow(*(self.step(one, undo=one in undo) for one in ids), **settings)

    @asynccontextmanager
    async def opened(self, *workflows: Workflow, **options: Any) -> AsyncIterator[Orchestrator]:
        """Afterwards every row must be what the facts say."""
        options = {"functions": {"play": self.function}, **options}
        async with Orchestrator.open(self.url, workflows=workflows, **options) as self.orchestrator:
            yield self.orchestrator
        assert verify_store(self.url).differences == []

    async def until_begun(self, step: str, times: int = 1) -> None:
        await until(lambda: self.ran.count(step) >= times, f"step '{step}' to be begun {times} times")

    async def over(self, execution_id: str = "e") -> ExecutionStatus:
        """Its status at its end."""
        return await self.orchestrator.wait(execution_id, timeout=PATIENCE_S)

    async def statuses(self, execution_id: str = "e") -> dict[str, str]:
        results = await self.orchestrator.step_results(execution_id)
        return {step: result.status for step, result in results.items()}
