"""The orchestrator: the front door for workflows of steps, on one engine.

Invariants: an execution is an instance of the chart that its workflow compiles to, so the store is the one truth about
it, and whoever starts it (`Orchestrator.execute`, the command line, a message on the bus) starts the same. Nothing is
kept here but which functions, plugins and services perform steps in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from eventsourcing.persistence import PersistenceError

from statewright.engine.clock import Clock
from statewright.engine.engine import Engine
from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError, UnavailableError
from statewright.engine.events import ENDED
from statewright.engine.ids import check_id, new_id
from statewright.engine.recorder import InstanceFilter, InstanceRow, Store
from statewright.engine.requests import Outcome
from statewright.engine.workflows import changing, checkpoints, transactions
from statewright.engine.workflows.calls import Caller
from statewright.engine.workflows.changing import Given
from statewright.engine.workflows.errors import (
    ExecutionNotFound,
    InvalidState,
    WorkflowExists,
    WorkflowNotFound,
)
from statewright.engine.workflows.executions import ExecutionMetrics, ExecutionStatus, metrics_of, status_of
from statewright.engine.workflows.performer import StepPerformer
from statewright.engine.workflows.plans import Plan, Plans, workflow_in, workflow_of
from statewright.engine.workflows.results import StepResult, read_effects, read_results
from statewright.engine.workflows.transactions import TIMEOUT, Transactions, TransactionStatus
from statewright.engine.workflows.waiting import Waiting, timeout_ns
from statewright.statecharts.chart import Chart
from statewright.statecharts.workflows import Workflow, WorkflowStep

ACTIVE = ("active", "paused")
PAGE = 100

Functions = Mapping[str, Callable[..., Any]]


class Orchestrator:
    """Registers, executes and watches workflows. Used as an async context manager, with an engine of its own
    (`Orchestrator.open`) or on one that is open already (`Orchestrator(engine)`), which it leaves open."""

    @classmethod
    def open(
        cls,
        store: str | Store,
        *,
        workflows: Iterable[Workflow] = (),
        functions: Functions | None = None,
        plugins: Caller | None = None,
        services: Caller | None = None,
        charts: Iterable[Chart] = (),
        clock: Clock | None = None,
        nats: str | object | None = None,
        **settings: Any,
    ) -> Self:
        """An orchestrator with an engine on the store behind the URL `store`; nothing is touched until it is entered.

        `functions`, `plugins`, `services` as below; all else as of `Engine.open`.
        """
        engine = Engine.open(store, charts=charts, clock=clock, nats=nats, **settings)
        found = cls(engine, workflows=workflows, functions=functions, plugins=plugins, services=services)
        found._owns_engine = True
        return found

    def __init__(
        self,
        engine: Engine,
        *,
        workflows: Iterable[Workflow] = (),
        functions: Functions | None = None,
        plugins: Caller | None = None,
        services: Caller | None = None,
    ) -> None:
        """workflows: to be registered. functions: by name, those that workflows from files name; those that a workflow
        was built with in Python it brings along. plugins, services: who performs the steps of plugins and services;
        without services these steps go out on the engine's bus, and without that they wait in the store."""
        self.engine = engine
        self._owns_engine = False
        self._given = tuple(workflows)
        self._functions = dict(functions or {})
        self._callers = (plugins, services)
        self._plans: Plans | None = None
        self._performer: StepPerformer | None = None
        self._waiting: Waiting | None = None
        self._transactions: Transactions | None = None

    async def __aenter__(self) -> Self:
        """Raises what `Engine.open` and `register` raise."""
        if self._owns_engine:
            await self.engine.__aenter__()
        try:
            self._plans = Plans(self.engine)
            self._waiting = Waiting(self.engine)
            self._transactions = Transactions(self.engine)
            self._performer = StepPerformer(self.engine, self._plans, *self._callers)
            await self._adopt_stored()
            for workflow in self._given:
                await self.register(workflow)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop waiting, and close the engine if it is our own. Idempotent. Executions go on with the next run."""
        waiting, self._waiting = self._waiting, None
        if self._owns_engine:
            await self.engine.close()
        if waiting is not None:
            waiting.close()

    # Workflows

    async def register(self, workflow: Workflow) -> Workflow:
        """Make a workflow executable here, durably; the last of an id is the one that is executed. The same again
        changes nothing. Raises `InvalidWorkflow`, `WorkflowExists` (its version is stored with other content: give the
        changed one a new version), `UnavailableError`."""
        performer = self._opened
        if not isinstance(workflow, Workflow):
            raise InvalidError(f"expected a Workflow to register, got {type(workflow).__name__}")
        chart = workflow.chart()
        try:
            await self.engine.on_writer(self.engine.definitions.take, chart)
        except AlreadyExistsError as error:
            raise WorkflowExists(
                f"workflow '{workflow.id}' version '{workflow.version}' is stored with other content; give the changed "
                "workflow a new version"
            ) from error
        except PersistenceError as error:
            raise UnavailableError(f"workflow '{workflow.id}' can't be stored: {error}") from error
        self.engine.definitions.register((chart,), store=False)  # It is stored; from here on it is the newest.
        definition = workflow_of(chart.definition)
        performer.register(chart.name, {**self._named_in(workflow.performed), **workflow.functions})
        performer.warn_of_unperformed(chart)
        self._opened_plans.keep(chart.digest, definition)
        return workflow

    async def unregister(self, workflow_id: str) -> None:
        """Start no more executions of it in this process; those that run go on, and so do their records. Raises
        `WorkflowNotFound`."""
        await self._chart(workflow_id, None)
        self.engine.definitions.withdraw(workflow_id)

    async def get_workflow(self, workflow_id: str, version: str | None = None) -> Workflow:
        """The newest, or that of a version. Raises `WorkflowNotFound`."""
        return self._workflow(await self._chart(workflow_id, version))

    async def list_workflows(self) -> list[Workflow]:
        """All that can be executed here, each in its newest version, by id."""
        charts = [chart for _, chart in sorted(self.engine.charts.items())]
        return [self._workflow(chart) for chart in charts if workflow_of(chart.definition) is not None]

    # Executions

    async def execute(
        self,
        workflow_id: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 (the name that steps see)
        *,
        id: str | None = None,  # noqa: A002 (as of `Engine.start`)
        version: str | None = None,
        transaction: str = "",
        actor: str = "",
    ) -> str:
        """Start an execution; returns its id once that is durable. The same id and content again is the same execution.
        With `transaction` it belongs to that (see `begin_transaction`). Raises `WorkflowNotFound`, `InvalidError`,
        `TooLargeError`, `AlreadyExistsError` (other content), `BusyError`, `UnavailableError`; `TransactionNotFound`,
        `InvalidState` (the transaction takes no more executions)."""
        if input is not None and not isinstance(input, Mapping):
            raise InvalidError(f"expected the input of '{workflow_id}' to be a mapping, got {type(input).__name__}")
        await self._chart(workflow_id, version)
        context: dict[str, Any] = {"input": dict(input or {})}
        if transaction:
            id = new_id(self.engine.clock.now()) if id is None else check_id("an execution id", id)  # noqa: A001
            context = await self._opened_transactions.join(transaction, id, workflow_id, version, input or {}, actor)
        return (await self.engine.start(workflow_id, context, id=id, version=version, actor=actor)).id

    async def execute_and_wait(
        self,
        workflow_id: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 (as of `execute`)
        *,
        timeout: float | None = None,
        id: str | None = None,  # noqa: A002 (as of `execute`)
        version: str | None = None,
        transaction: str = "",
        actor: str = "",
    ) -> ExecutionStatus:
        """`execute`, then `wait`: raises what they raise."""
        timeout_ns(timeout)
        execution_id = await self.execute(
            workflow_id, input, id=id, version=version, transaction=transaction, actor=actor
        )
        return await self.wait(execution_id, timeout=timeout)

    async def wait(self, execution_id: str, *, timeout: float | None = None) -> ExecutionStatus:
        """Its status once it has ended, or is prepared and waits for its transaction. `timeout` in seconds, None waits
        for ever. Raises `ExecutionTimeout` (it goes on), `ExecutionNotFound`, `UnavailableError`."""
        if self._waiting is None:
            raise _not_open()
        row = await self._waiting.until_over(execution_id, self._workflow_row, timeout)
        return status_of(row, await self._plan(row))

    async def cancel(
        self, execution_id: str, *, compensate: bool = False, reason: str = "", actor: str = ""
    ) -> Outcome:
        """End an execution. At once, with what it has done left as it is; or, with `compensate`, by running the
        compensations of its completed steps (one that is paused goes on to do so): then it ends cancelled in its own
        time. Raises `InvalidState` if it has ended or can't be cancelled any more, `ExecutionNotFound`, `BusyError`,
        `UnavailableError`."""
        row, _ = await self._execution(execution_id)
        if not compensate:
            return _done(await self.engine.cancel(execution_id, reason=reason, actor=actor), "cancelled", execution_id)
        _check_running(row, "cancelled")
        outcome = await self.engine.send(execution_id, "workflow.cancel", {"reason": reason}, actor=actor)
        if row.status == "paused":  # Deferred until then; what else was is applied before, in the same transaction.
            await self.engine.resume(execution_id, reason=reason, actor=actor)
        return _done(outcome, "cancelled", execution_id)

    async def pause(self, execution_id: str, *, reason: str = "", actor: str = "") -> Outcome:
        """Begin no more steps until `resume`. Those that run go on, and their results wait. Raises `InvalidState`,
        `ExecutionNotFound`, `BusyError`, `UnavailableError`."""
        await self._execution(execution_id)
        return _done(await self.engine.pause(execution_id, reason=reason, actor=actor), "paused", execution_id)

    async def resume(self, execution_id: str, *, reason: str = "", actor: str = "") -> Outcome:
        """Go on, first with the results that came meanwhile. Raises as `pause`."""
        await self._execution(execution_id)
        return _done(await self.engine.resume(execution_id, reason=reason, actor=actor), "resumed", execution_id)

    async def checkpoint(self, execution_id: str, name: str, *, reason: str = "", actor: str = "") -> Outcome:
        """Give a name to where an execution stands, to come back to it with `resume_from`. Raises `CheckpointExists`,
        `InvalidState` (it has ended, or is rolling back), `InvalidError` (no name), `ExecutionNotFound`, `BusyError`,
        `UnavailableError`."""
        await self._execution(execution_id)
        return await checkpoints.checkpoint(self.engine, execution_id, name, reason=reason, actor=actor)

    async def resume_from(self, execution_id: str, name: str, *, reason: str = "", actor: str = "") -> Outcome:
        """Go back to a checkpoint and on from there, whether the execution runs, is paused or has ended: steps that had
        settled by then are not run again, those after it are (docs/workflow-changes.md says what becomes of
        compensations). Raises `CheckpointNotFound`, `InvalidState` (it is rolling back), `ExecutionNotFound`,
        `BusyError` (as `change`), `UnavailableError`."""
        await self._execution(execution_id)
        return await checkpoints.resume_from(self.engine, execution_id, name, reason=reason, actor=actor)

    async def change(
        self,
        execution_id: str,
        *,
        add: Iterable[Given] = (),
        replace: Iterable[Given] = (),
        remove: Iterable[str] = (),
        reason: str = "",
        actor: str = "",
    ) -> Outcome:
        """Add, replace or remove steps of a running execution that have not started; what runs goes on. The whole is
        checked as any workflow. Functions of steps that come from Python are known to this process alone: give them to
        `Orchestrator.open`, too, for the next. Raises `InvalidWorkflow`, `InvalidState` (a step has started, the
        execution has ended or is rolling back), `InvalidError`, `ExecutionNotFound`, `BusyError` (another worker on the
        store goes on with it faster than this is worked out), `UnavailableError`; then nothing has changed."""
        await self._execution(execution_id)
        return await changing.change(
            self.engine,
            execution_id,
            add=add,
            replace=replace,
            remove=remove,
            reason=reason,
            actor=actor,
            register=self._take_functions,
        )

    # Transactions

    async def begin_transaction(self, timeout: str = TIMEOUT, *, id: str | None = None, actor: str = "") -> str:  # noqa: A002
        """Begin a transaction over several executions (`execute(..., transaction=...)`); returns its id. Unless it is
        committed within `timeout` (`30s`, `PT1H`) it is rolled back. Raises `InvalidError`, `AlreadyExistsError`,
        `BusyError`, `UnavailableError`."""
        return await self._opened_transactions.begin(timeout, id=id, actor=actor)

    async def commit_transaction(
        self, transaction: str, *, timeout: float | None = None, actor: str = ""
    ) -> TransactionStatus:
        """Make all its executions final as soon as the steps of all are done, and wait for that (`timeout` in seconds).
        Raises `InvalidState` if it is rolled back instead (one of them has failed), `ExecutionTimeout` (it goes on),
        `TransactionNotFound`, `BusyError`, `UnavailableError`."""
        timeout_ns(timeout)
        await self._opened_transactions.commit(transaction, actor=actor)
        status = await self._until_ended(transaction, timeout)
        if status.status != "committed":
            raise InvalidState(f"transaction '{transaction}' was rolled back: {status.error}")
        return status

    async def rollback_transaction(
        self, transaction: str, *, reason: str = "", timeout: float | None = None, actor: str = ""
    ) -> TransactionStatus:
        """Have all its executions compensate, the newest first, one after another, and wait for that (`timeout` in
        seconds); nothing more if that is so already. Raises `InvalidState` (it is committed), `ExecutionTimeout` (it
        goes on), `TransactionNotFound`, `BusyError`, `UnavailableError`."""
        timeout_ns(timeout)
        await self._opened_transactions.roll_back(transaction, reason=reason, actor=actor)
        return await self._until_ended(transaction, timeout)

    async def transaction_status(self, transaction: str) -> TransactionStatus:
        """Where it is. Raises `TransactionNotFound`."""
        return await self._opened_transactions.status(transaction)

    async def _until_ended(self, transaction: str, timeout: float | None) -> TransactionStatus:
        if self._waiting is None:
            raise _not_open()
        return transactions.status_of(await self._waiting.until_over(transaction, self._row, timeout))

    @property
    def _opened_transactions(self) -> Transactions:
        if self._transactions is None:
            raise _not_open()
        return self._transactions

    # Queries

    async def status(self, execution_id: str) -> ExecutionStatus:
        """Where it is. Raises `ExecutionNotFound`."""
        return status_of(*await self._execution(execution_id))

    async def step_results(
        self, execution_id: str, steps: Sequence[str] | None = None, *, with_data: bool = True
    ) -> dict[str, StepResult]:
        """What its steps have come to, by id: in the order of the workflow, then the rollback steps that were needed,
        in the order in which they began; or of `steps` alone. `with_data=False` reads the rows only: no data, no errors
        and no retries. Raises `ExecutionNotFound`, `NotFoundError` for a step that the workflow doesn't have."""
        row, plan = await self._execution(execution_id)
        if steps is None:
            found = await self._results(row, plan.performed, with_data)
            undone = [one for step, one in found.items() if step not in plan.steps and one.started_at is not None]
            undone.sort(key=lambda one: one.started_at or 0)
            return {step: found[step] for step in (*plan.steps, *(one.step for one in undone))}
        if unknown := [step for step in steps if plan.step(step) is None]:
            raise NotFoundError(f"workflow '{row.definition}' version '{row.version}' has no step '{unknown[0]}'")
        return await self._results(row, steps, with_data)

    async def step_result(self, execution_id: str, step: str) -> StepResult:
        """What one step has come to: costs the same whatever the number of steps. Raises as `step_results`."""
        return (await self.step_results(execution_id, (step,)))[step]

    async def active_executions(
        self, workflow_id: str | None = None, *, limit: int = PAGE, after: str | None = None
    ) -> list[ExecutionStatus]:
        """Up to `limit` that have not ended, by id, after the id `after`; of one workflow, or of all."""
        found: list[ExecutionStatus] = []
        for status in ACTIVE:
            cursor, count = after, 0
            while count < limit:
                where = InstanceFilter(definition=workflow_id, status=status, limit=PAGE, after=cursor)
                rows = await self.engine.list(where)
                for row in rows:
                    if (plan := await self._opened_plans.of(row.definition, row.version, row.digest)) is not None:
                        found.append(status_of(row, plan))
                        count += 1
                if len(rows) < PAGE:
                    break
                cursor = rows[-1].id
        return sorted(found, key=lambda one: one.execution_id)[:limit]

    async def metrics(self, execution_id: str) -> ExecutionMetrics:
        """Its figures. Raises `ExecutionNotFound`."""
        row, plan = await self._execution(execution_id)
        results = await self._results(row, plan.performed, with_data=False)
        wrong = [step for step, one in results.items() if one.has_failed]
        results |= await self._results(row, wrong, with_data=True) if wrong else {}
        effects = await self.engine.on_reader(read_effects, self.engine.log, execution_id)
        rollback = [step.id for step in plan.rollback.values()]
        return metrics_of(status_of(row, plan), results, rollback, effects, self.engine.clock.now())

    def unperformed(self) -> list[str]:
        """The kinds of steps that the workflows here ask for and nobody in this process performs: they wait in the
        store for a process where somebody does."""
        return sorted(self._opened.unperformed(self.engine.charts.values()))

    # What the above have in common

    @property
    def _opened(self) -> StepPerformer:
        if self._performer is None:
            raise _not_open()
        return self._performer

    @property
    def _opened_plans(self) -> Plans:
        if self._plans is None:
            raise _not_open()
        return self._plans

    async def _row(self, execution_id: str) -> InstanceRow:
        try:
            return await self.engine.status(execution_id)
        except NotFoundError as error:
            raise ExecutionNotFound.like(error) from error

    async def _plan(self, row: InstanceRow) -> Plan:
        plan = await self._opened_plans.of(row.definition, row.version, row.digest)
        if plan is None:
            raise ExecutionNotFound.of_chart(row.id, row.definition)
        return plan

    async def _workflow_row(self, execution_id: str) -> InstanceRow:
        return (await self._execution(execution_id))[0]

    async def _execution(self, execution_id: str) -> tuple[InstanceRow, Plan]:
        row = await self._row(execution_id)
        return row, await self._plan(row)

    async def _results(self, row: InstanceRow, steps: Sequence[str], with_data: bool) -> dict[str, StepResult]:
        """Some at a time, so that other reads get their turn."""
        found: dict[str, StepResult] = {}
        for index in range(0, len(steps), PAGE):
            page = steps[index : index + PAGE]
            found |= await self.engine.on_reader(
                lambda page=page: read_results(self.engine.log, row, page, with_data=with_data)
            )
        return found

    async def _chart(self, workflow_id: str, version: str | None) -> Chart:
        """The chart of a workflow, the newest or that of a version. Raises `WorkflowNotFound`."""
        chart = self.engine.charts.get(workflow_id)
        if chart is None or version not in (None, chart.version):
            try:
                chart = await self.engine.on_reader(self.engine.definitions.named, workflow_id, version)
            except NotFoundError as error:
                known = ", ".join(one.id for one in await self.list_workflows()) or "none"
                wanted = f"'{workflow_id}'" if version is None else f"'{workflow_id}' version '{version}'"
                raise WorkflowNotFound(f"no workflow {wanted}; there are: {known}") from error
        if await self._opened_plans.of(chart.name, chart.version, chart.digest) is None:
            raise WorkflowNotFound(f"'{workflow_id}' is a chart, not a workflow of steps: use the engine's `start`")
        return chart

    def _workflow(self, chart: Chart) -> Workflow:
        """What a chart was compiled from, with the functions that are known here."""
        return Workflow.from_tree(chart.definition.meta["workflow"], self._opened.functions(chart.name))

    def _take_functions(self, workflow: Workflow) -> None:
        """Those of a workflow that was derived for one execution. Raises `InvalidError` for a name that has another."""
        known = self._opened.functions(workflow.id)
        for name, function in workflow.functions.items():
            if known.get(name, function) != function:
                raise InvalidError(f"workflow '{workflow.id}' has another function '{name}': give it another name")
        self._opened.register(workflow.id, {**self._named_in(workflow.performed), **workflow.functions})

    def _named_in(self, steps: Iterable[WorkflowStep]) -> dict[str, Callable[..., Any]]:
        """Of the functions given by name, those that steps name."""
        if not self._functions:
            return {}
        named = {step.function for step in steps}
        return {name: function for name, function in self._functions.items() if name in named}

    async def _adopt_stored(self) -> None:
        """Perform the steps of the workflows that are there already, of all versions that somebody may be pinned to."""
        for row in await self.engine.on_reader(self.engine.recorder.select_definitions) if self._functions else ():
            if (workflow := workflow_in(row.json)) is not None:
                self._opened.register(row.name, self._named_in(workflow.performed))
        for chart in self.engine.charts.values():
            self._opened.register(chart.name, chart.step_functions)


def _check_running(row: InstanceRow, what: str) -> None:
    if row.status in ENDED:
        raise InvalidState(f"expected execution '{row.id}' to be running to be {what}, it is {row.status}")


def _done(outcome: Outcome, what: str, execution_id: str) -> Outcome:
    if outcome.kind == "refused":
        raise InvalidState(f"execution '{execution_id}' can't be {what}, it is {outcome.status}: {outcome.reason}")
    return outcome


def _not_open() -> UnavailableError:
    return UnavailableError("the orchestrator is not open: use `async with Orchestrator.open(...) as orchestrator`")
