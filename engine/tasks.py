"""Ending a task for certain.

One `cancel` is not enough: a library call in the task may swallow it (`asyncio.wait_for` before Python 3.12 does when
what it waits for is done at the same moment, and the NATS driver waits with it), and a task that loops goes on.
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.2


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel `tasks`, in this order, until they have ended; how they ended doesn't matter."""
    given = [task for task in tasks if task is not None]
    while pending := [task for task in given if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    for task in given:
        if not task.cancelled():
            task.exception()  # Seen, so that nobody warns of it.
