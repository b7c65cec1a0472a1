"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.charts import APPROVAL, AT_ONCE, COUNTER, EFFECTS, TIMERS
from tests.engine.worlds import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh store with all the test charts; not open yet."""
    return World(tmp_path / "store.db", APPROVAL, COUNTER, TIMERS, EFFECTS, AT_ONCE)
