"""The recorder contract: leases change hands only when free or expired, and fence what is written under them.

Times: a store with a server tells the time itself. So what is to have expired is taken for no time, and what is to be
held for an hour, which holds by any clock.
"""

from __future__ import annotations

import threading

import pytest

from statewright.engine.errors import LeaseLostError
from statewright.engine.recorder import Changes, InstanceRecorder, Lease
from tests.contracts.recorders import Harness
from tests.contracts.rows import SECOND, event, instance

NOW = 1_000 * SECOND
HOUR = 3_600 * SECOND


def acquire(recorder: InstanceRecorder, owner: str, *names: str, ttl_ns: int = HOUR) -> list[Lease]:
    return recorder.acquire_leases(owner, names, NOW, ttl_ns)


def held(leases: list[Lease]) -> list[tuple[str, str, int]]:
    return [(lease.name, lease.owner, lease.epoch) for lease in leases]


def test_free_leases_are_taken_once(harness: Harness, recorder: InstanceRecorder) -> None:
    assert held(acquire(recorder, "w-1", "p-2", "p-1", "p-1")) == [("p-1", "w-1", 1), ("p-2", "w-1", 1)]
    other = harness.open()
    assert held(acquire(other, "w-2", "p-1", "p-2", "p-3")) == [("p-3", "w-2", 1)]
    assert held(other.select_leases()) == [("p-1", "w-1", 1), ("p-2", "w-1", 1), ("p-3", "w-2", 1)]
    assert acquire(recorder, "w-1") == []


def test_the_owner_keeps_its_epoch_and_extends_its_time(recorder: InstanceRecorder) -> None:
    first = acquire(recorder, "w-1", "p-1")
    again = acquire(recorder, "w-1", "p-1", ttl_ns=2 * HOUR)
    assert held(again) == held(first)
    assert again[0].expires_at >= first[0].expires_at + HOUR
    assert recorder.select_leases() == again


def test_an_expired_lease_is_the_next_ones_with_a_new_epoch(recorder: InstanceRecorder) -> None:
    acquire(recorder, "w-1", "p-1", ttl_ns=0)
    assert held(acquire(recorder, "w-2", "p-1")) == [("p-1", "w-2", 2)]
    assert acquire(recorder, "w-1", "p-1") == []
    assert recorder.renew_leases("w-1", ["p-1"], NOW, HOUR) == []


def test_only_what_is_still_held_is_renewed(recorder: InstanceRecorder) -> None:
    acquire(recorder, "w-1", "p-1", "p-2", ttl_ns=0)
    acquire(recorder, "w-2", "p-2")
    renewed = recorder.renew_leases("w-1", ["p-2", "p-1", "unknown"], NOW, HOUR)
    assert held(renewed) == [("p-1", "w-1", 1)]
    assert acquire(recorder, "w-2", "p-1") == []


def test_what_is_given_back_is_free_and_its_epoch_goes_on(recorder: InstanceRecorder) -> None:
    acquire(recorder, "w-1", "p-1", "p-2")
    recorder.release_leases("w-2", ["p-1"])
    recorder.release_leases("w-1", ["p-1", "unknown"])
    assert held(recorder.select_leases()) == [("p-1", "", 1), ("p-2", "w-1", 1)]
    assert held(acquire(recorder, "w-1", "p-1")) == [("p-1", "w-1", 2)]


def test_a_writer_that_holds_its_leases_writes(recorder: InstanceRecorder) -> None:
    leases = acquire(recorder, "w-1", "p-1", "p-2")
    recorder.insert_events([event("a", 1)], changes=Changes(instances=[instance()]), leases=leases)
    many = [event("b", sequence) for sequence in range(1, 20)]
    recorder.insert_events(many, leases=leases[1:])
    assert len(recorder.select_notifications(None, 100)) == 20


def test_a_lease_that_has_expired_but_that_nobody_took_still_holds(recorder: InstanceRecorder) -> None:
    leases = acquire(recorder, "w-1", "p-1", ttl_ns=0)
    recorder.insert_events([event("a", 1)], leases=leases)
    assert len(recorder.select_events("a")) == 1


@pytest.mark.parametrize("count", [1, 20])
def test_a_writer_that_lost_a_lease_writes_nothing(harness: Harness, recorder: InstanceRecorder, count: int) -> None:
    kept, lost = acquire(recorder, "w-1", "p-1", "p-2", ttl_ns=0)
    acquire(harness.open(), "w-2", "p-2")
    events = [event("a", sequence) for sequence in range(1, count + 1)]
    with pytest.raises(LeaseLostError, match="lease 'p-2' to be held by 'w-1' with epoch 1, it is 'w-2' with epoch 2"):
        recorder.insert_events(events, changes=Changes(instances=[instance()]), leases=[kept, lost])
    assert recorder.select_events("a") == []
    assert recorder.select_instance("a") is None
    recorder.insert_events(events, leases=[kept])
    assert len(recorder.select_events("a")) == count


def test_what_nobody_ever_held_and_an_older_epoch_are_no_leases(recorder: InstanceRecorder) -> None:
    with pytest.raises(LeaseLostError, match="it is nobody"):
        recorder.insert_events([event()], leases=[Lease("unknown", "w-1", 1, 0)])
    (lease,) = acquire(recorder, "w-1", "p-1")
    recorder.release_leases("w-1", ["p-1"])
    acquire(recorder, "w-1", "p-1")
    with pytest.raises(LeaseLostError):
        recorder.insert_events([event()], leases=[lease])
    assert recorder.select_events("a") == []


def test_leases_that_many_ask_for_at_once_have_one_owner_each(harness: Harness, recorder: InstanceRecorder) -> None:
    recorders = [recorder, harness.open(), harness.open()]
    names = [f"p-{number}" for number in range(30)]
    taken: list[list[Lease]] = [[], [], []]
    start = threading.Barrier(3)

    def work(number: int) -> None:
        start.wait()
        taken[number] = acquire(recorders[number], f"w-{number}", *names[number * 10 :], *names[: number * 10])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.name for leases in taken for lease in leases) == sorted(names)
