"""Proof that a store is true to itself: every row is what the facts say, and nothing is missing or twice.

Reads only; folds the whole log in its order and compares. For use after crashes, after benchmarks, and in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from eventsourcing.persistence import MapperDeserialisationError

from statewright.engine.changes import effect_rows, instance_row
from statewright.engine.events import AnyFact, EventDeferred, InstanceCancelled, InstancePruned, Trigger
from statewright.engine.instance import Instance, evolve, result_id
from statewright.engine.log import InstanceLog
from statewright.engine.parking import TIMER
from statewright.engine.partitions import partition_of
from statewright.engine.recorder import EffectRow, InstanceFilter, InstanceRow, TimerRow
from statewright.engine.relatives import KINDS, LASTING
from statewright.engine.requests import EFFECT_SOURCE, MESSAGE_SOURCE
from statewright.engine.steps import StepRow, after, step_rows
from statewright.engine.stores import open_store

PAGE = 2_000
_EVER = 2**63 - 1
_ASIDE = ("parked", "dropped")
"""States of an effect that nobody performs."""


class Verification(msgspec.Struct):
    """What was found. `differences` are sentences, empty for a store in which all is well."""

    instances: int = 0
    facts: int = 0
    effects: int = 0
    results: int = 0
    """How many effects have had their result recorded."""
    pruned: int = 0
    """How many instances there are only tombstones of."""
    differences: list[str] = []

    @property
    def is_true(self) -> bool:
        return not self.differences


class _Folded:
    """One instance as its facts tell it, with what they say about its other rows."""

    __slots__ = ("cancelled", "closed", "effects", "inbox", "instance", "steps", "waiting")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.inbox: dict[tuple[str, str], int] = {}
        self.waiting: set[tuple[str, str]] = set()
        self.effects: dict[str, EffectRow] = {}
        self.steps: dict[str, StepRow] = {}
        self.cancelled: set[str] = set()
        self.closed: set[str] = set()
        """The effects that were dropped because it was cancelled, unless they had a result by then."""


def verify_store(url: str) -> Verification:
    """Verify the store behind `url`, which may be in use.

    Raises what opening the store raises.
    """
    store = open_store(url, read_only=True)
    try:
        log = InstanceLog(dict(store.environment))
        try:
            return verify_log(log)
        finally:
            log.close()
    finally:
        store.close()


def verify_log(log: InstanceLog) -> Verification:
    """Verify the store that `log` reads, as it is at one moment. Raises `InvalidError` for an encrypted store without
    its key: nothing could be said about it."""
    if log.ring is None:
        log.check_key()
    with log.instances.consistent():
        return _verify(log)


def _verify(log: InstanceLog) -> Verification:
    found = Verification()
    pruned: set[str] = set()
    folded = _fold_all(log, pruned, found)
    found.pruned = len(pruned)
    found.instances = len(folded)
    found.effects = sum(len(one.effects) for one in folded.values())
    _compare_instances(log, folded, found)
    _compare_timers(log, folded, found)
    for instance_id, one in folded.items():
        _compare_inbox(log, instance_id, one, found)
        _compare_effects(log, instance_id, folded, pruned, found)
        _compare_steps(log, instance_id, one, found)
        if log.load(instance_id) != one.instance:
            found.differences.append(f"instance '{instance_id}' loads from its snapshot as another than from its facts")
    return found


def _fold_all(log: InstanceLog, pruned: set[str], found: Verification) -> dict[str, _Folded]:
    """The instances by id; those that are pruned are put into `pruned`."""
    folded: dict[str, _Folded] = {}
    partitions = log.instances.partitions
    for fact in _all_facts(log, found):
        found.facts += 1
        if fact.instance_id in pruned or (isinstance(fact, InstancePruned) and fact.instance_id in folded):
            found.differences.append(f"instance '{fact.instance_id}' is pruned and has facts beside its tombstone")
            continue
        if isinstance(fact, InstancePruned):
            pruned.add(fact.instance_id)
            continue
        known = folded.get(fact.instance_id)
        expected = known.instance.sequence + 1 if known is not None else 1
        if fact.sequence != expected:
            found.differences.append(
                f"instance '{fact.instance_id}' has sequence {fact.sequence} in its log where {expected} is expected"
            )
        try:
            instance = evolve(known.instance if known is not None else None, fact)
        except ValueError as error:
            found.differences.append(f"instance '{fact.instance_id}', sequence {fact.sequence}: {error}")
            continue
        if known is None:
            known = folded[fact.instance_id] = _Folded(instance)
        known.instance = instance
        _note(known, fact, partitions, found)
    return folded


def _all_facts(log: InstanceLog, found: Verification) -> Iterator[AnyFact]:
    position = 0
    while True:
        try:
            page = log.following(position, PAGE)
        except MapperDeserialisationError as error:
            found.differences.append(f"the log can't be read on after position {position}: {error}")
            return
        if not page:
            return
        yield from (entry.fact for entry in page)
        position = page[-1].position


def _note(one: _Folded, fact: AnyFact, partitions: int, found: Verification) -> None:
    """Take in the identity that a fact recorded, the effects that it asked for and what it says about steps."""
    trigger: Trigger | None = getattr(fact, "trigger", None)
    if trigger is not None and trigger.kind != "timer":
        _note_identity(one, trigger, fact, found)
    asked = {row.effect_id: row for row in effect_rows(fact, partitions, fact.time)}
    if isinstance(fact, InstanceCancelled):
        one.closed |= {row.effect_id for row in one.effects.values() if row.kind not in LASTING}
    one.effects |= asked
    for row in step_rows(fact):
        one.steps[row.step] = after(one.steps.get(row.step), row)
    one.cancelled.update(getattr(fact, "effects_cancelled", ()))


def _note_identity(one: _Folded, trigger: Trigger, fact: AnyFact, found: Verification) -> None:
    identity = (trigger.source, trigger.id)
    first = one.inbox.setdefault(identity, fact.sequence)
    if first == fact.sequence:
        found.results += trigger.kind == "effect"
    elif identity not in one.waiting:
        found.differences.append(
            f"instance '{fact.instance_id}' recorded event '{trigger.id}' of source '{trigger.source}' "
            f"at sequence {first} and again at {fact.sequence}"
        )
    # What was deferred is recorded once more, when it is applied.
    if isinstance(fact, EventDeferred):
        one.waiting.add(identity)
    else:
        one.waiting.discard(identity)


def _compare_instances(log: InstanceLog, folded: dict[str, _Folded], found: Verification) -> None:
    rows = {row.id: row for row in _all_rows(log)}
    for instance_id in rows.keys() - folded.keys():
        found.differences.append(f"instance '{instance_id}' has a row and no facts")
    for instance_id, one in folded.items():
        _differ(f"instance '{instance_id}'", instance_row(one.instance), rows.get(instance_id), found)


def _all_rows(log: InstanceLog) -> Iterator[InstanceRow]:
    after: str | None = None
    while True:
        page = log.instances.select_instances(InstanceFilter(limit=PAGE, after=after))
        yield from page
        if not page:
            return
        after = page[-1].id


def _compare_timers(log: InstanceLog, folded: dict[str, _Folded], found: Verification) -> None:
    expected = {
        (instance_id, timer.timer_id): TimerRow(
            instance_id, timer.timer_id, timer.due_at, timer.event, partition_of(instance_id, log.instances.partitions)
        )
        for instance_id, one in folded.items()
        for timer in one.instance.timers.values()
    }
    rows = {(row.instance_id, row.timer_id): row for row in log.instances.due_timers(_EVER, _EVER)}
    for row in log.instances.select_parked(_EVER):
        if row.subject.startswith(TIMER):  # It is set, but nobody fires it until it is retried.
            timer = msgspec.json.decode(row.payload)
            key = (timer["instance_id"], timer["timer_id"])
            if key not in rows:
                expected.pop(key, None)
    for key in expected.keys() | rows.keys():
        _differ(f"timer '{key[1]}' of instance '{key[0]}'", expected.get(key), rows.get(key), found)


def _compare_inbox(log: InstanceLog, instance_id: str, one: _Folded, found: Verification) -> None:
    rows = {(row.source, row.event_id): row.sequence for row in log.instances.select_inbox(instance_id, _EVER)}
    for identity in one.inbox.keys() | rows.keys():
        what = f"inbox identity '{identity[1]}' of source '{identity[0]}' of instance '{instance_id}'"
        _differ(what, one.inbox.get(identity), rows.get(identity), found)


def _compare_effects(
    log: InstanceLog, instance_id: str, folded: dict[str, _Folded], pruned: set[str], found: Verification
) -> None:
    one = folded[instance_id]
    rows = {row.effect_id: row for row in log.instances.select_effects(instance_id)}
    for effect_id in one.effects.keys() | rows.keys():
        expected, row = one.effects.get(effect_id), rows.get(effect_id)
        what = f"effect '{effect_id}'"
        _differ(what, _asked(expected), _asked(row), found)
        if row is not None and row.state not in (states := _states(one, row, folded, pruned)):
            found.differences.append(f"{what} is expected to be {' or '.join(states)}, it is {row.state}")


def _compare_steps(log: InstanceLog, instance_id: str, one: _Folded, found: Verification) -> None:
    rows = {row.step: row for row in log.instances.select_steps(instance_id)}
    for step in one.steps.keys() | rows.keys():
        _differ(f"step '{step}' of instance '{instance_id}'", one.steps.get(step), rows.get(step), found)


def _asked(row: EffectRow | None) -> tuple[object, ...] | None:
    """What of an effect never changes."""
    return (row.instance_id, row.partition, row.name, row.kind, row.data, row.policy) if row is not None else None


def _states(one: _Folded, row: EffectRow, folded: dict[str, _Folded], pruned: set[str]) -> tuple[str, ...]:
    """The states that an effect may be in, by what the facts say of its result."""
    if row.kind in KINDS:
        if (MESSAGE_SOURCE, result_id(row.effect_id)) in one.inbox:
            return ("failed",)
        if _has_arrived(row, folded):
            return ("done",)
        # There may be nobody to whom it mattered, or nothing left of who knew.
        if row.kind not in ("start", "send") or msgspec.json.decode(row.data)["to"] in pruned:
            return ("pending", "running", "done", "failed", "cancelled", *_ASIDE)
    elif (EFFECT_SOURCE, result_id(row.effect_id)) in one.inbox:
        return ("done", "failed")
    elif row.effect_id in one.cancelled:
        return ("cancelled", *_ASIDE)
    if row.effect_id in one.closed:
        return ("cancelled", *_ASIDE)
    if one.instance.status == "cancelled" and row.kind not in LASTING:
        # The chart itself has ended so: what it asked for goes on, but isn't retried from parking.
        return ("pending", "running", "cancelled", *_ASIDE)
    return ("pending", "running", *_ASIDE)


def _has_arrived(row: EffectRow, folded: dict[str, _Folded]) -> bool:
    """Whether what an effect asks of another instance is recorded there."""
    receiver = folded.get(msgspec.json.decode(row.data)["to"])
    if receiver is None:
        return False
    if row.kind == "start":
        parent = receiver.instance.parent
        return parent is not None and parent.instance_id == row.instance_id
    return (MESSAGE_SOURCE, row.effect_id) in receiver.inbox


def _differ(what: str, expected: object, actual: object, found: Verification) -> None:
    if expected != actual:
        found.differences.append(f"{what} is expected to be {expected}, it is {actual}")
