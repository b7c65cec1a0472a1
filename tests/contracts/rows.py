"""Rows to record: plausible by default, and what a test is about by name."""

from __future__ import annotations

from eventsourcing.persistence import StoredEvent

from statewright.engine.recorder import EffectRow, InboxRow, InstanceRow, ParkedRow, TimerRow
from statewright.engine.steps import StepRow

SECOND = 1_000_000_000


def event(instance_id: str = "a", sequence: int = 1, state: bytes = b'{"type":"transition_taken"}') -> StoredEvent:
    return StoredEvent(instance_id, sequence, "transition_taken", state)


def inbox(event_id: str = "e-1", *, instance_id: str = "a", source: str = "", sequence: int = 1) -> InboxRow:
    return InboxRow(instance_id, source, event_id, sequence, event_id.encode().ljust(16, b"\xff"))


def instance(
    instance_id: str = "a",
    *,
    definition: str = "approval",
    status: str = "active",
    configuration: str = '["draft"]',
    context: str = '{"amount":900}',
    sequence: int = 1,
    ended_at: int | None = None,
    error: str = "",
    parent: str | None = None,
    version: str = "1",
    digest: str = "0" * 64,
) -> InstanceRow:
    return InstanceRow(
        instance_id,
        definition,
        version,
        status,
        configuration,
        context,
        sequence,
        10 * SECOND,
        (10 + sequence) * SECOND,
        ended_at,
        digest,
        error,
        parent,
    )


def timer(
    timer_id: str = "reminder",
    due_at: int = 20,
    *,
    instance_id: str = "a",
    event: str = "remind",
    partition: int = 3,
) -> TimerRow:
    return TimerRow(instance_id, timer_id, due_at, event, partition)


def effect(
    index: int = 0,
    *,
    instance_id: str = "a",
    sequence: int = 1,
    name: str = "notify",
    kind: str = "perform",
    due_at: int = 100,
    policy: str = '{"timeout_ns":5,"until":"a"}',
    partition: int = 7,
) -> EffectRow:
    effect_id = f"{instance_id}-{sequence}-{index}"
    return EffectRow(
        effect_id, instance_id, partition, name, kind, "pending", 0, due_at, 0, '{"to":"ann"}', "", policy, ""
    )


def step(
    step: str = "load",
    status: str = "running",
    *,
    instance_id: str = "a",
    sequence: int = 1,
    started_at: int | None = None,
    ended_at: int | None = None,
) -> StepRow:
    return StepRow(instance_id, step, status, sequence, started_at, ended_at)


def parked(parked_id: str = "p-1", payload: bytes = b"\x00\xffnot JSON") -> ParkedRow:
    return ParkedRow(parked_id, 30, "statewright.send.a", "expected JSON", '{"ce-id":"1"}', payload)
