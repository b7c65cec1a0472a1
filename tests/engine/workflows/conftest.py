"""Fixtures of the tests of workflows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from statewright.engine.verify import verify_store
from statewright.engine.workflows import Orchestrator
from statewright.statecharts.workflows import Workflow
from tests.engine.workflows.opening import Opening
from tests.engine.workflows.staged import Stage
from tests.postgres_server import new_url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}" if request.param == "sqlite" else new_url()


@pytest.fixture
def opened(url: str) -> Opening:
    """Opens an orchestrator on the test's store; afterwards every row must be what the facts say."""

    @asynccontextmanager
    async def opened(*workflows: Workflow, **options: Any) -> AsyncIterator[Orchestrator]:
        async with Orchestrator.open(url, workflows=workflows, **options) as orchestrator:
            yield orchestrator
        assert verify_store(url).differences == []

    return opened


@pytest.fixture
async def stage(url: str) -> Stage:
    """On the test's store; nothing is open yet."""
    return Stage(url)
