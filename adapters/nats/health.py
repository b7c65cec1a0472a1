"""Health: what an engine answers to those who run it (is it alive, is it ready), and the signals that it publishes.

Invariants: health says that the process answers, nothing more: a store that is away is no reason to start it anew.
Readiness is computed at most once in `KEPT_S`, so that a flood of probes costs nothing, and each of its checks ends
within `CHECK_TIMEOUT_S`.

Every engine answers on `statewright.health` and `statewright.ready` (who asks takes the first answer), and on the same
with `.<worker>` for itself alone. `nats.micro` would bring discovery; it was left because it shares each of its
endpoints in a queue group, computes its statistics synchronously, and calls a function that Python 3.12 deprecates.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Callable
from importlib.metadata import version

import msgspec
from nats.aio.msg import Msg

from statewright.adapters.nats.connection import Connection
from statewright.engine.engine import Engine
from statewright.engine.errors import UnavailableError
from statewright.engine.ids import check_id
from statewright.engine.signals import Signals
from statewright.engine.tasks import end

HEALTH = "statewright.health"
READY = "statewright.ready"
SIGNALS = "statewright.signals"
SIGNALS_EVERY_S = 5.0
READY_LAG_S = 60.0
KEPT_S = 1.0
CHECK_TIMEOUT_S = 2.0

_LOG = logging.getLogger("statewright.nats")
_encode = msgspec.json.Encoder().encode


def default_worker() -> str:
    """host-pid, in the letters of an id."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:100]
    return f"{host}-{os.getpid()}"


class Operating(msgspec.Struct, frozen=True):
    """worker: this engine's name among others, an id. signals_every_s: 0 publishes none. ready_lag_s: how long a due
    timer, a due effect or a recorded fact may wait for its timer loop, handler or projection in an engine that calls
    itself ready."""

    worker: str = msgspec.field(default_factory=default_worker)
    signals_every_s: float = SIGNALS_EVERY_S
    ready_lag_s: float = READY_LAG_S


class Health(msgspec.Struct, frozen=True):
    """The answer on `statewright.health`."""

    status: str
    worker: str
    pid: int
    version: str


class Check(msgspec.Struct, frozen=True):
    """detail: what is wrong, or "" """

    name: str
    ok: bool
    detail: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """The answer on `statewright.ready`; `signals` is None when the store can't be read."""

    ready: bool
    worker: str
    checks: list[Check]
    signals: Signals | None


class Published(msgspec.Struct, frozen=True):
    """The message on `statewright.signals.<worker>`."""

    worker: str
    signals: Signals


class HealthDoors:
    """Where one engine answers and publishes. `faults` says what is wrong with its doors."""

    def __init__(
        self, engine: Engine, connection: Connection, operating: Operating, faults: Callable[[], list[str]]
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._faults = faults
        self._worker = check_id("a worker name", operating.worker)
        self._operating = operating
        self._health = _encode(Health("ok", self._worker, os.getpid(), version("statewright")))
        self._kept = b""
        self._kept_at = 0.0
        self._publishing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for subject, answer in ((HEALTH, self._on_health), (READY, self._on_ready)):
            await self._connection.subscribe(subject, answer)
            await self._connection.subscribe(f"{subject}.{self._worker}", answer)
        if self._operating.signals_every_s > 0:
            self._publishing = asyncio.create_task(self._publish(), name="statewright-signals")

    async def close(self) -> None:
        """Publish no more; answers end with the connection, so that who asks until then is told that it closes."""
        await end(self._publishing)

    async def readiness(self) -> Readiness:
        """Look at everything now."""
        signals, failed = None, ""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                signals = await self._engine.signals()
        except TimeoutError:
            failed = f"the store was not read within {CHECK_TIMEOUT_S:g} s"
        except UnavailableError as error:
            failed = str(error)
        checks = [await self._store(), _check("doors", "; ".join(self._faults()))]
        for name, detail in self._lags(signals) if signals is not None else [("store read", failed)]:
            checks.append(_check(name, detail))
        return Readiness(all(check.ok for check in checks), self._worker, checks, signals)

    async def _store(self) -> Check:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._engine.touch()
        except TimeoutError:
            return _check("store", f"nothing was written within {CHECK_TIMEOUT_S:g} s")
        except UnavailableError as error:
            return _check("store", str(error))
        return _check("store", "")

    def _lags(self, signals: Signals) -> list[tuple[str, str]]:
        found = [
            ("timers", "the first due timer", signals.timers_late_seconds),
            ("effects", "the first due effect", signals.effects_late_seconds),
        ]
        for name, lag in signals.projections.items():
            found.append((f"projection {name}", f"the first of {lag.facts:,} facts", lag.seconds))
        bound = self._operating.ready_lag_s
        return [
            (name, f"{what} waits for {seconds:g} s, more than {bound:g} s" if seconds > bound else "")
            for name, what, seconds in found
        ]

    async def _on_health(self, message: Msg) -> None:
        if message.reply:
            self._connection.post(message.reply, self._health)

    async def _on_ready(self, message: Msg) -> None:
        if not message.reply:
            return
        loop = asyncio.get_running_loop()
        if not self._kept or loop.time() - self._kept_at > KEPT_S:
            self._kept = _encode(await self.readiness())
            self._kept_at = loop.time()
        self._connection.post(message.reply, self._kept)

    async def _publish(self) -> None:
        subject = f"{SIGNALS}.{self._worker}"
        while True:
            await self._connection.online.wait()
            try:
                signals = await self._engine.signals()
            except UnavailableError as error:
                _LOG.debug("signals can't be read: %s", error)
            except Exception:  # Nobody is to miss them for ever because of one reading.
                _LOG.exception("signals can't be read")
            else:
                self._connection.post(subject, _encode(Published(self._worker, signals)))
            await asyncio.sleep(self._operating.signals_every_s)


def _check(name: str, detail: str) -> Check:
    return Check(name, not detail, detail)
