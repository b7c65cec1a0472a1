"""How the tests of workflows open an orchestrator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from statewright.engine.workflows import Orchestrator

Opening = Callable[..., AbstractAsyncContextManager[Orchestrator]]
"""(*workflows, **options of `Orchestrator.open`); on the test's store."""
