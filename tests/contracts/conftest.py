"""Every contract test runs once for each implementation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statewright.engine.recorder import InstanceRecorder
from tests.contracts.recorders import IMPLEMENTATIONS, Harness


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = IMPLEMENTATIONS[request.param](tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def recorder(harness: Harness) -> InstanceRecorder:
    """An empty store, opened by its owner."""
    return harness.open()
