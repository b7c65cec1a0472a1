"""Modification: an instance is put elsewhere by somebody, not by an event. One fact, `instance_modified`.

    modify(engine, instance_id, targets, ...) -> Outcome

It is for what a chart can't foresee: to go back to a checkpoint, to go on after a failure, to change a workflow that
runs. The states that are given are entered as a transition would enter them (`statecharts/placing.py`); those that are
kept stay as they are, with their timers and the effects that belong to them; of all others the timers and the effects
that belong to them are cancelled, and no exit action runs. What belongs to the instance rather than to a state (delayed
sends, effects that nothing cancels) stays.

Invariants: decided against the very fact that the caller has seen (`expected_sequence`), so that nothing is done twice
or undone that has happened meanwhile. Either all of it is recorded or nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import PersistenceError
from msgspec.structs import replace

from statewright.engine.decisions import cancelled_effects, next_time, timer_changes
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.events import ENDED, CheckpointTaken, InstanceModified, RestoredStep
from statewright.engine.ids import check_id
from statewright.engine.instance import Instance
from statewright.engine.relatives import effects_of, with_relatives
from statewright.engine.requests import ModifyRequest, Outcome
from statewright.statecharts.chart import Chart
from statewright.statecharts.context import Context
from statewright.statecharts.facts import Snapshot, Step, StepRecord
from statewright.statecharts.machine import ChartMachine
from statewright.statecharts.placing import own_timers, place

if TYPE_CHECKING:
    from statewright.engine.engine import Engine

CHECKPOINTS_MAX = 1_000
"""How many checkpoints one instance may have: they are kept with it in memory."""


async def modify(
    engine: Engine,
    instance_id: str,
    targets: Iterable[str],
    *,
    expected_sequence: int,
    chart: Chart | None = None,
    keep: Iterable[str] = (),
    context: Mapping[str, Any] | None = None,
    steps: Iterable[StepRecord] = (),
    steps_restored: Iterable[RestoredStep] = (),
    activate: bool = False,
    reason: str = "",
    actor: str = "",
) -> Outcome:
    """Put an instance into the states `targets`; returns once that is durable.

    expected_sequence: that of the instance's last fact as the caller knows it; if there is a later one the outcome is
    "refused". chart: what it runs from now on (None: what it runs). keep: states that it is in and that are not left.
    context: all of it, None leaves it as it is. steps: how steps of a workflow stand from now on, steps_restored: those
    that stand again as an earlier fact has said. activate: go on if it is paused; what was deferred is then applied. An
    instance that had ended goes on.

    Refused, with the reason: another sequence, children that are active, the end of a child of another instance (its
    parent has been told), states that can't be active together, an action that fails. Raises `NotFoundError`
    (`PrunedError` for one that was pruned), `InvalidError`, `ContextError`, `AlreadyExistsError` (the chart's version
    with other content), `BusyError`, `UnavailableError`.
    """
    check_id("an instance id", instance_id)
    if chart is None:
        row = await engine.status(instance_id)
        taking = partial(engine.definitions.pinned, row.definition, row.version, row.digest)
    else:
        taking = partial(engine.definitions.take, chart)
    try:
        chart = await engine.on_writer(taking)
    except PersistenceError as error:
        failure = f"the definition of instance '{instance_id}' can't be stored or read: {error}"
        raise UnavailableError(failure) from error
    outcome: Outcome = await engine.submit(
        ModifyRequest(
            instance_id,
            expected_sequence,
            chart,
            tuple(targets),
            tuple(keep),
            context,
            tuple(steps),
            tuple(steps_restored),
            activate,
            reason,
            actor,
        )
    )
    return outcome


def decide_modified(
    instance: Instance, before: ChartMachine, request: ModifyRequest, *, now: int
) -> tuple[InstanceModified, Snapshot] | str:
    """The fact and where the chart stands after it, or why it is refused. `before` is the machine so far."""
    chart = request.chart
    if refusal := _refusal(instance, request):
        return refusal
    machine = chart.machine
    given = _context(instance, request)
    known = machine.by_id
    history = {name: ids for name, ids in instance.history.items() if all(one in known for one in (name, *ids))}
    bound = tuple(name for name in instance.bound if name in known)
    start = machine.restore((), given, history, instance.serial, bound)
    step = place(machine, start, request.targets, request.keep)
    if step.reason:
        return step.reason
    fact = _fact(instance, before, request, step, machine.names(step.snapshot.configuration), now)
    fact = replace(fact, bound=machine.ids(step.snapshot.entered))
    if step.requests or instance.parent is not None:
        fact = with_relatives(fact, step, instance.parent, {}, fact.bound)
    return fact, step.snapshot


def decide_checkpoint(instance: Instance, name: str, *, reason: str, actor: str, now: int) -> CheckpointTaken | str:
    """The fact, or why it is refused: an instance that has ended stands nowhere, and a name is given once."""
    if instance.status in ENDED:
        return f"instance '{instance.id}' is {instance.status}"
    taken = instance.checkpoints.get(name)
    if taken is not None:
        return f"instance '{instance.id}' has a checkpoint '{name}' already, taken at sequence {taken}"
    if len(instance.checkpoints) >= CHECKPOINTS_MAX:
        return f"instance '{instance.id}' has {CHECKPOINTS_MAX} checkpoints, no more"
    return CheckpointTaken(
        instance_id=instance.id,
        sequence=instance.sequence + 1,
        time=next_time(instance, now),
        name=name,
        reason=reason,
        actor=actor,
    )


def _refusal(instance: Instance, request: ModifyRequest) -> str:
    """Why it can't be done at all, "" if it can."""
    if request.chart.name != instance.definition:
        return (
            f"expected a definition of the name that instance '{instance.id}' runs, '{instance.definition}', "
            f"got '{request.chart.name}'"
        )
    if instance.sequence != request.expected_sequence:
        return (
            f"expected instance '{instance.id}' to be at sequence {request.expected_sequence}, "
            f"it is at {instance.sequence}"
        )
    if instance.children:
        children = ", ".join(f"'{child.instance_id}'" for child in instance.children.values())
        return f"instance '{instance.id}' has children that are active: {children}"
    ended = instance.status in ENDED
    if ended and instance.parent is not None:
        return f"instance '{instance.id}' is {instance.status}, and its parent has been told"
    active = () if ended else instance.configuration
    gone = next((name for name in request.keep if name not in active), None)
    if gone is not None:
        return f"expected a state to be kept that instance '{instance.id}' is in, got '{gone}'"
    return ""


def _context(instance: Instance, request: ModifyRequest) -> Context:
    """Raises `ContextError` if it isn't what the chart declares."""
    given = instance.context if request.context is None else request.context
    if not isinstance(given, Mapping):
        raise InvalidError(f"expected the context to be an object of fields, got {type(given).__name__}")
    return request.chart.machine.context_type.start(given)


def _fact(
    instance: Instance,
    before: ChartMachine,
    request: ModifyRequest,
    step: Step,
    configuration: tuple[str, ...],
    now: int,
) -> InstanceModified:
    sequence, chart = instance.sequence + 1, request.chart
    exited = left(instance, request.keep)
    timers_set, cancelled = timer_changes(step, now, instance.timers)
    # Those that the step has set anew are not cancelled: the last word counts.
    fresh = {timer.timer_id for timer in timers_set}
    left_timers = own_timers(before, exited) & instance.timers.keys()
    cancelled = tuple(dict.fromkeys([*sorted(left_timers - fresh), *cancelled]))
    records = {record.step: record for record in request.steps} | {record.step: record for record in step.records}
    paused = instance.status == "paused" and not request.activate and step.status == "active"
    return InstanceModified(
        instance_id=instance.id,
        sequence=sequence,
        time=next_time(instance, now),
        definition=chart.name,
        version=chart.version,
        digest=chart.digest,
        reason=request.reason,
        actor=request.actor,
        configuration=configuration,
        taken=step.taken,
        exited=exited + step.exited,
        entered=step.entered,
        guards=step.guards,
        context=step.snapshot.context,
        history=step.snapshot.history,
        timers_set=timers_set,
        timers_cancelled=cancelled,
        effects=effects_of(instance.id, sequence, step),
        raised=step.raised,
        logs=step.logs,
        serial=step.snapshot.serial,
        effects_cancelled=cancelled_effects(instance, None, exited + step.exited, step.status),
        steps=tuple(records.values()),
        steps_restored=request.steps_restored,
        status="paused" if paused else step.status,
        output=step.output,
        error=step.error,
    )


def left(instance: Instance, keep: Iterable[str]) -> tuple[str, ...]:
    """The states that are left, in exit order: none of an instance that has ended, it is in none."""
    if instance.status in ENDED:
        return ()
    kept = frozenset(keep)
    return tuple(name for name in reversed(instance.configuration) if name not in kept)
