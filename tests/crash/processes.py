"""Processes that run an engine and are killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class EngineProcesses:
    """The engine process that is running and, its code loaded already, the one that comes after it.

    A program says "loaded" when its code is, begins when it is told "go", and says "ready" when the engine is open.
    """

    def __init__(self, program: Path, *arguments: str, log: Path) -> None:
        self._program = program
        self._arguments = arguments
        self._log = log.open("wb")
        self._next = asyncio.create_task(self._load())
        self._running: asyncio.subprocess.Process | None = None

    async def start(self, *, until_ready: bool = True) -> None:
        self._running = await self._next
        self._next = asyncio.create_task(self._load())
        assert self._running.stdin is not None
        self._running.stdin.write(b"go\n")
        if until_ready:
            await self._says(self._running, b"ready\n")

    async def kill(self) -> None:
        assert self._running is not None
        self._running.kill()
        assert await self._running.wait() == -9

    async def keep_up(self) -> None:
        """Start the next whenever one has ended, as a service manager does; ends by cancellation."""
        while True:
            assert self._running is not None
            await self._running.wait()
            await self.start(until_ready=False)

    def strike_dead(self) -> None:
        """SIGKILL, for who keeps it up; no matter if it has just ended by itself."""
        assert self._running is not None
        with suppress(ProcessLookupError):
            self._running.kill()

    def pause(self) -> None:
        assert self._running is not None
        with suppress(ProcessLookupError):
            self._running.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._running is not None
        with suppress(ProcessLookupError):
            self._running.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ask the running one to end, as an operator would."""
        assert self._running is not None
        self._running.terminate()
        assert await asyncio.wait_for(self._running.wait(), 10) == 0

    async def close(self) -> None:
        """Leave none running, whatever happened."""
        loaded = await asyncio.gather(self._next, return_exceptions=True)
        for process in (self._running, *loaded):
            if isinstance(process, asyncio.subprocess.Process) and process.returncode is None:
                process.kill()
                await process.wait()
        self._log.close()

    async def _load(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self._program),
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        await self._says(process, b"loaded\n")
        return process

    async def _says(self, process: asyncio.subprocess.Process, line: bytes) -> None:
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), 20)
        assert said == line, f"expected the engine to say {line!r}, it said {said!r}; see {self._log.name}"


async def until(condition: Callable[[], bool], *, looking_every_s: float = 0.02) -> None:
    """The test's own time limit bounds it."""
    while True:
        if condition():
            return
        await asyncio.sleep(looking_every_s)
