"""Where an execution stands, as its facts tell, and moving it from there.

Invariants: what is decided from a standing is recorded only if nothing else has been recorded since; else it is decided
anew, as a whole, from where the execution stands by then. While it is decided the engine holds the execution
(`engine/holds.py`): its steps go on, and what they come to waits. So an execution that goes on fast can be moved, too,
and a crash at any moment leaves it moved or as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from statewright.engine.engine import Engine
from statewright.engine.errors import BusyError
from statewright.engine.events import AnyFact
from statewright.engine.instance import Instance, fold
from statewright.engine.modification import modify
from statewright.engine.requests import Outcome
from statewright.engine.steps import StepRow, after, step_rows
from statewright.engine.workflows.errors import ExecutionNotFound, InvalidState
from statewright.engine.workflows.plans import Plan, workflow_of
from statewright.engine.workflows.positions import Placement
from statewright.statecharts.chart import Chart
from statewright.statecharts.workflows import Workflow

TRIES_MAX = 20
"""How often a move is worked out because the execution has gone on meanwhile. Once for what had come before the hold;
more often only if other workers on a shared store go on with it."""


class Standing(NamedTuple):
    """All that is known of an execution. facts: from the first on. rows: of its steps, by id."""

    instance: Instance
    facts: Sequence[AnyFact]
    rows: Mapping[str, StepRow]
    chart: Chart
    plan: Plan


class Move(NamedTuple):
    """To where, in which workflow and its chart (None: its own)."""

    placement: Placement
    workflow: Workflow | None = None
    chart: Chart | None = None
    activate: bool = False


async def move(
    engine: Engine,
    execution_id: str,
    decide: Callable[[Standing], Move],
    *,
    reason: str,
    actor: str,
    register: Callable[[Workflow], None] = lambda workflow: None,
) -> Outcome:
    """Move an execution as `decide` says, which is a pure function and may be called again. `register` is told the
    workflow that it says, before any of its steps can be asked for.

    Raises what they raise, `ExecutionNotFound`, `InvalidState` (the engine refuses it), `BusyError` (other workers on
    the store have gone on with it each time), `UnavailableError`.
    """
    execution = _Execution(engine, execution_id)

    def decided() -> tuple[Standing, Move]:
        standing = execution.standing()
        return standing, decide(standing)

    await engine.on_reader(decided)  # Once before the hold: to compile a changed workflow takes longest, and is kept.
    async with engine.hold(execution_id):
        for _ in range(TRIES_MAX):
            standing, wanted = await engine.on_reader(decided)
            if wanted.workflow is not None:
                register(wanted.workflow)
            outcome = await _modified(engine, standing, wanted, reason, actor)
            if outcome.kind != "refused":
                return outcome
            if outcome.sequence == standing.instance.sequence:
                raise InvalidState(f"execution '{execution_id}' can't be moved: {outcome.reason}")
    raise BusyError(
        f"other workers have gone on with execution '{execution_id}' each of the {TRIES_MAX} times that its move was "
        "worked out; nothing has changed: try again later, or pause it first"
    )


async def _modified(engine: Engine, standing: Standing, wanted: Move, reason: str, actor: str) -> Outcome:
    there = wanted.placement
    return await modify(
        engine,
        standing.instance.id,
        there.targets,
        expected_sequence=standing.instance.sequence,
        chart=wanted.chart or standing.chart,
        keep=there.keep,
        context=there.context,
        steps=there.steps,
        steps_restored=there.restored,
        activate=wanted.activate,
        reason=reason,
        actor=actor,
    )


async def standing_of(engine: Engine, execution_id: str) -> Standing:
    """Where it stands now. Raises `ExecutionNotFound`, `UnavailableError`."""
    return await engine.on_reader(_Execution(engine, execution_id).standing)


class _Execution:
    """What has been read of an execution. Used on the reading thread; read again it costs what was recorded since."""

    def __init__(self, engine: Engine, execution_id: str) -> None:
        self._engine = engine
        self._id = execution_id
        self._facts: list[AnyFact] = []
        self._instance: Instance | None = None
        self._rows: dict[str, StepRow] = {}
        self._known: tuple[Chart, Plan] | None = None

    def standing(self) -> Standing:
        """As of now. Raises `ExecutionNotFound`."""
        facts = self._facts
        found = self._engine.log.facts(self._id, after=facts[-1].sequence if facts else 0)
        if not facts and (not found or found[-1].sequence != len(found)):
            raise ExecutionNotFound.like(self._engine.log.absence(self._id))
        facts.extend(found)
        instance = self._instance = fold(found, self._instance)
        assert instance is not None
        for row in (row for fact in found for row in step_rows(fact)):
            self._rows[row.step] = after(self._rows.get(row.step), row)
        return Standing(instance, facts, dict(sorted(self._rows.items())), *self._workflow(instance))

    def _workflow(self, instance: Instance) -> tuple[Chart, Plan]:
        if self._known is None or self._known[0].digest != instance.digest:
            chart = self._engine.definitions.pinned(instance.definition, instance.version, instance.digest)
            workflow = workflow_of(chart.definition)
            if workflow is None:
                raise ExecutionNotFound.of_chart(self._id, instance.definition)
            self._known = chart, Plan(workflow)
        return self._known
