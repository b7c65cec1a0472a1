"""The timeline: each fact with where the instance stood before and after, and what changed."""

from __future__ import annotations

import msgspec

from statewright.engine.events import (
    AnyFact,
    EventRefused,
    InstancePaused,
    InstanceStarted,
    TransitionTaken,
    Trigger,
)
from statewright.engine.instance import fold
from statewright.engine.recorder import InstanceRow
from statewright.projections.status import instance_json, status_json
from statewright.projections.timeline import Entry, history_json, timeline
from statewright.statecharts.facts import Taken, Verdict

FACTS: list[AnyFact] = [
    InstanceStarted(
        instance_id="d-17",
        sequence=1,
        time=10,
        definition="approval",
        version="2",
        digest="abc",
        input={"amount": 5},
        configuration=("draft",),
        entered=("draft",),
        context={"amount": 5, "reviewer": None},
    ),
    TransitionTaken(
        instance_id="d-17",
        sequence=2,
        time=20,
        trigger=Trigger("submit", "e-1", source="web", actor="ann", time=19, data={"n": 1}),
        configuration=("review", "first"),
        taken=(Taken("draft", "submit", ("review",)),),
        exited=("draft",),
        entered=("review", "first"),
        guards=(Verdict("draft", "submit", "context.amount < 9", True),),
        context={"reviewer": "bob", "amount": 5},
    ),
    EventRefused(instance_id="d-17", sequence=3, time=30, trigger=Trigger("submit", "e-2"), reason="no transition"),
    InstancePaused(instance_id="d-17", sequence=4, time=40, reason="audit", actor="eve"),
]


def entries() -> list[Entry]:
    return list(timeline(FACTS))


def test_each_fact_stands_between_what_was_and_what_is() -> None:
    befores = [entry.before.configuration if entry.before else None for entry in entries()]
    afters = [entry.after.configuration for entry in entries()]
    assert befores == [None, ("draft",), ("review", "first"), ("review", "first")]
    assert afters == [("draft",), ("review", "first"), ("review", "first"), ("review", "first")]
    assert entries()[-1].after == fold(FACTS)


def test_it_goes_on_from_a_fold() -> None:
    assert list(timeline(FACTS[2:], fold(FACTS[:2]))) == entries()[2:]


def test_changes_are_old_and_new_of_what_is_different() -> None:
    assert [entry.changes for entry in entries()] == [
        {"amount": (None, 5), "reviewer": (None, None)},
        {"reviewer": (None, "bob")},
        {},
        {},
    ]


def test_history_of_a_transition() -> None:
    assert history_json(entries()[1]) == {
        "sequence": 2,
        "type": "transition_taken",
        "time": 20,
        "trigger": {
            "name": "submit",
            "id": "e-1",
            "source": "web",
            "kind": "event",
            "actor": "ann",
            "time": 19,
            "data": {"n": 1},
        },
        "from": ["draft"],
        "to": ["review", "first"],
        "status": "active",
        "instance_id": "d-17",
        "taken": [{"source": "draft", "event": "submit", "targets": ["review"]}],
        "exited": ["draft"],
        "entered": ["review", "first"],
        "guards": [{"state": "draft", "event": "submit", "guard": "context.amount < 9", "passed": True}],
        "context": {"reviewer": "bob", "amount": 5},
        "schema": 1,
    }


def test_history_lines_have_the_same_head_and_are_json() -> None:
    for entry in entries():
        line = history_json(entry)
        assert list(line)[:7] == ["sequence", "type", "time", "trigger", "from", "to", "status"]
        assert msgspec.json.decode(msgspec.json.encode(line)) == line


def test_history_of_facts_that_move_nothing() -> None:
    started, _, refused, paused = map(history_json, entries())
    assert (started["from"], started["to"], started["trigger"]) == ([], ["draft"], None)
    assert (started["definition"], started["version"], started["digest"]) == ("approval", "2", "abc")
    assert (refused["from"], refused["to"], refused["reason"]) == (["review", "first"],) * 2 + ("no transition",)
    assert (paused["trigger"], paused["status"], paused["reason"], paused["actor"]) == (None, "paused", "audit", "eve")


def test_status_and_replay_have_one_shape() -> None:
    instance = fold(FACTS)
    assert instance is not None
    row = InstanceRow(
        id="d-17",
        definition="approval",
        version="2",
        status="paused",
        configuration='["review","first"]',
        context='{"amount":5,"reviewer":"bob"}',
        sequence=4,
        started_at=10,
        updated_at=40,
        ended_at=None,
        digest="abc",
        failure="",
    )
    assert instance_json(instance) == status_json(row)
    assert instance_json(instance, as_of=40) == status_json(row) | {"as_of": 40}
