"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.charts import APPROVAL, AT_ONCE, COUNTER, EFFECTS, TIMERS
from tests.engine.worlds import World
from tests.postgres_server import new_url

ON_POSTGRES_TOO = frozenset(
    {"test_batches", "test_lifecycle", "test_timers", "test_effects", "test_children", "test_recovery"}
    | {"test_failed_commits", "test_send", "test_start", "test_parking", "test_pruning", "test_schedules"}
    | {"test_effect_policies", "test_effect_cancellation", "test_modification"}
)
"""The modules whose tests run on both stores; the marker `sqlite` excepts what is about a file."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" not in metafunc.fixturenames or metafunc.definition.get_closest_marker("sqlite"):
        return
    if metafunc.module.__name__.rpartition(".")[2] in ON_POSTGRES_TOO:
        metafunc.parametrize("store_url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a fresh store; nothing is made yet."""
    return new_url() if getattr(request, "param", "sqlite") == "postgres" else f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    """A fresh store with all the test charts; not open yet."""
    return World(tmp_path / "store.db", APPROVAL, COUNTER, TIMERS, EFFECTS, AT_ONCE, url=store_url)
