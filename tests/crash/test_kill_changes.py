"""The process dies by SIGKILL again and again while executions are changed, given checkpoints and resumed from them.

Each modification is recorded wholly or not at all, and once. What had completed by a checkpoint, and was not undone
since, is not asked for again, nor what goes on through a change; all else is. What is undone is so in the reverse order
of completion. A step doesn't begin once its result is recorded.

`STATEWRIGHT_CRASH_KILLS=40 pytest -s tests/crash/test_kill_changes.py`; STATEWRIGHT_CRASH_SEED says when.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from statewright.engine.events import AnyFact, CheckpointTaken, InstanceModified
from statewright.engine.steps import fold_steps
from statewright.engine.verify import verify_store
from statewright.engine.workflows import Orchestrator
from statewright.engine.workflows.plans import Plan, read_workflow
from tests.crash.changing_process import AGAIN, ALL, ASKED, EARLY, FIRST, LATE, MENDED, MODES, SECOND, asked_in
from tests.crash.processes import EngineProcesses
from tests.crash.test_kill_examples import results
from tests.crash.test_kill_schedules import commits

SEED = int(os.environ.get("STATEWRIGHT_CRASH_SEED", "20240815"))
KILLS = int(os.environ.get("STATEWRIGHT_CRASH_KILLS", "8"))
LIMIT_S = 60.0 + 10.0 * KILLS
COMMITS_MAX, LATER_S = 60, 0.02
"""A process is killed after so many commits, and a little later: a round is some hundred."""
PROGRAM = Path(__file__).with_name("changing_process.py")
CHECKPOINT_OF = {AGAIN: EARLY, MENDED: LATE}


@pytest.mark.integration
async def test_what_changes_is_recorded_wholly_or_not_at_all_whenever_the_process_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = tmp_path / "store.db", tmp_path / "log"
    url = f"sqlite:///{path}"
    lots = random.Random(SEED)
    engines = EngineProcesses(PROGRAM, url, str(log), log=tmp_path / "engine.log")
    struck: Counter[str] = Counter()
    async with asyncio.timeout(LIMIT_S):
        try:
            await engines.start()
            for _ in range(KILLS):
                await commits(path, lots.randrange(1, COMMITS_MAX))
                await asyncio.sleep(lots.uniform(0, LATER_S))
                await engines.kill()
                struck.update(under_way(path))
                assert verify_store(url).differences == []
                await engines.start()
            await engines.stop()
        finally:
            await engines.close()
    assert verify_store(url).differences == []
    begun = [line.split(" ") for line in log.read_text().splitlines()]
    async with Orchestrator.open(url, read_only=True) as orchestrator:
        rows = await orchestrator.engine.list(ALL)
        assert {row.status for row in rows} == {"completed"}
        assert len(rows) >= len(MODES)
        recorded: dict[str, int] = {}
        for row in rows:
            facts = list(await orchestrator.engine.history(row.id))
            recorded |= results(facts, ())
            Model(await plans(orchestrator, facts)).follow(facts)
    late = [line for line in begun if int(line[2]) > recorded.get(line[0], sys.maxsize)]
    assert late == [], "steps that began after their result was recorded"
    assert {effect_id for effect_id, *_ in begun} >= recorded.keys()
    assert {revision for _, step, _, _, revision in begun if step == "swapped"} == {"2"}
    assert "dropped" not in {step for _, step, *_ in begun}
    with capsys.disabled():
        again = len(begun) - len({effect_id for effect_id, *_ in begun})
        print(
            f"\nseed {SEED}: {len(rows)} executions, {len(begun)} steps begun, {again} of them once more after a kill"
        )
        print("killed after " + ", ".join(f"{what} ({count})" for what, count in sorted(struck.items())))


class Model:
    """What must be true of one execution from fact to fact, as the documentation tells it. `plans`: of the definitions
    that it is pinned to, by digest."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans
        self._plan: Plan
        self._completed: set[str] = set()
        self._running: set[str] = set()
        self._undone: set[str] = set()
        """Of what has completed, what was undone since."""
        self._to_undo: list[str] = []
        self._checkpoints: dict[str, set[str]] = {}

    def follow(self, facts: list[AnyFact]) -> None:
        assert asked_in(facts) == [*ASKED, MENDED]
        for index, fact in enumerate(facts):
            if isinstance(fact, CheckpointTaken):
                self._checkpoints[fact.name] = set(self._completed)
            if (digest := getattr(fact, "digest", "")) in self._plans:
                self._plan = self._plans[digest]
            if isinstance(fact, InstanceModified):
                self._modified(fact)
                rows = fold_steps(facts[: index + 1])
                steps = self._plan.steps
                assert {row.step for row in rows if row.status == "completed" and row.step in steps} == self._completed
            else:
                self._take(fact)
            asked = {effect.name for effect in getattr(fact, "effects", ())}
            assert not asked & (self._completed | self._running), f"asked for again by fact {fact.sequence}"
            self._running |= asked
            if getattr(fact, "status", "") == "failed":
                assert self._to_undo == []
        assert self._completed == self._plan.steps.keys()

    def _modified(self, fact: InstanceModified) -> None:
        if fact.reason in CHECKPOINT_OF:
            there = self._checkpoints[CHECKPOINT_OF[fact.reason]] - self._undone
            self._completed = {step for step in there if self._before(step) <= there}
            self._running.clear()
        elif fact.reason == FIRST:
            assert {"between", "dropped"} & self._plan.steps.keys() == {"between"}
        else:
            assert fact.reason == SECOND
            assert {"between", "more"} <= self._plan.steps.keys()

    def _take(self, fact: AnyFact) -> None:
        for record in getattr(fact, "steps", ()):
            if record.status != "running":
                self._running.discard(record.step)
            if record.status == "completed":
                self._completed.add(record.step)
                self._undone.discard(record.step)
                if record.step in self._plan.rollback:
                    self._to_undo = [step for step in self._to_undo if step != record.step] + [record.step]
            elif record.step.startswith("undo_") and record.status == "compensated":
                undone = record.step.removeprefix("undo_")
                assert undone == self._to_undo.pop(), f"undone by fact {fact.sequence}"
                self._undone.add(undone)

    def _before(self, step: str) -> set[str]:
        """All that has to be done before it."""
        steps = list(self._plan.steps)
        if self._plan.workflow.mode == "sequential":
            return set(steps[: steps.index(step)])
        found: set[str] = set()
        for one in self._plan.steps[step].dependencies:
            found |= {one} | self._before(one)
        return found


async def plans(orchestrator: Orchestrator, facts: Iterable[AnyFact]) -> dict[str, Plan]:
    """Of all definitions that an execution was pinned to; each must be in the store."""
    engine, found = orchestrator.engine, {}
    for fact in facts:
        if digest := getattr(fact, "digest", ""):
            pinned = (fact.definition, fact.version, digest)  # type: ignore[union-attr]
            workflow = await engine.on_reader(read_workflow, engine.recorder, *pinned)
            assert workflow is not None
            found[digest] = Plan(workflow)
    return found


def under_way(path: Path) -> list[str]:
    """What each execution that has not completed had got as the last of all that is asked for."""
    connection = sqlite3.connect(path)
    counts = connection.execute(
        "SELECT sum(topic LIKE '%checkpoint_taken' OR topic LIKE '%instance_modified') FROM instances JOIN "
        "stored_events ON originator_id = instances.id WHERE status != 'completed' GROUP BY instances.id"
    ).fetchall()
    connection.close()
    return [("the start", *ASKED, MENDED)[count] for (count,) in counts]
