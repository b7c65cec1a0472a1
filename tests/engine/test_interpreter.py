"""What the engine sets of the interpreter goes one way only."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from statewright.engine.interpreter import GC_THRESHOLDS, SWITCH_INTERVAL_S, tune


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


def test_pythons_own_settings_are_replaced() -> None:
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(0.005)
    tune()
    assert gc.get_threshold() == GC_THRESHOLDS
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S, rel=0.02)


def test_what_somebody_has_set_further_stays() -> None:
    gc.set_threshold(100_000, 5, 1_000)
    sys.setswitchinterval(0.00005)
    tune()
    assert gc.get_threshold() == (100_000, 20, 1_000)
    assert sys.getswitchinterval() == pytest.approx(0.00005, rel=0.04)


def test_collection_that_is_off_stays_off() -> None:
    gc.set_threshold(0)
    tune()
    assert gc.get_threshold()[0] == 0


def test_tuning_again_and_again_changes_nothing() -> None:
    tune()
    before = sys.getswitchinterval()
    for _ in range(50):
        tune()
    assert sys.getswitchinterval() == before
