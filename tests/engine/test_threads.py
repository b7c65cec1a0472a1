"""Threads for handlers: bounded in number, and closing does not wait for ever."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading

import pytest

from statewright.engine.threads import Threads
from tests.engine.worlds import until


async def test_a_result_an_error_and_the_context_cross_over() -> None:
    threads = Threads()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")
    assert await threads.run("t", lambda: (variable.get(), threading.current_thread().name)) == ("seen", "t")
    with pytest.raises(KeyError, match="k"):
        await threads.run("t", {}.__getitem__, "k")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run("t", next, iter(()))
    await threads.close()


async def test_no_more_run_at_once_than_may_those_given_up_included() -> None:
    threads = Threads(threads_max=2)
    may_end = threading.Event()
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        may_end.wait()

    first, second, third = (asyncio.ensure_future(threads.run(f"t{n}", work, n)) for n in range(3))
    await until(lambda: len(begun) == 2, "two to begin")
    first.cancel()
    await asyncio.wait((first,))
    assert sorted(begun) == [0, 1]
    may_end.set()
    await asyncio.gather(second, third)
    assert sorted(begun) == [0, 1, 2]
    await threads.close()


async def test_closing_leaves_behind_what_does_not_end_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    threads = Threads(closing_s=0.01)
    may_end = threading.Event()
    task = asyncio.ensure_future(threads.run("effect e-2-0", may_end.wait))
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING):
        await threads.close()
    assert "closing without 1 handlers that have not ended within 0.01 s: effect e-2-0" in caplog.text
    may_end.set()
    await task
    await threads.close()
