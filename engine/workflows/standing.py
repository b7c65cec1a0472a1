"""Where an execution stands, as its facts tell, and moving it from there.

Invariant: what is decided from a standing is recorded only if nothing else has been recorded since; else it is decided
anew from where the execution stands by then.
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
from statewright.engine.steps import StepRow, fold_steps
from statewright.engine.workflows.errors import ExecutionNotFound, InvalidState
from statewright.engine.workflows.plans import Plan, workflow_of
from statewright.engine.workflows.positions import Placement
from statewright.statecharts.chart import Chart

TRIES_MAX = 100
"""How often a move is worked out anew because the execution has gone on meanwhile."""


class Standing(NamedTuple):
    """All that is known of an execution. facts: from the first on. rows: of its steps, by id."""

    instance: Instance
    facts: Sequence[AnyFact]
    rows: Mapping[str, StepRow]
    chart: Chart
    plan: Plan


class Move(NamedTuple):
    """To where, in which workflow (None: its own)."""

    placement: Placement
    chart: Chart | None = None
    activate: bool = False


async def move(
    engine: Engine, execution_id: str, decide: Callable[[Standing], Move], *, reason: str, actor: str
) -> Outcome:
    """Move an execution as `decide` says, which is a pure function and may be called again. Raises what it raises,
    `ExecutionNotFound`, `InvalidState` (the engine refuses it), `BusyError` (the execution goes on faster than this can
    be worked out), `UnavailableError`."""
    facts: list[AnyFact] = []

    def decided() -> tuple[Standing, Move]:
        standing = _read(engine, execution_id, facts)
        return standing, decide(standing)

    for _ in range(TRIES_MAX):
        standing, wanted = await engine.on_reader(decided)
        there = wanted.placement
        outcome = await modify(
            engine,
            execution_id,
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
        if outcome.kind != "refused":
            return outcome
        if outcome.sequence == standing.instance.sequence:
            raise InvalidState(f"execution '{execution_id}' can't be moved: {outcome.reason}")
    raise BusyError(
        f"execution '{execution_id}' has gone on {TRIES_MAX} times while its move was worked out: pause it first"
    )


async def standing_of(engine: Engine, execution_id: str) -> Standing:
    """Where it stands now. Raises `ExecutionNotFound`, `UnavailableError`."""
    return await engine.on_reader(_read, engine, execution_id, [])


def _read(engine: Engine, execution_id: str, facts: list[AnyFact]) -> Standing:
    """On the reading thread. `facts`: those read before, to which the others are added."""
    log = engine.log
    found = log.facts(execution_id, after=facts[-1].sequence if facts else 0)
    if not facts and (not found or found[-1].sequence != len(found)):
        raise ExecutionNotFound.like(log.absence(execution_id))
    facts.extend(found)
    instance = fold(facts)
    assert instance is not None
    chart = engine.definitions.pinned(instance.definition, instance.version, instance.digest)
    workflow = workflow_of(chart.definition)
    if workflow is None:
        raise ExecutionNotFound.of_chart(execution_id, instance.definition)
    rows = {row.step: row for row in fold_steps(facts)}
    return Standing(instance, facts, rows, chart, Plan(workflow))
