"""The chart of `chart.yaml`, written in Python: both have the same digest, so they are the same definition."""

from __future__ import annotations

from typing import Any

import msgspec

from statewright.statecharts.builder import assign, cancel, chart, final, if_, log, parallel, perform, send, state, to

BY_REQUESTER = "event.data.by == context.requester"
BY_A_COLLEAGUE = "event.data.by != context.requester"
MAY_APPROVE = '!(event.data.by in ["", context.requester] + context.approvers)'
OTHER_REVIEWER = "event.data.reviewer != context.requester"
COMMENT = 'has(event.data.comment) ? event.data.comment : ""'

WITHDRAW = to("withdrawn", guard=BY_REQUESTER)
APPROVE = to(
    "counting",
    guard=MAY_APPROVE,
    actions=assign(approvers="context.approvers + [event.data.by]", comment=COMMENT),
)
ASSIGN_REVIEWER = to("under_review", guard=OTHER_REVIEWER, actions=assign(reviewer="event.data.reviewer"))


class Approval(msgspec.Struct):
    """The context. `amount` is in whole units of the currency; delays are durations such as 24h."""

    amount: int
    title: str = ""
    limit: int = 10_000
    reminder_after: str = "24h"
    escalation_after: str = "72h"
    requester: str = ""
    reviewer: str = ""
    approvers: list[str] = []
    comment: str = ""
    revision: int = 1
    reference: str = ""


def notify(to: str, about: str) -> dict[str, Any]:
    """Have somebody told something; both are CEL."""
    return perform("notify", {"to": to, "about": about})


SUBSCRIPTIONS = [
    {
        "subject": "user.action",
        "instance": "data.workflowInstanceId",
        "eventexpr": "data.action",
        "id": "data.actionId",
        "data": '{"by": data.user, "comment": has(data.comment) ? data.comment : ""}',
    },
    {
        "subject": "data.processed",
        "instance": "data.workflowInstanceId",
        "event": "data.processed",
        "id": "data.jobId",
        "data": '{"amount": data.amount}',
    },
    {
        "subject": "timer.expired",
        "instance": "data.workflowInstanceId",
        "event": "deadline",
        "id": "data.timerId",
    },
]

DRAFT = state(
    "draft",
    on={
        "data.processed": to(actions=assign(amount="event.data.amount")),
        "submit": to("submitted", guard='event.data.by != ""', actions=assign(requester="event.data.by")),
    },
)

SUBMITTED = state(
    "submitted",
    description="Waits for a reviewer, whom the handler finds or a person names.",
    entry=perform("assign_reviewer", {"requester": "context.requester", "amount": "context.amount"}),
    on={
        "done.effect.assign_reviewer": ASSIGN_REVIEWER,
        "error.effect.assign_reviewer": to(
            actions=notify("'manager'", "'no reviewer was found: ' + event.data.message")
        ),
        "assign": ASSIGN_REVIEWER,
        "withdraw": WITHDRAW,
    },
)

DECISION = state(
    "decision",
    initial="awaiting_approval",
    states=[
        state("awaiting_approval", on={"approve": APPROVE}),
        state(
            "counting",
            always=[
                to("approved", guard="context.amount <= context.limit || size(context.approvers) >= 2"),
                to("awaiting_second_approval"),
            ],
        ),
        state(
            "awaiting_second_approval",
            entry=notify("'manager'", "'a second approval is needed'"),
            on={"approve": APPROVE},
        ),
    ],
)

ATTENTION = state(
    "attention",
    initial="on_time",
    entry=send("overdue", id="overdue", delay="context.escalation_after"),
    exit=cancel("overdue"),
    states=[
        state("on_time", on={"overdue deadline": "escalated"}, after={"context.reminder_after": "reminded"}),
        state(
            "reminded",
            entry=notify("context.reviewer", "'your review is still awaited'"),
            on={"overdue deadline": "escalated"},
        ),
        state("escalated", entry=[cancel("overdue"), notify("'manager'", "'the review is overdue'")]),
    ],
)

UNDER_REVIEW = parallel(
    "under_review",
    entry=notify("context.reviewer", "'please review'"),
    on={
        "reject": to("rejected", guard=BY_A_COLLEAGUE, actions=assign(comment=COMMENT)),
        "request_changes": to("changes_requested", guard=BY_A_COLLEAGUE, actions=assign(comment=COMMENT)),
        "withdraw": WITHDRAW,
    },
    states=[DECISION, ATTENTION],
)

CHANGES_REQUESTED = state(
    "changes_requested",
    entry=notify("context.requester", "'changes are requested: ' + context.comment"),
    on={
        "resubmit": to(
            "under_review",
            guard=BY_REQUESTER,
            actions=assign(
                amount="has(event.data.amount) ? event.data.amount : context.amount",
                approvers=[],
                revision="context.revision + 1",
            ),
        ),
        "withdraw": WITHDRAW,
    },
)

DOCUMENT = {name: f"context.{name}" for name in ("title", "amount", "requester", "approvers", "revision")}

APPROVED = state(
    "approved",
    initial="archiving",
    entry=notify("context.requester", "'approved'"),
    states=[
        state(
            "archiving",
            entry=perform("archive", DOCUMENT),
            on={
                "done.effect.archive": to("archived", actions=assign(reference="event.data.reference")),
                "error.effect.archive": "archive_failed",
            },
        ),
        state(
            "archive_failed",
            entry=notify("'manager'", "'the archive does not answer'"),
            on={"retry": "archiving"},
            after={"1h": "archiving"},
        ),
    ],
)

ENDS = [
    final("archived", output={"reference": "context.reference", "approvers": "context.approvers"}),
    final(
        "rejected",
        entry=notify("context.requester", "'rejected: ' + context.comment"),
        output={"comment": "context.comment"},
    ),
    final(
        "withdrawn",
        entry=if_('context.reviewer != ""', notify("context.reviewer", "'withdrawn, no review is needed'")),
    ),
]

document_approval = chart(
    "document_approval",
    description="A request for money goes from draft to archive, with reminders, escalation and a second approver.",
    context=Approval,
    subscribe=SUBSCRIPTIONS,
    initial="draft",
    # A message that could not be delivered is no reason to stop an approval.
    on={"done.effect.notify": to(), "error.effect.notify": to(actions=log("event.data.message", "not delivered"))},
    states=[DRAFT, SUBMITTED, UNDER_REVIEW, CHANGES_REQUESTED, APPROVED, *ENDS],
)
