"""The world around the approvals: programs and people that publish on subjects of their own, each with its own ids.

They react to what the history says, so nobody waits for a guessed time. Whoever sees a history from its beginning says
again what was said before, with the same ids; the engine has recorded that once and takes no notice. So it does no harm
that a message on a plain NATS subject may be lost in a crash.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from nats.aio.client import Client as NatsClient

Fact = dict[str, Any]
Message = tuple[str, dict[str, Any]]

CHART = "reactive_approval"
FINAL = {"booked", "rejected", "not_booked"}
AMOUNTS = {"order-1": 900, "order-2": 25_000}
"""What the scanner reads on each order."""


def reactions(fact: Fact) -> list[Message]:
    """What is published because of a fact: subject and message."""
    order = fact["instance_id"]
    entered = fact.get("entered", ())
    if "awaiting_data" in entered:
        return [("data.processed", {"jobId": f"scan-{order}", "amount": AMOUNTS[order]})]
    if "reminded" in entered:  # The requester is impatient.
        return [("user.action", {"actionId": f"{order}-by-ann", "action": "approve", "user": "ann"})]
    if fact["type"] == "event_refused":  # She may not; and then time is up.
        return [("timer.expired", {"timerId": f"deadline-{order}"})]
    if "escalated" in entered:
        return [("user.action", {"actionId": f"{order}-by-mia", "action": "approve", "user": "mia"})]
    return []


async def play(bus: NatsClient) -> dict[str, list[Fact]]:
    """React to the histories of all orders until each has come to its end; the facts, by order."""
    facts: dict[str, list[Fact]] = {order: [] for order in AMOUNTS}
    open_orders = set(facts)
    async with aclosing(history(bus)) as seen:
        async for fact in seen:
            order = fact["instance_id"]
            if fact["sequence"] <= len(facts[order]):
                continue  # The history is published at least once.
            facts[order].append(fact)
            for subject, message in reactions(fact):
                await bus.publish(subject, json.dumps({"workflowInstanceId": order, **message}).encode())
            if FINAL & set(fact.get("entered", ())):
                open_orders.discard(order)
            if not open_orders:
                break
    return facts


async def history(bus: NatsClient) -> AsyncGenerator[Fact, None]:
    """Every recorded fact, from the first, as it is published."""
    subscription = await bus.jetstream().subscribe(f"statewright.history.{CHART}.*", ordered_consumer=True)
    try:
        async for message in subscription.messages:
            yield json.loads(message.data)
    finally:
        await subscription.unsubscribe()
