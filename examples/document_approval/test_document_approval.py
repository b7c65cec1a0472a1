"""The example, tried: every path through the chart on a virtual clock, and the whole on an engine with its handlers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import EffectCall, Engine, LoggedFact, ManualClock, PermanentError
from statewright.engine.events import AnyFact, EventRefused, Macrostep
from statewright.examples.document_approval.chart import document_approval
from statewright.examples.document_approval.handlers import REVIEWERS, register, reviewer_of
from statewright.statecharts import load_chart
from statewright.statecharts.simulate import Line, Simulation, parse_token

FOLDER = Path(__file__).parent
CHART = load_chart(FOLDER / "chart.yaml")
HOUR_S = 3600
PATIENCE_S = 10.0

SUBMIT = 'submit={"by": "ann"}'
ASSIGNED = 'done.effect.assign_reviewer={"reviewer": "bob"}'
IN_REVIEW = (SUBMIT, ASSIGNED)
COSTLY = {"amount": 10_001}
ARCHIVED = 'done.effect.archive={"reference": "a/1"}'


def by(event: str, who: str, **data: Any) -> str:
    """The token of an event."""
    return f"{event}={json.dumps({'by': who, **data})}"


def simulate(*tokens: str, context: dict[str, Any] | None = None) -> tuple[Simulation, list[Line]]:
    """The simulation after `tokens`, and the lines that they gave, that of the start first."""
    simulation = Simulation(CHART, context or {"amount": 900})
    return simulation, [simulation.begin(), *(simulation.feed(parse_token(token)) for token in tokens)]


def messages(line: Line) -> list[tuple[str, str]]:
    """(to, about) of the notifications of one line."""
    return [(effect.data["to"], effect.data["about"]) for effect in line.effects if effect.name == "notify"]


def test_yaml_and_python_are_the_same_definition() -> None:
    assert document_approval.digest == CHART.digest


@pytest.mark.parametrize(
    ("context", "tokens", "leaves"),
    [
        ({}, (), ["draft"]),
        ({}, (SUBMIT,), ["submitted"]),
        ({}, IN_REVIEW, ["awaiting_approval", "on_time"]),
        ({}, (SUBMIT, 'assign={"reviewer": "carol"}'), ["awaiting_approval", "on_time"]),
        ({}, (*IN_REVIEW, by("approve", "bob")), ["archiving"]),
        ({}, (*IN_REVIEW, by("approve", "bob"), ARCHIVED), ["archived"]),
        ({"amount": 10_000}, (*IN_REVIEW, by("approve", "bob")), ["archiving"]),
        (COSTLY, (*IN_REVIEW, by("approve", "bob")), ["awaiting_second_approval", "on_time"]),
        (COSTLY, (*IN_REVIEW, by("approve", "bob"), by("approve", "eve")), ["archiving"]),
        ({}, (*IN_REVIEW, by("reject", "bob", comment="no")), ["rejected"]),
        (COSTLY, (*IN_REVIEW, by("approve", "bob"), by("reject", "eve")), ["rejected"]),
        ({}, (*IN_REVIEW, by("request_changes", "bob")), ["changes_requested"]),
        ({}, (*IN_REVIEW, by("request_changes", "bob"), by("resubmit", "ann")), ["awaiting_approval", "on_time"]),
        ({}, (SUBMIT, by("withdraw", "ann")), ["withdrawn"]),
        ({}, (*IN_REVIEW, by("withdraw", "ann")), ["withdrawn"]),
        ({}, (*IN_REVIEW, by("request_changes", "bob"), by("withdraw", "ann")), ["withdrawn"]),
        ({}, (*IN_REVIEW, "+24h"), ["awaiting_approval", "reminded"]),
        ({}, (*IN_REVIEW, "+72h"), ["awaiting_approval", "escalated"]),
        ({}, (*IN_REVIEW, "deadline"), ["awaiting_approval", "escalated"]),
        ({}, (*IN_REVIEW, by("approve", "bob"), 'error.effect.archive={"message": "down"}'), ["archive_failed"]),
        ({}, (*IN_REVIEW, by("approve", "bob"), 'error.effect.archive={"message": "down"}', "retry"), ["archiving"]),
        ({}, (*IN_REVIEW, by("approve", "bob"), 'error.effect.archive={"message": "down"}', "+1h"), ["archiving"]),
        ({}, (SUBMIT, 'error.effect.assign_reviewer={"message": "nobody is in"}'), ["submitted"]),
    ],
)
def test_path(context: dict[str, Any], tokens: Sequence[str], leaves: list[str]) -> None:
    simulation, lines = simulate(*tokens, context={"amount": 900} | context)
    assert simulation.reason == ""
    assert list(lines[-1].leaves) == leaves
    assert lines[-1].status == ("completed" if leaves[0] in ("archived", "rejected", "withdrawn") else "active")


@pytest.mark.parametrize(
    ("context", "tokens", "refused", "reason"),
    [
        ({}, IN_REVIEW, by("approve", "ann"), "context.requester"),
        ({}, IN_REVIEW, by("approve", ""), "was false"),
        ({}, IN_REVIEW, "approve={}", "failed: Key not found"),
        (COSTLY, (*IN_REVIEW, by("approve", "bob")), by("approve", "bob"), "context.approvers"),
        (COSTLY, (*IN_REVIEW, by("approve", "bob")), by("approve", "ann"), "context.requester"),
        ({}, IN_REVIEW, by("reject", "ann"), "context.requester"),
        ({}, IN_REVIEW, by("withdraw", "bob"), "event.data.by == context.requester"),
        ({}, (SUBMIT,), ASSIGNED.replace("bob", "ann"), "event.data.reviewer != context.requester"),
        ({}, (SUBMIT,), by("approve", "bob"), "no transition for 'approve' in state 'submitted'"),
        ({}, (), "submit", "event.data.by"),
        ({}, (), 'data.processed={"amount": "much"}', "field 'amount' expected int"),
        ({}, (*IN_REVIEW, by("reject", "bob")), by("approve", "bob"), "the instance is completed"),
    ],
)
def test_refusal(context: dict[str, Any], tokens: Sequence[str], refused: str, reason: str) -> None:
    simulation, lines = simulate(*tokens, refused, context={"amount": 900} | context)
    assert reason in simulation.reason
    assert lines[-1].configuration == lines[-2].configuration
    assert lines[-1].context == lines[-2].context
    assert lines[-1].effects == ()


def test_the_amount_that_was_read_from_the_document_decides() -> None:
    _, lines = simulate('data.processed={"amount": 25000}', *IN_REVIEW, by("approve", "bob"))
    assert lines[1].context["amount"] == 25_000
    assert "awaiting_second_approval" in lines[-1].leaves


def test_reminder_and_escalation_come_once_each_and_on_time() -> None:
    _, lines = simulate(*IN_REVIEW, "+23h59m59s", "+1s", "+47h59m59s", "+1s", "+1000h")
    assert [messages(line) for line in lines[3:]] == [
        [],
        [("bob", "your review is still awaited")],
        [],
        [("manager", "the review is overdue")],
        [],
    ]


def test_delays_come_from_the_context() -> None:
    context = {"amount": 900, "reminder_after": "1s", "escalation_after": "PT2S"}
    _, lines = simulate(*IN_REVIEW, "+1s", "+1s", context=context)
    assert [line.leaves[1] for line in lines[-2:]] == ["reminded", "escalated"]


def test_a_deadline_escalates_only_once() -> None:
    simulation, lines = simulate(*IN_REVIEW, "deadline", "deadline", "+1000h")
    assert [len(messages(line)) for line in lines[-3:]] == [1, 0, 0]
    assert "no transition for 'deadline'" in simulation.reason


def test_a_decision_stops_the_clock() -> None:
    _, lines = simulate(*IN_REVIEW, by("request_changes", "bob"), "+1000h")
    assert lines[-1].leaves == ("changes_requested",)
    assert lines[-1].effects == ()


def test_each_revision_is_approved_and_reminded_anew() -> None:
    loop = (by("request_changes", "bob", comment="cheaper"), by("resubmit", "ann", amount=20_000))
    _, lines = simulate(*IN_REVIEW, by("approve", "bob"), *loop, *loop, "+24h", context={"amount": 30_000})
    assert lines[3].context["approvers"] == ["bob"]
    assert messages(lines[4]) == [("ann", "changes are requested: cheaper")]
    assert lines[-1].context["revision"] == 3
    assert lines[-1].context["approvers"] == []
    assert lines[-1].context["amount"] == 20_000
    assert messages(lines[-1]) == [("bob", "your review is still awaited")]


def test_a_resubmission_without_an_amount_keeps_it() -> None:
    _, lines = simulate(*IN_REVIEW, by("request_changes", "bob"), by("resubmit", "ann"))
    assert lines[-1].context["amount"] == 900


def test_only_a_reviewer_who_was_asked_hears_of_a_withdrawal() -> None:
    _, early = simulate(SUBMIT, by("withdraw", "ann"))
    _, late = simulate(*IN_REVIEW, by("withdraw", "ann"))
    assert messages(early[-1]) == []
    assert messages(late[-1]) == [("bob", "withdrawn, no review is needed")]


def test_undelivered_messages_do_not_stop_an_approval() -> None:
    simulation, lines = simulate(*IN_REVIEW, 'error.effect.notify={"message": "no such mailbox"}')
    assert simulation.steps[-1].logs == ("not delivered: no such mailbox",)
    assert lines[-1].leaves == lines[-2].leaves


def test_the_output_tells_how_it_ended() -> None:
    approved, _ = simulate(*IN_REVIEW, by("approve", "bob"), ARCHIVED)
    rejected, _ = simulate(*IN_REVIEW, by("reject", "bob", comment="too dear"))
    assert approved.output == {"reference": "a/1", "approvers": ["bob"]}
    assert rejected.output == {"comment": "too dear"}


@pytest.mark.parametrize(
    ("subject", "message", "event"),
    [
        (
            "user.action",
            {"workflowInstanceId": "d-1", "actionId": "a-1", "action": "approve", "user": "bob", "page": 3},
            ("d-1", "approve", {"by": "bob", "comment": ""}, "a-1"),
        ),
        (
            "data.processed",
            {"workflowInstanceId": "d-1", "jobId": "j-1", "amount": 7, "engine": "ocr"},
            ("d-1", "data.processed", {"amount": 7}, "j-1"),
        ),
        (
            "timer.expired",
            {"workflowInstanceId": "d-1", "timerId": "t-1"},
            ("d-1", "deadline", {"workflowInstanceId": "d-1", "timerId": "t-1"}, "t-1"),
        ),
    ],
)
def test_foreign_messages_become_events(subject: str, message: dict[str, Any], event: tuple[Any, ...]) -> None:
    subscription = next(one for one in CHART.subscriptions if one.subject == subject)
    assert tuple(subscription.map(subject, {}, message)) == event


@pytest.mark.parametrize("requester", ["ann", *REVIEWERS])
def test_nobody_reviews_their_own_request(requester: str) -> None:
    chosen = {reviewer_of(f"d-{number}", requester) for number in range(100)}
    assert chosen == set(REVIEWERS) - {requester}


# On an engine, with the handlers


class Watch:
    """Follows an engine's log, so that a test can wait for what happens by itself."""

    name = "watch"

    def __init__(self) -> None:
        self.facts: list[AnyFact] = []
        self._news = asyncio.Condition()

    async def position(self) -> int:
        return 0

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        async with self._news:
            self.facts += [entry.fact for entry in facts]
            self._news.notify_all()

    async def entered(self, state: str, times: int = 1) -> None:
        """Return once `state` has been entered `times` times."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.entries(state)) >= times)

    async def performed(self, effect: str, times: int) -> None:
        """Return once the results of `effect` have been recorded `times` times."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: self.events.count(f"done.effect.{effect}") >= times)

    def entries(self, state: str) -> list[Macrostep]:
        return [fact for fact in self.facts if isinstance(fact, Macrostep) and state in fact.entered]

    @property
    def events(self) -> list[str]:
        """The names of the recorded triggers, in order."""
        return [fact.trigger.name for fact in self.facts if getattr(fact, "trigger", None) is not None]  # type: ignore[union-attr]


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[tuple[Engine, Watch, ManualClock]]:
    """An engine with the example's handlers, on a store in `folder` and a clock that moves when told."""
    clock, watch = ManualClock(), Watch()
    async with Engine.open(f"sqlite:///{folder}/approvals.db", charts=[CHART], clock=clock) as engine:
        register(engine, folder)
        await engine.attach(watch)
        yield engine, watch, clock


async def test_every_effect_has_a_handler_and_no_handler_is_idle(tmp_path: Path) -> None:
    async with office(tmp_path) as (engine, _, _):
        assert set(engine.handled) == set(CHART.handler_names)


async def test_from_draft_to_archive(tmp_path: Path) -> None:
    async with office(tmp_path) as (engine, watch, _):
        await engine.start("document_approval", {"amount": 900, "title": "a bench"}, id="d-17")
        await engine.send("d-17", "submit", {"by": "ann"}, event_id="e-1", actor="ann")
        await watch.entered("under_review")
        own = await engine.send("d-17", "approve", {"by": "ann"})
        assert own.kind == "refused"
        await engine.send("d-17", "approve", {"by": "bob"})
        await watch.entered("archived")
        await watch.performed("notify", 2)
        row = await engine.status("d-17")
        assert row.status == "completed"
        assert json.loads(row.context)["reference"] == "archive/d-17.json"
        refusals = [fact for fact in await engine.history("d-17") if isinstance(fact, EventRefused)]
        assert [refusal.reason for refusal in refusals] == [own.reason]
    archived = json.loads((tmp_path / "archive" / "d-17.json").read_text())
    assert archived == {"title": "a bench", "amount": 900, "requester": "ann", "approvers": ["bob"], "revision": 1}
    outbox = [json.loads(path.read_text()) for path in sorted((tmp_path / "outbox").iterdir())]
    assert [(message["document"], message["about"]) for message in outbox] == [
        ("d-17", "please review"),
        ("d-17", "approved"),
    ]


async def test_reminder_and_escalation_on_the_engine(tmp_path: Path) -> None:
    async with office(tmp_path) as (engine, watch, clock):
        await engine.start("document_approval", {"amount": 900}, id="d-1")
        await engine.send("d-1", "submit", {"by": "ann"})
        await watch.entered("on_time")
        clock.advance(24 * HOUR_S)
        await watch.entered("reminded")
        clock.advance(48 * HOUR_S)
        await watch.entered("escalated")
        entered, reminded, escalated = (watch.entries(state)[0].time for state in ("on_time", "reminded", "escalated"))
        assert reminded - entered == 24 * HOUR_S * 10**9
        assert escalated - entered == 72 * HOUR_S * 10**9


async def test_reminders_outlive_the_process(tmp_path: Path) -> None:
    async with office(tmp_path) as (engine, watch, _):
        await engine.start("document_approval", {"amount": 900}, id="d-1")
        await engine.send("d-1", "submit", {"by": "ann"})
        await watch.entered("on_time")
    async with office(tmp_path) as (engine, watch, clock):
        clock.advance(100 * HOUR_S)
        await watch.entered("escalated")
        assert len(watch.entries("reminded")) == len(watch.entries("escalated")) == 1


async def test_the_history_keeps_every_round_of_changes(tmp_path: Path) -> None:
    async with office(tmp_path) as (engine, watch, _):
        await engine.start("document_approval", {"amount": 30_000}, id="d-1")
        await engine.send("d-1", "submit", {"by": "ann"})
        for number in (1, 2):
            await watch.entered("under_review", number)
            await engine.send("d-1", "request_changes", {"by": "bob", "comment": f"round {number}"})
            await engine.send("d-1", "resubmit", {"by": "ann", "amount": 30_000 - number})
        await engine.send("d-1", "approve", {"by": "bob"})
        await engine.send("d-1", "approve", {"by": "carol"})
        await watch.entered("archived")
        comments = [fact.context["comment"] for fact in watch.entries("changes_requested")]
        assert comments == ["round 1", "round 2"]
        before = await engine.replay("d-1", to_sequence=watch.entries("changes_requested")[1].sequence)
        assert before.instance.context["amount"] == 29_999
        assert before.instance.context["revision"] == 2


async def test_a_broken_archive_is_tried_again_after_an_hour(tmp_path: Path) -> None:
    down = True
    async with office(tmp_path) as (engine, watch, clock):

        @engine.handler("archive")
        async def archive(call: EffectCall) -> dict[str, str]:
            if down:
                raise PermanentError("the disk is being changed")
            return {"reference": call.instance_id}

        await engine.start("document_approval", {"amount": 900}, id="d-1")
        await engine.send("d-1", "submit", {"by": "ann"})
        await watch.entered("under_review")
        await engine.send("d-1", "approve", {"by": "bob"})
        await watch.entered("archive_failed")
        down = False
        clock.advance(HOUR_S)
        await watch.entered("archived")
        assert (await engine.status("d-1")).status == "completed"


def test_the_embedded_program_runs(tmp_path: Path) -> None:
    program = [sys.executable, str(FOLDER / "main.py")]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "approves her own request: refused, guard" in done.stdout
    assert len(list((tmp_path / "archive").iterdir())) == 1
