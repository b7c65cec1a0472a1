"""What the demo does, phase by phase, and how each claim is checked against what was recorded.

Three documents: one small, one over the limit, one whose reviewer takes too long. And a crowd that is being submitted
when the engine is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from statewright.adapters.cli import wiring
from statewright.adapters.cli.engine_process import EngineProcess
from statewright.adapters.cli.options import Options
from statewright.engine import Outcome
from statewright.engine.events import AnyFact, EventRefused, Macrostep, TransitionTaken
from statewright.projections.metrics import Figures

if TYPE_CHECKING:
    from statewright.adapters.cli.wiring import Client

CROWD = 40
SENDERS = 8
KILLED_AT = 12
"""How many answers the crowd's senders have had when the engine is killed."""
UNTIL_TIMEOUT_S = 5.0
POLL_S = 0.01
SECOND_NS = 1_000_000_000


class Expected(Exception):
    """Something that the demo claims is not so. The message says what was expected and what came."""


class Story:
    """The phases, in order. `async with` it: the connection to the engine is closed on the way out."""

    def __init__(self, options: Options, engine: EngineProcess, folder: Path, prefix: str) -> None:
        self._options = options
        self._engine = engine
        self._folder = folder
        self._stack = AsyncExitStack()
        self._baseline = Figures()
        self._unanswered: dict[str, str] = {}
        """Document -> id of the event of which nobody knows whether it was recorded."""
        self._answers = 0
        self._client: Client
        self.before_first = f"{prefix}d-0"
        """The cursor before the first document."""
        self.small, self.costly, self.slow = (f"{prefix}d-{number}" for number in (1, 2, 3))
        self.crowd = [f"{prefix}e-{number:02}" for number in range(1, CROWD + 1)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def phases(self) -> Sequence[tuple[str, Callable[[], Awaitable[str]]]]:
        """(name, coroutine function that does it and returns what to say), in order."""
        return (
            ("serve", self.serve),
            ("approve", self.approve_small),
            ("publish", self.publish_costly),
            ("refuse", self.refuse_own_approval),
            ("timer", self.set_reminder),
            ("kill", self.kill_engine),
            ("restart", self.restart),
            ("retry", self.retry),
            ("remind", self.await_reminder),
            ("finish", self.finish),
            ("verify", self.verify_figures),
        )

    async def serve(self) -> str:
        ready = await self._connect()
        self._baseline = await self._figures()
        return (
            f"The engine runs as process {ready['pid']}, with its own nats-server at {ready['nats']} and SQLite at "
            f"{ready['store']}. This process is a client: all it knows comes over NATS."
        )

    async def approve_small(self) -> str:
        await self._start(self.small, amount=900, title="a bench")
        expect_kind(await self._send(self.small, "submit", by="ann"), "recorded")
        row = await self._until(self.small, "under_review")
        reviewer = row["context"]["reviewer"]
        expect_kind(await self._send(self.small, "approve", by=reviewer), "recorded")
        row = await self._until(self.small, "archived")
        expect(row["status"] == "completed", f"{self.small} to be completed, got {row['status']}")
        return (
            f"{self.small}: ann asks for 900, a handler assigned {reviewer} as reviewer, {reviewer} approved, it is in "
            f"{row['context']['reference']}. Each answer came after the fact was on disk."
        )

    async def publish_costly(self) -> str:
        await self._start(self.costly, amount=500, title="a roof")
        await self._publish("data.processed", jobId="scan-1", amount=25_000, workflowInstanceId=self.costly)
        await self._until_context(self.costly, "amount", 25_000)
        await self._client.publish(self.costly, "submit", {"by": "ann"}, event_id=f"{self.costly}-submit", actor="ann")
        await self._until(self.costly, "under_review")
        return (
            f"{self.costly}: a scanner that knows nothing of workflows published on 'data.processed' that the amount "
            "is 25000, not 500, which the chart maps to an event; the submission came through JetStream."
        )

    async def refuse_own_approval(self) -> str:
        own = await self._send(self.costly, "approve", by="ann")
        expect_kind(own, "refused")
        rule = "context.requester"
        expect(rule in own.reason, f"the guard on '{rule}' as the reason, got '{own.reason}'")
        await self._user_action(self.costly, "approve", "bob")
        await self._until(self.costly, "awaiting_second_approval")
        again = await self._send(self.costly, "approve", by="bob")
        expect_kind(again, "refused")
        return (
            f"{self.costly}: over the limit, so two must approve. bob did, by a message on 'user.action'; a second "
            f"time he may not, and ann may not at all. Refusals are recorded with their reason: {own.reason}."
        )

    async def set_reminder(self) -> str:
        await self._start(self.slow, amount=700, title="a lamp", reminder_after="1s")
        expect_kind(await self._send(self.slow, "submit", by="ann"), "recorded")
        await self._until(self.slow, "on_time")
        return (
            f"{self.slow}: the same chart, but its context says that the reminder is due in 1 s instead of 24 h. "
            "A timer is a row in the database."
        )

    async def kill_engine(self) -> str:
        await asyncio.gather(*(self._start(document, amount=100) for document in self.crowd))
        self._unanswered = {document: f"{document}-submit" for document in self.crowd}
        waiting = iter(self.crowd)
        enough = asyncio.Event()

        async def sender() -> None:
            for document in waiting:
                await self._answered(document, "submit", "ann")
                if self._answers >= KILLED_AT:
                    enough.set()

        senders = [asyncio.create_task(sender()) for _ in range(SENDERS)]
        try:
            await asyncio.wait_for(enough.wait(), UNTIL_TIMEOUT_S)
        except TimeoutError:
            raise Expected(f"expected {KILLED_AT} answers within {UNTIL_TIMEOUT_S:g} s, got {self._answers}") from None
        self._engine.kill()
        self._unanswered[self.costly] = f"{self.costly}-second"
        senders.append(asyncio.create_task(self._answered(self.costly, "approve", "carol")))
        code = await self._engine.ended()
        expect(code < 0, f"the engine to end by the signal, got exit code {code}")
        await asyncio.wait(senders, timeout=0.05)  # What had reached this process before the end still counts.
        for task in senders:
            task.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        expect(self.costly in self._unanswered, "the approval that was sent with the kill to stay unanswered")
        await self._stack.aclose()
        return (
            f"SIGKILL, while {SENDERS} senders submit {CROWD} documents: {self._answers} answers came, "
            f"{len(self._unanswered)} did not, among them that to carol's approval of {self.costly}. "
            "The senders can't know what was recorded."
        )

    async def restart(self) -> str:
        started = monotonic()
        await self._connect()
        seconds = monotonic() - started
        row = await self._client.status(self.small)
        expect(row["status"] == "completed", f"{self.small} to be completed still, got {row['status']}")
        row = await self._client.status(self.costly)
        expect("bob" in row["context"]["approvers"], f"bob's approval to be kept, got {row['context']['approvers']}")
        where = row["configuration"][-1] if row["status"] != "active" else " and ".join(leaves(row))
        return (
            f"Started again in {seconds:.2f} s on the same store: {self.costly} is where it was ({where}, approved by "
            f"{' and '.join(row['context']['approvers'])}). Recovery folds recorded facts and runs none of the chart."
        )

    async def retry(self) -> str:
        recorded = 0
        events = {document: f"{document}-submit" for document in self.crowd} | {self.costly: f"{self.costly}-second"}
        for document, event_id in events.items():
            name, by = ("approve", "carol") if document == self.costly else ("submit", "ann")
            outcome = await self._client.send(document, name, {"by": by}, event_id=event_id, actor=by)
            if document not in self._unanswered:
                expect_kind(outcome, "duplicate")  # An answer was given: so it was, and is, recorded.
            expect(outcome.kind != "refused" and not outcome.reason, f"{event_id} to be recorded, got {outcome}")
            recorded += outcome.kind == "recorded"
        for document, facts in (await self._histories(events)).items():
            triggers = [fact.trigger.id for fact in facts if isinstance(fact, TransitionTaken | EventRefused)]
            times = triggers.count(events[document])
            expect(times == 1, f"event {events[document]} to be recorded once, got {times} times")
        lost, unanswered = recorded, len(self._unanswered)
        return (
            f"All {len(events)} were sent again with the ids they had. The {self._answers} answered ones and "
            f"{unanswered - lost} others had been recorded (answer 'duplicate'), {lost} had not. Now each is, once."
        )

    async def await_reminder(self) -> str:
        await self._until(self.slow, "reminded")
        facts = [fact for fact in (await self._histories([self.slow]))[self.slow] if isinstance(fact, Macrostep)]
        entered = next(fact.time for fact in facts if "on_time" in fact.entered)
        fired = [fact.time for fact in facts if "reminded" in fact.entered]
        expect(len(fired) == 1, f"one reminder, got {len(fired)}")
        waited = fired[0] - entered
        expect(waited >= SECOND_NS, f"the reminder after 1 s, got it after {waited / SECOND_NS:.3f} s")
        return (
            f"{self.slow}: the reminder that was set before the kill fired once, {waited / SECOND_NS:.2f} s after it "
            "was set. Deadlines outlive the process that set them."
        )

    async def finish(self) -> str:
        reviewer = (await self._client.status(self.slow))["context"]["reviewer"]
        await self._user_action(self.slow, "approve", reviewer)
        for document in (self.costly, self.slow):
            await self._until(document, "archived")
        for document in self.crowd:
            await self._until(document, "under_review")
        notified = await self._notified((self.small, self.costly, self.slow, *self.crowd))
        archived = sorted(path.stem for path in (self._folder / "archive").glob("*.json"))
        expect(archived == [self.small, self.costly, self.slow], f"the three documents in the archive, got {archived}")
        sent = sorted(path.stem for path in (self._folder / "outbox").glob("*.json"))
        expect(sent == sorted(notified), f"a message for each of {len(notified)} effects, got {len(sent)}")
        return (
            "All three are archived, the crowd is under review. Effects are performed at least once; this handler "
            f"names its files by the effect's id, so {len(sent)} effects made {len(sent)} messages, kill or no kill."
        )

    async def verify_figures(self) -> str:
        figures = await self._figures()
        started, completed = figures.started - self._baseline.started, figures.completed - self._baseline.completed
        expect(started == CROWD + 3, f"{CROWD + 3} documents started, got {started}")
        expect(completed == 3, f"3 documents completed, got {completed}")
        histories = await self._histories((self.small, self.costly, self.slow, *self.crowd))
        facts = [fact for history in histories.values() for fact in history]
        refused = sum(isinstance(fact, EventRefused) for fact in facts)
        counted = figures.refused - self._baseline.refused
        expect(refused == counted, f"as many refusals in the metrics as in the histories, {refused}, got {counted}")
        return f"{len(facts)} facts tell the whole story, and history, list and metrics are all read from them:"

    # Talking to the engine

    async def _connect(self) -> dict[str, Any]:
        ready = await self._engine.start()
        self._client = await self._stack.enter_async_context(wiring.connected(self._options))
        return ready

    async def _start(self, document: str, **context: Any) -> None:
        await self._client.start("document_approval", context, id=document, actor="ann")

    async def _send(self, document: str, name: str, *, by: str) -> Outcome:
        return await self._client.send(document, name, {"by": by}, actor=by)

    async def _answered(self, document: str, name: str, by: str) -> None:
        """Send the event that is noted as unanswered; cross it off once there is an answer."""
        event_id = self._unanswered[document]
        outcome = await self._client.send(document, name, {"by": by}, event_id=event_id, actor=by)
        expect_kind(outcome, "recorded")
        del self._unanswered[document]
        self._answers += 1

    async def _publish(self, subject: str, **message: Any) -> None:
        """As a publisher does that knows neither Statewright nor CloudEvents."""
        nc = self._client.connection.nc
        await nc.publish(subject, msgspec.json.encode(message))
        await nc.flush()

    async def _user_action(self, document: str, action: str, user: str) -> None:
        action_id = f"{document}-{action}-{user}"
        await self._publish("user.action", actionId=action_id, action=action, user=user, workflowInstanceId=document)

    async def _until(self, document: str, state: str) -> dict[str, Any]:
        """The row of the document once it is in `state`: what follows from handlers and timers takes its time."""
        return await self._until_row(document, lambda row: state in row["configuration"], f"be in '{state}'")

    async def _until_context(self, document: str, field: str, value: Any) -> None:
        await self._until_row(document, lambda row: row["context"][field] == value, f"have {field} = {value}")

    async def _until_row(self, document: str, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        deadline = monotonic() + UNTIL_TIMEOUT_S
        while not holds(row := await self._client.status(document)):
            expect(monotonic() < deadline, f"{document} to {what} within {UNTIL_TIMEOUT_S:g} s, got {row}")
            await asyncio.sleep(POLL_S)
        return row

    # Looking into the store, beside the engine

    async def _histories(self, documents: Iterable[str]) -> dict[str, Sequence[AnyFact]]:
        async with wiring.reading(self._options) as engine:
            return {document: await engine.history(document) for document in documents}

    async def _notified(self, documents: Iterable[str]) -> list[str]:
        """The ids of the notifications that were asked for, once all effects are done."""
        deadline = monotonic() + UNTIL_TIMEOUT_S
        asked: list[str] = []
        async with wiring.reading(self._options) as engine:
            for document in documents:
                while pending := [row for row in await engine.effects(document) if row.state != "done"]:
                    expect(monotonic() < deadline, f"the effects of {document} to be done, got {pending}")
                    await asyncio.sleep(POLL_S)
                asked += [row.effect_id for row in await engine.effects(document) if row.name == "notify"]
        return asked

    async def _figures(self) -> Figures:
        total = Figures()
        for (definition, _), figures in (await wiring.current_metrics(self._options)).items():
            if definition == "document_approval":
                total.merge(figures)
        return total


def expect(holds: bool, what: str) -> None:
    """Raise `Expected` unless it holds."""
    if not holds:
        raise Expected(f"expected {what}")


def expect_kind(outcome: Outcome, kind: str) -> None:
    expect(outcome.kind == kind, f"the event to be {kind}, got {outcome.kind} {outcome.reason}".rstrip())


def leaves(row: dict[str, Any]) -> list[str]:
    """Where an active document stands, for people: without the states around."""
    around = ("under_review", "decision", "attention", "approved")
    return [state for state in row["configuration"] if state not in around]
