"""`statewright serve` as a process of its own, which the demo starts, kills and stops.

Invariant: on the way out of `async with` the process has ended, whatever happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from statewright.adapters.cli.options import Options
from statewright.engine.errors import UnavailableError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
_ENVIRONMENT = ("STATEWRIGHT_STORE", "STATEWRIGHT_NATS_URL")


class EngineProcess:
    """One engine on `options.store`, started as often as asked; its log goes to `folder`/engine.log."""

    def __init__(
        self, options: Options, folder: Path, *, chart: str, handlers: str, environment: dict[str, str]
    ) -> None:
        self._command = [sys.executable, "-m", "statewright.adapters.cli", "serve", "--json", "--store", options.store]
        self._command += ["--chart", chart, "--handlers", handlers]
        inherited = {name: value for name, value in os.environ.items() if name not in _ENVIRONMENT}
        self._environment = inherited | environment
        if options.nats:  # Not as an argument: a URL may hold a password, and arguments are for all to see.
            self._environment["STATEWRIGHT_NATS_URL"] = options.nats
        self._log = folder / "engine.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            await self.stop()

    async def start(self) -> dict[str, Any]:
        """Start it; returns what it says when it is ready. Raises `UnavailableError` with what it complained of."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_TIMEOUT_S)
        except TimeoutError:
            raise UnavailableError(
                f"expected the engine to be ready within {READY_TIMEOUT_S:g} s{self._said()}"
            ) from None
        if not line:
            raise UnavailableError(f"expected the engine to start, but it ended{self._said()}")
        ready: dict[str, Any] = msgspec.json.decode(line)
        return ready

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing is flushed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    async def ended(self) -> int:
        """The exit code, negative for a signal, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> int:
        """Ask it to end, as an operator would; SIGKILL if it does not. Returns the exit code. Idempotent."""
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
        return await process.wait()

    def _said(self) -> str:
        """The end of its log."""
        with self._log.open(encoding="utf-8", errors="replace") as log:
            lines = deque((line.strip() for line in log if line.strip()), maxlen=3)
        return f": {' | '.join(lines)}" if lines else " and said nothing"
