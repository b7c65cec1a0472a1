"""`statewright serve` as a process: what it says, how it is stopped, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
"""How long a test waits for what must happen, before it fails."""


class Server:
    """One `serve` with JSON logs from `level` on, in `folder`."""

    def __init__(self, folder: Path, *arguments: str, level: str = "info", **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATEWRIGHT_")}
        logging = ("--log-format", "json", "--log-level", level)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "statewright.adapters.cli", "serve", "--json", *logging, *arguments],
            cwd=folder,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.raw = ""
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._reader.join(PATIENCE_S)
        assert line, self.raw
        self.ready = json.loads(line)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.raw += line
                self.lines.append(json.loads(line))
                self._said.notify_all()

    def until_said(self, text: str) -> dict[str, Any]:
        """The first line of the log with `text` in its message."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if text in line["message"]), None)

        with self._said:
            line = self._said.wait_for(found, PATIENCE_S)
        assert line, f"expected {text!r} in the log, got {self.raw}"
        return line

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code


@contextmanager
def server(folder: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    running = Server(folder, *arguments, **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()
        running._reader.join(PATIENCE_S)
        assert running.process.stderr is not None
        running.process.stderr.close()
