"""Ending a task for certain.

One `cancel` is not enough: a library call in the task may swallow it (`asyncio.wait_for` before Python 3.12 does when
what it waits for is done at the same moment, and the NATS driver waits with it), and a task that loops goes on.
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.2


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel `task` until it has ended; how it ended doesn't matter."""
    if task is None:
        return
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()  # Seen, so that nobody warns of it.
