"""The recorder contract: effects are claimed by one at a time, under a lease, in due order."""

from __future__ import annotations

import threading

import pytest
from eventsourcing.persistence import IntegrityError

from statewright.engine.recorder import Backlog, Changes, EffectRow, InstanceRecorder
from tests.contracts.recorders import Harness
from tests.contracts.rows import effect, event

LEASE_NS = 1_000


def request(recorder: InstanceRecorder, *rows: EffectRow) -> None:
    recorder.insert_events([], changes=Changes(effects_requested=list(rows)))


def claim(
    recorder: InstanceRecorder,
    now: int = 500,
    limit: int = 100,
    names: tuple[str, ...] = ("notify",),
    kinds: tuple[str, ...] = (),
) -> list[EffectRow]:
    rows = recorder.claim_effects(now, limit, names=names, kinds=kinds, lease_ns=LEASE_NS)
    return sorted(rows)


def running(row: EffectRow, now: int, attempt: int = 1) -> EffectRow:
    return row._replace(state="running", attempt=attempt, lease_epoch=attempt, due_at=now + LEASE_NS)


def test_a_claimed_effect_is_running_under_a_lease(harness: Harness, recorder: InstanceRecorder) -> None:
    request(recorder, effect(0), effect(1))
    assert claim(recorder) == [running(effect(0), 500), running(effect(1), 500)]
    assert list(harness.open().select_effects("a")) == [running(effect(0), 500), running(effect(1), 500)]
    assert claim(recorder) == []


def test_only_what_is_due_is_claimed_the_earliest_first(recorder: InstanceRecorder) -> None:
    rows = [effect(index, due_at=due_at) for index, due_at in enumerate((40, 10, 30, 20))]
    request(recorder, *rows)
    assert claim(recorder, now=9) == []
    assert [row.effect_id for row in claim(recorder, now=30, limit=2)] == ["a-1-1", "a-1-3"]
    assert [row.effect_id for row in claim(recorder, now=30)] == ["a-1-2"]
    assert [row.effect_id for row in claim(recorder, now=40)] == ["a-1-0"]


def test_the_earliest_of_all_names_are_claimed_up_to_the_limit(recorder: InstanceRecorder) -> None:
    rows = [effect(index, name=("notify", "archive", "bill")[index % 3], due_at=100 - index) for index in range(9)]
    request(recorder, *rows)
    claimed = claim(recorder, limit=4, names=("notify", "archive", "bill"))
    assert [row.due_at for row in claimed] == [500 + LEASE_NS] * 4
    assert [row.effect_id for row in claimed] == ["a-1-5", "a-1-6", "a-1-7", "a-1-8"]


def test_names_choose_among_performed_effects_and_kinds_among_the_others(recorder: InstanceRecorder) -> None:
    request(
        recorder,
        effect(0, name="notify"),
        effect(1, name="archive"),
        effect(2, name="notify", kind="emit"),
        effect(3, name="billing.charge", kind="call"),
    )
    assert [row.effect_id for row in claim(recorder, names=("archive", "unknown"))] == ["a-1-1"]
    assert claim(recorder, names=("billing.charge",)) == []
    assert [row.effect_id for row in claim(recorder, names=(), kinds=("emit",))] == ["a-1-2"]
    assert claim(recorder, names=(), kinds=()) == []
    assert claim(recorder, names=(), kinds=("perform",)) == []
    assert [row.effect_id for row in claim(recorder, names=("notify",), kinds=("call", "emit"))] == ["a-1-0", "a-1-3"]


def test_any_number_of_names_and_kinds_can_be_asked_for(recorder: InstanceRecorder) -> None:
    request(recorder, effect(0), *(effect(n, kind=f"step.{n}", due_at=1000 - n) for n in range(1, 650)))
    names, kinds = tuple(f"n-{n}" for n in range(600)), tuple(f"step.{n}" for n in range(1_000))

    assert recorder.next_effect_at(names=names, kinds=kinds) == 1000 - 649
    assert recorder.next_effect_at(names=names, kinds=kinds[700:]) is None
    assert [row.kind for row in claim(recorder, 500, 3, names, kinds)] == ["step.647", "step.648", "step.649"]
    assert len(claim(recorder, 1000, 1000, names, kinds)) == 646
    assert claim(recorder, 1000, 1000, (*names, "notify"), kinds) == [running(effect(0), 1000)]


def test_the_next_due_time_is_that_of_what_is_asked_for(recorder: InstanceRecorder) -> None:
    assert recorder.next_effect_at(names=["notify"], kinds=["emit"]) is None
    request(recorder, effect(0, due_at=30), effect(1, name="archive", due_at=20), effect(2, kind="emit", due_at=10))
    assert recorder.next_effect_at(names=["notify"], kinds=[]) == 30
    assert recorder.next_effect_at(names=["notify", "archive"], kinds=[]) == 20
    assert recorder.next_effect_at(names=["notify"], kinds=["emit"]) == 10
    assert recorder.next_effect_at(names=[], kinds=[]) is None
    claim(recorder, now=30)
    assert recorder.next_effect_at(names=["notify"], kinds=[]) == 30 + LEASE_NS


def test_a_lease_that_has_run_out_is_claimed_again_with_the_next_epoch(recorder: InstanceRecorder) -> None:
    request(recorder, effect())
    claim(recorder, now=500)
    assert claim(recorder, now=500 + LEASE_NS - 1) == []
    assert claim(recorder, now=500 + LEASE_NS) == [running(effect(), 500 + LEASE_NS, attempt=2)]


def test_a_retry_needs_the_lease_that_is_held(recorder: InstanceRecorder) -> None:
    request(recorder, effect())
    assert not recorder.retry_effect("a-1-0", 0, 700, "not claimed yet")
    claim(recorder, now=500)
    assert recorder.retry_effect("a-1-0", 1, 700, "timed out")
    waiting = effect(due_at=700)._replace(attempt=1, lease_epoch=1, error="timed out")
    assert list(recorder.select_effects("a")) == [waiting]
    assert not recorder.retry_effect("a-1-0", 1, 900, "again")
    claim(recorder, now=700)
    assert not recorder.retry_effect("a-1-0", 1, 900, "the first claimer, too late")
    assert recorder.retry_effect("a-1-0", 2, 900, "")
    assert not recorder.retry_effect("unknown-1-0", 1, 900, "")


def test_an_attempt_that_does_not_count_leaves_its_number_to_the_next(recorder: InstanceRecorder) -> None:
    request(recorder, effect())
    claim(recorder, now=500)
    assert recorder.retry_effect("a-1-0", 1, 700, "not now", counted=False)
    assert list(recorder.select_effects("a")) == [effect(due_at=700)._replace(lease_epoch=1, error="not now")]
    (again,) = claim(recorder, now=700)
    assert (again.attempt, again.lease_epoch) == (1, 2)


def test_a_lease_is_extended_and_details_kept_by_whoever_holds_it(recorder: InstanceRecorder) -> None:
    request(recorder, effect(), effect(1))
    assert not recorder.extend_effect("a-1-0", 0, 700, "1"), "it is not claimed yet"
    claim(recorder, now=500)
    assert recorder.extend_effect("a-1-0", 1, 700, '{"page":1}')
    held = running(effect(), 500)._replace(due_at=700, details='{"page":1}')
    assert list(recorder.select_effects("a")) == [held, running(effect(1), 500)]
    assert recorder.extend_effect("a-1-0", 1, 600, ""), "a shorter lease, and the details that there are"
    assert list(recorder.select_effects("a")) == [held._replace(due_at=600), running(effect(1), 500)]
    taken = held._replace(attempt=2, lease_epoch=2, due_at=600 + LEASE_NS)
    assert claim(recorder, now=600) == [taken]
    assert not recorder.extend_effect("a-1-0", 1, 900, '{"page":2}'), "another has it by now"
    assert recorder.retry_effect("a-1-0", 2, 900, "down")
    assert not recorder.extend_effect("a-1-0", 2, 900, '{"page":2}'), "it waits"
    recorder.insert_events([], changes=Changes(effects_ended=[("cancelled", "left", "a-1-1")]))
    assert not recorder.extend_effect("a-1-1", 1, 900, ""), "it is cancelled"
    assert [row.details for row in recorder.select_effects("a")] == ['{"page":1}', ""]
    assert not recorder.extend_effect("unknown-1-0", 1, 900, "")


def test_an_owner_that_starts_takes_back_what_was_running(recorder: InstanceRecorder) -> None:
    request(recorder, effect(0), effect(1), effect(2, name="archive"))
    claim(recorder, now=500)
    assert recorder.release_effects() == 2
    assert recorder.release_effects() == 0
    assert claim(recorder, now=1) == [
        row._replace(attempt=2, lease_epoch=2) for row in (running(effect(0), 1), running(effect(1), 1))
    ]


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_an_ended_effect_is_kept_and_never_claimed_again(recorder: InstanceRecorder, state: str) -> None:
    request(recorder, effect(0), effect(1))
    claim(recorder, limit=1)
    recorder.insert_events([], changes=Changes(effects_ended=[(state, "why", "a-1-0")]))
    ended, waiting = recorder.select_effects("a")
    assert (ended.state, ended.error, ended.attempt) == (state, "why", 1)
    assert waiting == effect(1)
    assert not recorder.retry_effect("a-1-0", 1, 900, "")
    assert recorder.release_effects() == 0
    assert [row.effect_id for row in claim(recorder, now=10**18)] == ["a-1-1"]


@pytest.mark.parametrize(("state", "other"), [("done", "failed"), ("failed", "done")])
@pytest.mark.parametrize("count", [1, 20])
def test_an_effect_ends_once(recorder: InstanceRecorder, state: str, other: str, count: int) -> None:
    """What else would be recorded with another end is not recorded."""

    def end(sequence: int, state: str, error: str) -> None:
        events = [event("a", sequence + number) for number in range(count)]
        recorder.insert_events(events, changes=Changes(effects_ended=[(state, error, "a-1-0")]))

    request(recorder, effect())
    end(1, state, "first")
    end(101, state, "again")
    end(201, "cancelled", "too late")
    with pytest.raises(IntegrityError):
        end(301, other, "otherwise")
    assert [(row.state, row.error) for row in recorder.select_effects("a")] == [(state, "first")]
    assert recorder.select_events("a")[-1].originator_version == 200 + count


def test_an_effect_requested_and_ended_in_one_transaction_is_ended(recorder: InstanceRecorder) -> None:
    both = Changes(effects_requested=[effect()], effects_ended=[("done", "", "a-1-0")])
    recorder.insert_events([], changes=both)
    assert [row.state for row in recorder.select_effects("a")] == ["done"]
    assert recorder.next_effect_at(names=["notify"], kinds=[]) is None


def test_closing_an_instance_cancels_what_is_open_and_nothing_else(recorder: InstanceRecorder) -> None:
    request(recorder, effect(0), effect(1), effect(2), effect(0, instance_id="a-1"), effect(0, instance_id="b"))
    recorder.insert_events([], changes=Changes(effects_ended=[("done", "", "a-1-1")]))
    claim(recorder, limit=1)
    recorder.insert_events([], changes=Changes(instances_closed=["a"]))
    assert [row.state for row in recorder.select_effects("a")] == ["cancelled", "done", "cancelled"]
    assert [row.state for row in recorder.select_effects("a-1")] == ["pending"]
    assert [row.state for row in recorder.select_effects("b")] == ["pending"]
    assert recorder.release_effects() == 0


@pytest.mark.parametrize("count", [1, 20])
def test_an_effect_ends_once_within_one_transaction(recorder: InstanceRecorder, count: int) -> None:
    """As when its state was left meanwhile, or somebody given up for dead reports beside who took over."""
    request(recorder, effect(0), effect(1), effect(2))
    events = [event(sequence=number) for number in range(1, count + 1)]
    ends = [
        ("done", "", "a-1-0"),
        ("cancelled", "left", "a-1-0"),
        ("cancelled", "left", "a-1-1"),
        ("done", "", "a-1-1"),
    ]
    recorder.insert_events(events, changes=Changes(effects_ended=ends))
    late = [event("b", number) for number in range(1, count + 1)]
    with pytest.raises(IntegrityError):
        recorder.insert_events(late, changes=Changes(effects_ended=[("failed", "", "a-1-2"), ("done", "", "a-1-2")]))
    assert [row.state for row in recorder.select_effects("a")] == ["done", "done", "pending"]
    assert recorder.select_events("b") == []


def test_closing_spares_what_is_asked_for_with_it_and_what_relatives_wait_for(recorder: InstanceRecorder) -> None:
    lasting = [effect(index, kind=kind) for index, kind in enumerate(("start", "cancel", "done"))]
    request(recorder, *lasting, effect(3, kind="send"))
    recorder.insert_events([], changes=Changes(effects_requested=[effect(4)], instances_closed=["a"]))
    states = [row.state for row in recorder.select_effects("a")]
    assert states == ["pending", "pending", "pending", "cancelled", "pending"]


def test_due_effects_of_all_kinds_are_taken_in_the_order_of_request(recorder: InstanceRecorder) -> None:
    kinds = ("start", "send", "cancel", "send", "start", "done")
    request(recorder, *(effect(index, kind=kind) for index, kind in enumerate(kinds)))
    claimed = [claim(recorder, limit=2, kinds=("cancel", "done", "send", "start")) for _ in range(3)]
    assert [[row.kind for row in rows] for rows in claimed] == [list(kinds[:2]), list(kinds[2:4]), list(kinds[4:])]


def test_ids_that_contain_each_other_are_told_apart(recorder: InstanceRecorder) -> None:
    """Effect ids are instance-sequence-index, and instances may be called "a" and "a-1"."""
    mine, theirs = effect(0, instance_id="a", sequence=1), effect(0, instance_id="a-1", sequence=1)
    request(recorder, mine, theirs)
    recorder.insert_events([], changes=Changes(effects_ended=[("done", "", theirs.effect_id)]))
    assert list(recorder.select_effects("a")) == [mine]
    assert [row.state for row in recorder.select_effects("a-1")] == ["done"]


def test_two_claimers_never_get_the_same_effect(harness: Harness, recorder: InstanceRecorder) -> None:
    request(recorder, *(effect(index) for index in range(200)))
    claimers = [recorder, harness.open()]
    claimed: list[list[str]] = [[], []]
    start = threading.Barrier(2)

    def work(number: int) -> None:
        start.wait()
        while rows := claim(claimers[number], limit=5):
            claimed[number] += [row.effect_id for row in rows]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = claimed[0] + claimed[1]
    assert len(together) == 200
    assert set(together) == {effect(index).effect_id for index in range(200)}


def test_what_waits_is_counted_by_queue(recorder: InstanceRecorder) -> None:
    request(
        recorder,
        effect(0, due_at=100),
        effect(1, due_at=600),
        effect(2, name="archive", due_at=100),
        effect(3, name="orders.paid", kind="emit", due_at=100),
        effect(4, name="nobody", due_at=100),
    )
    names, kinds = ["archive", "idle", "notify"], ["call", "emit"]

    assert recorder.count_effects(500, 100, names=names, kinds=kinds) == {
        "perform.notify": Backlog(due=1, open=2),
        "perform.archive": Backlog(due=1, open=1),
        "emit": Backlog(due=1, open=1),
    }

    claim(recorder, names=("notify", "archive"))
    recorder.insert_events([], changes=Changes(effects_ended=[("done", "", effect(2, name="archive").effect_id)]))

    running_until = 500 + LEASE_NS
    assert recorder.count_effects(500, 100, names=names, kinds=[]) == {"perform.notify": Backlog(due=0, open=2)}
    assert recorder.count_effects(running_until, 100, names=names, kinds=[]) == {"perform.notify": Backlog(2, 2)}


def test_counting_stops_at_the_limit(recorder: InstanceRecorder) -> None:
    request(recorder, *(effect(index) for index in range(20)))
    assert recorder.count_effects(500, 7, names=["notify"], kinds=[]) == {"perform.notify": Backlog(7, 7)}
