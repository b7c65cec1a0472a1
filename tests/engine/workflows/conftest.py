"""Fixtures of the tests of workflows."""

from __future__ import annotations

import pytest

from tests.engine.workflows.staged import Stage


@pytest.fixture
async def stage(store_url: str) -> Stage:
    """On a fresh SQLite store; nothing is open yet."""
    return Stage(store_url)
