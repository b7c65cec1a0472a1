"""Random logs of facts, as an engine could have recorded them, for the properties of the projections."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from statewright.engine.events import (
    AnyFact,
    EventDiscarded,
    EventRefused,
    InstanceCancelled,
    InstanceFailed,
    InstanceModified,
    InstancePaused,
    InstanceResumed,
    InstanceStarted,
    TransitionTaken,
    Trigger,
)
from statewright.engine.log import LoggedFact

STATES = ("draft", "review", "first", "second", "approved")
ENDS: dict[str, Any] = {"cancel": InstanceCancelled, "fail": InstanceFailed}


def started(**more: Any) -> InstanceStarted:
    """The first fact of instance "a", or what `more` says."""
    facts: dict[str, Any] = {"definition": "approval", "version": "1", "digest": "d", "entered": ("draft",)}
    return InstanceStarted(**{"instance_id": "a", "sequence": 1, "time": 0, "configuration": ("draft",)} | facts | more)


@st.composite
def logs(draw: st.DrawFn) -> list[LoggedFact]:
    """A log of up to 60 facts of up to 5 instances of two versions; positions have gaps."""
    facts: list[AnyFact] = []
    known: dict[str, tuple[int, frozenset[str], str]] = {}  # id -> (sequence, active states, status)
    now = 1_000
    for _ in range(draw(st.integers(0, 40))):
        instance_id = draw(st.sampled_from("abcde"))
        now += draw(st.integers(0, 10**12))
        sequence, active, status = known.get(instance_id, (0, frozenset[str](), ""))
        if sequence == 0:
            fact = _started(draw, instance_id, now)
        else:
            fact = _next(draw, instance_id, sequence + 1, now, active, status)
        known[instance_id] = (fact.sequence, *_after(fact, active, status))
        facts.append(fact)
    positions = draw(st.lists(st.integers(1, 3), min_size=len(facts), max_size=len(facts)))
    return [LoggedFact(sum(positions[: index + 1]), fact) for index, fact in enumerate(facts)]


def _after(fact: AnyFact, active: frozenset[str], status: str) -> tuple[frozenset[str], str]:
    match fact:
        case InstanceStarted() | TransitionTaken() | InstanceModified():
            return frozenset(fact.configuration), fact.status
        case InstancePaused():
            return active, "paused"
        case InstanceResumed():
            return active, "active"
        case InstanceCancelled():
            return active, "cancelled"
        case InstanceFailed():
            return active, "failed"
    return active, status


def _started(draw: st.DrawFn, instance_id: str, now: int) -> InstanceStarted:
    entered, exited, active = _walk(draw, frozenset())
    return InstanceStarted(
        instance_id=instance_id,
        sequence=1,
        time=now,
        definition="approval",
        version=draw(st.sampled_from("12")),
        digest="d",
        entered=entered,
        exited=exited,
        configuration=tuple(sorted(active)),
        status=draw(st.sampled_from(["active", "active", "active", "completed"])),
    )


def _next(draw: st.DrawFn, instance_id: str, sequence: int, now: int, active: frozenset[str], status: str) -> AnyFact:
    place: dict[str, Any] = {"instance_id": instance_id, "sequence": sequence, "time": now}
    trigger = Trigger("e", f"e-{sequence}")
    refusals = [
        EventRefused(**place, trigger=trigger, reason="no"),
        EventDiscarded(**place, trigger=trigger, reason="no"),
    ]
    if draw(st.integers(0, 6)) == 0:
        return _modified(draw, place, active, status)
    if status == "paused":
        return draw(st.sampled_from([InstanceResumed(**place), InstanceCancelled(**place), *refusals]))
    if status != "active":
        return draw(st.sampled_from(refusals))
    kind = draw(st.sampled_from(["move"] * 6 + ["refuse", "pause", "cancel", "fail"]))
    if kind == "move":
        entered, exited, after = _walk(draw, active)
        ended = draw(st.sampled_from(["active"] * 5 + ["completed"]))
        return TransitionTaken(
            **place, trigger=trigger, entered=entered, exited=exited, configuration=tuple(sorted(after)), status=ended
        )
    if kind == "refuse":
        return draw(st.sampled_from(refusals))
    if kind == "pause":
        return InstancePaused(**place)
    return InstanceFailed(**place, error="broken") if kind == "fail" else InstanceCancelled(**place)


def _modified(draw: st.DrawFn, place: dict[str, Any], active: frozenset[str], status: str) -> InstanceModified:
    """Elsewhere, whatever it was: what had ended is in no state before, and the version is one that was derived."""
    entered, exited, after = _walk(draw, active if status in ("active", "paused") else frozenset())
    going_on: list[Any] = ["active", "completed", *(["paused"] if status == "paused" else [])]
    return InstanceModified(
        **place,
        definition="approval",
        version="1+0a1b2c3d",
        digest="e",
        entered=entered,
        exited=exited,
        configuration=tuple(sorted(after)),
        status=draw(st.sampled_from(going_on)),
    )


def _walk(draw: st.DrawFn, active: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """A macrostep of a few microsteps: each leaves some active states and enters some that are not active."""
    entered: list[str] = []
    exited: list[str] = []
    now = set(active)
    for _ in range(draw(st.integers(1, 3))):
        left = draw(st.sets(st.sampled_from(sorted(now)))) if now else set()
        now -= left
        exited += sorted(left)
        outside = sorted(set(STATES) - now)
        came = draw(st.sets(st.sampled_from(outside), min_size=0 if now else 1)) if outside else set()
        now |= came
        entered += sorted(came)
    return tuple(entered), tuple(exited), frozenset(now)
