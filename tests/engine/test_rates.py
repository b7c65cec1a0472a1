"""Rate limits: what passes, what is busy, and that nothing grows."""

from __future__ import annotations

import pytest

from statewright.engine import ManualClock
from statewright.engine.errors import BusyError, InvalidError
from statewright.engine.rates import BUCKETS_MAX, Rates


def passes(rates: Rates, *, actor: str = "", source: str = "", instance: str = "i") -> bool:
    try:
        rates.admit(actor=actor, source=source, instance=instance)
    except BusyError:
        return False
    return True


def test_a_second_s_worth_passes_at_once_and_then_as_many_as_time_brings() -> None:
    clock = ManualClock()
    rates = Rates(clock, {"actor": 10})
    assert [passes(rates, actor="ann") for _ in range(12)] == [True] * 10 + [False] * 2
    clock.advance(0.3)
    assert [passes(rates, actor="ann") for _ in range(4)] == [True] * 3 + [False]
    assert passes(rates, actor="bob"), "each has a bucket"
    clock.advance(3_600)
    assert [passes(rates, actor="ann") for _ in range(11)] == [True] * 10 + [False], (
        "no more than a second's worth is kept"
    )


def test_what_one_limit_refuses_costs_nothing_of_another() -> None:
    rates = Rates(ManualClock(), {"source": 2, "instance": 1})
    assert passes(rates, source="shop", instance="a")
    assert not passes(rates, source="shop", instance="a")
    assert passes(rates, source="shop", instance="b"), "the refused one took no token of its source"


def test_those_without_a_name_share_one_bucket() -> None:
    rates = Rates(ManualClock(), {"actor": 1})
    assert passes(rates)
    with pytest.raises(BusyError, match="for all that name no actor"):
        rates.admit(actor="", source="", instance="j")


def test_buckets_are_bounded() -> None:
    rates = Rates(ManualClock(), {"actor": 1})
    for number in range(BUCKETS_MAX + 100):
        assert passes(rates, actor=f"a{number}")
    assert len(rates._buckets[0]._filled) == BUCKETS_MAX


def test_settings() -> None:
    rates = Rates.from_environment(ManualClock(), {"STATEWRIGHT_RATE_INSTANCE": "1"})
    assert passes(rates)
    assert not passes(rates)
    assert passes(Rates.from_environment(ManualClock(), {}))
    for wrong in ("many", "0", "-1", "nan", "1e99"):
        with pytest.raises(InvalidError, match="expected STATEWRIGHT_RATE_ACTOR to be a number"):
            Rates.from_environment(ManualClock(), {"STATEWRIGHT_RATE_ACTOR": wrong})
