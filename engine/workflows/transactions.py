"""Transactions: several executions that are made final together, or undone together.

A transaction is an instance of a chart of ours (`transaction.yaml`), its coordinator, with the id that
`begin_transaction` gives. An execution joins it before it is started; once all its steps are done it is prepared and
waits. Commit makes all members final as soon as all are prepared. Rollback, a member that fails, and the timeout have
all members compensate, the newest first, one after another; those that still run stop first.

Invariants: nothing of it is kept in memory, so a crash at any moment loses none of it. What joined is started or
undone, never forgotten: to undo a member that was not started yet is to start it and cancel it, so that a start that is
still on its way finds it there. An execution that belongs to something else is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from statewright.engine.calls import EffectCall, PermanentError
from statewright.engine.engine import Engine
from statewright.engine.errors import AlreadyExistsError, IdReusedError, InvalidError, NotFoundError
from statewright.engine.events import ENDED
from statewright.engine.ids import check_id, new_id
from statewright.engine.recorder import InstanceRow
from statewright.engine.requests import Outcome, as_json
from statewright.engine.workflows.errors import InvalidState
from statewright.statecharts.chart import load_chart
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.facts import Json

TransactionState = Literal["open", "preparing", "committing", "committed", "rolling_back", "rolled_back"]
NAME = "statewright-transaction"
"""The name of the coordinator's definition."""
TIMEOUT = "1h"
_CHART = Path(__file__).with_name("transaction.yaml")


class TransactionNotFound(NotFoundError):
    """No transaction has this id."""


class TransactionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction. members: its executions in the order in which they joined; prepared: those whose steps are all
    done. error: why it was rolled back. failures: what of its members could not be made final or undone. Times are ns
    UTC."""

    transaction_id: str
    status: TransactionState
    members: tuple[str, ...]
    prepared: tuple[str, ...]
    failures: tuple[str, ...]
    error: str
    started_at: int
    ended_at: int | None


class Transactions:
    """Begins, joins and ends transactions on one engine, and does to their members what the coordinators ask for."""

    def __init__(self, engine: Engine) -> None:
        """From now on what coordinators ask for is performed here."""
        self._engine = engine
        engine.handler("transaction.commit")(self._commit)
        engine.handler("transaction.rollback")(self._roll_back)

    async def begin(self, timeout: str, *, id: str | None, actor: str) -> str:  # noqa: A002 (as of `Engine.start`)
        """Raises `InvalidError`, `AlreadyExistsError`, `BusyError`, `UnavailableError`."""
        if not isinstance(timeout, str) or not parse_duration(timeout):
            raise InvalidError(f"expected the transaction's timeout as a duration such as 30s, got {timeout!r}")
        if NAME not in self._engine.charts:
            chart = load_chart(_CHART)
            await self._engine.on_writer(lambda: self._engine.definitions.register((chart,), store=True))
        return (await self._engine.start(NAME, {"timeout": timeout}, id=id, actor=actor)).id

    async def join(
        self, transaction: str, execution: str, workflow: str, version: str | None, given: Mapping[str, Any], actor: str
    ) -> dict[str, Any]:
        """Have an execution belong to a transaction, before it is started; the context to start it with. Raises
        `TransactionNotFound`, `InvalidState` (it takes no more), `AlreadyExistsError`, `TooLargeError`, `BusyError`,
        `UnavailableError`."""
        await self.row(transaction)
        existing = await self._member(execution)
        if existing is not None and not _belongs(existing, transaction):
            raise AlreadyExistsError(f"execution '{execution}' exists, and is not of transaction '{transaction}'")
        as_json("the input", dict(given))
        member = {"execution": execution, "workflow": workflow, "version": version, "input": given, "actor": actor}
        context = _context(member, transaction)
        try:
            outcome = await self._engine.send(transaction, "join", member, event_id=f"join-{execution}", actor=actor)
        except IdReusedError as error:
            raise AlreadyExistsError(f"transaction '{transaction}' has another member '{execution}'") from error
        if outcome.kind == "refused":
            status = await self.status(transaction)
            raise InvalidState(f"expected transaction '{transaction}' to be open, it is {_words(status)}")
        return context

    async def commit(self, transaction: str, *, actor: str) -> None:
        """Ask for it; it may come to a rollback. Raises `TransactionNotFound`, `BusyError`, `UnavailableError`."""
        for execution in (await self.status(transaction)).members:
            row = await self._member(execution)
            if row is not None and _belongs(row, transaction) and row.status in ("failed", "cancelled"):
                # One that was ended from outside could not say so itself.
                told = {"execution": execution, "status": row.status, "error": row.failure}
                await self._engine.send(transaction, "member.ended", told, event_id=f"ended-{execution}")
        await self._ask(transaction, "commit", {}, actor)

    async def roll_back(self, transaction: str, *, reason: str, actor: str) -> None:
        """Ask for it; nothing if it is so already. Raises `TransactionNotFound`, `InvalidState` (it is final)."""
        said = {"reason": reason or "it was rolled back"}
        outcome = await self._ask(transaction, "rollback", said, actor)
        status = await self.status(transaction)
        if outcome.kind == "refused" and status.status in ("committing", "committed"):
            raise InvalidState(f"transaction '{transaction}' can't be rolled back: it is {_words(status)}")

    async def status(self, transaction: str) -> TransactionStatus:
        """Raises `TransactionNotFound`, `UnavailableError`."""
        return status_of(await self.row(transaction))

    async def row(self, transaction: str) -> InstanceRow:
        """That of its coordinator. Raises as `status`."""
        check_id("a transaction's id", transaction)
        row = await self._engine.on_reader(self._engine.recorder.select_instance, transaction)
        if row is None or row.definition != NAME:
            raise TransactionNotFound(f"no transaction '{transaction}'")
        return row

    async def _ask(self, transaction: str, event: str, data: Json, actor: str) -> Outcome:
        await self.row(transaction)
        return await self._engine.send(transaction, event, data, event_id=new_id(self._engine.clock.now()), actor=actor)

    # What coordinators ask for

    async def _commit(self, effect: EffectCall) -> None:
        execution = str(effect.data["execution"])
        row = await self._member(execution)
        if row is None or not _belongs(row, effect.instance_id):
            raise PermanentError(f"no execution '{execution}' in transaction '{effect.instance_id}'")
        if row.status in ("failed", "cancelled"):
            raise PermanentError(f"execution '{execution}' is {row.status}, it can't be made final")
        await self._engine.send(execution, "workflow.commit", event_id="commit", source=effect.instance_id)
        if row.status == "paused":
            await self._engine.resume(execution, reason=f"transaction '{effect.instance_id}' is committed")

    async def _roll_back(self, effect: EffectCall) -> bool:
        """Whether the member has come to its end already; if not, it says so itself."""
        execution, transaction = str(effect.data["execution"]), effect.instance_id
        row = await self._member(execution)
        if row is None:
            row = await self._started(effect.data, transaction)
        if row is None or not _belongs(row, transaction) or row.status in ENDED:
            return True
        said = {"reason": f"transaction '{transaction}' was rolled back"}
        await self._engine.send(execution, "workflow.cancel", said, event_id="rollback", source=transaction)
        if row.status == "paused":
            await self._engine.resume(execution, reason=said["reason"])
        return (await self._engine.status(execution)).status in ENDED

    async def _started(self, member: Mapping[str, Any], transaction: str) -> InstanceRow | None:
        """Start what has joined and not been started, as it was to be; None if it can't be or is gone again."""
        try:
            context = _context(member, transaction)
            execution, version, actor = member["execution"], member["version"], member["actor"]
            await self._engine.start(member["workflow"], context, id=execution, version=version, actor=actor)
        except (InvalidError, NotFoundError, AlreadyExistsError):
            return None
        return await self._member(execution)

    async def _member(self, execution: str) -> InstanceRow | None:
        try:
            return await self._engine.status(execution)
        except NotFoundError:  # Or it was pruned.
            return None


def status_of(row: InstanceRow) -> TransactionStatus:
    """The status that the row of a coordinator says."""
    context = msgspec.json.decode(row.context)
    active = msgspec.json.decode(row.configuration)
    names = ("committed", "rolled_back", "committing", "rolling_back", "preparing", "open")
    status: Any = next(name for name in names if name in active)
    return TransactionStatus(
        transaction_id=row.id,
        status=status,
        members=tuple(member["execution"] for member in context["members"]),
        prepared=tuple(context["prepared"]),
        failures=tuple(context["failures"]),
        error=context["error"] or "",
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _context(member: Mapping[str, Any], transaction: str) -> dict[str, Any]:
    """The context that a member is started with: always the same, so that starting it again is the same start."""
    return {"input": member["input"], "transaction": transaction, "execution": member["execution"]}


def _belongs(row: InstanceRow, transaction: str) -> bool:
    found: Any = msgspec.json.decode(row.context) if row.context else {}
    return isinstance(found, Mapping) and found.get("transaction") == transaction


def _words(status: TransactionStatus) -> str:
    return status.status.replace("_", " ") + (f": {status.error}" if status.error else "")
