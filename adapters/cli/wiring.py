"""The one place that builds the system: which store, which bus, which projections a command works with.

Reading commands open the store read-only, beside whoever owns it. Writing commands go to the owner over NATS; where
there is none they own the store for as long as the command takes, record, and leave what is due to the next owner.
The bus is imported by who needs it: a command that reads is to be quick.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast
from urllib.parse import quote

import msgspec

from statewright.adapters.cli.loading import load, load_functions, load_handlers
from statewright.adapters.cli.options import Options
from statewright.adapters.cli.people import parents
from statewright.adapters.cli.pruning import Pruner
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.adapters.sqlite.store import SQLiteStore
from statewright.adapters.sqlite.views import SQLiteMetricsView
from statewright.engine import Engine, Outcome, Started
from statewright.engine.cipher import KEY_FILE, KEYS, environment_of
from statewright.engine.clock import SystemClock
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.parking import Retried
from statewright.engine.recorder import InstanceRow
from statewright.engine.redaction import redacted
from statewright.engine.schedules import ScheduleRequest
from statewright.engine.stores import open_store
from statewright.engine.verify import Verification, verify_store
from statewright.engine.workflows import Orchestrator
from statewright.projections.metrics import Figures, Key
from statewright.projections.metrics_view import MetricsProjection, MetricsView, read_metrics, rebuild_metrics
from statewright.projections.schedules import schedule_json
from statewright.projections.visits import visits
from statewright.statecharts.chart import Chart
from statewright.statecharts.errors import ChartError

if TYPE_CHECKING:
    from statewright.adapters.cli.settings import Settings
    from statewright.adapters.nats.client import Client as Client
    from statewright.adapters.nats.endpoint import NatsOptions
    from statewright.adapters.nats.health import Health as Health
    from statewright.adapters.nats.health import Readiness as Readiness
    from statewright.adapters.plugins import Plugins
    from statewright.adapters.plugins.discovery import InstalledPlugin as InstalledPlugin
    from statewright.engine.reencryption import Reencrypted


PRUNE_TIMEOUT_S = 30.0
"""How long a batch may take its owner."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the program of a server: on uvloop if it is installed (the extra `fast`)."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@asynccontextmanager
async def reading(options: Options) -> AsyncIterator[Engine]:
    """An engine that only reads."""
    async with Engine.open(options.store, read_only=True) as engine:
        yield engine


def add_key(file: str) -> str:
    """Put a new key first in a file of keys; its name."""
    from statewright.adapters.encryption import key_files

    return key_files.add_key(file)


def installed_plugins() -> tuple[InstalledPlugin, ...]:
    """See `adapters/plugins`."""
    from statewright.adapters.plugins import discovery

    return discovery.installed_plugins()


def reencrypt(options: Options) -> Reencrypted:
    """Encrypt the store anew. Raises `InvalidError`, `NotFoundError`, `UnavailableError`."""
    from statewright.engine import reencryption

    return reencryption.reencrypt(options.store)


def say_what_is_withheld(engine: Engine) -> None:
    """On standard error, if the store is encrypted and its key is not here."""
    if engine.log.ring is None and engine.log.is_encrypted:
        print(f"the store is encrypted; to see the context set {KEYS} or {KEY_FILE}", file=sys.stderr)


class Commands(Protocol):
    """What a writing command needs, whoever carries it out."""

    async def start(
        self,
        definition: str,
        context: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 (the contract's name)
        version: str | None = None,
        actor: str = "",
    ) -> Started: ...

    async def send(
        self,
        instance_id: str,
        name: str,
        data: Any = None,
        *,
        event_id: str | None = None,
        source: str = "",
        actor: str = "",
    ) -> Outcome: ...

    async def control(
        self, instance_id: str, action: Literal["pause", "resume", "cancel"], *, reason: str = "", actor: str = ""
    ) -> Outcome: ...

    async def schedule(self, request: ScheduleRequest) -> dict[str, Any]: ...

    async def unschedule(self, schedule_id: str) -> dict[str, Any]: ...

    async def pause_schedule(self, schedule_id: str) -> dict[str, Any]: ...

    async def resume_schedule(self, schedule_id: str) -> dict[str, Any]: ...
    async def retry_parked(self, parked_id: str) -> Retried: ...

    async def drop_parked(self, parked_id: str, *, reason: str = "") -> object: ...


class _Owner:
    """This process carries out the command on its own engine."""

    def __init__(self, engine: Engine) -> None:
        self.start = engine.start
        self.send = engine.send
        self.drop_parked = engine.drop_parked
        self._engine = engine

    async def control(
        self, instance_id: str, action: Literal["pause", "resume", "cancel"], *, reason: str = "", actor: str = ""
    ) -> Outcome:
        outcome: Outcome = await getattr(self._engine, action)(instance_id, reason=reason, actor=actor)
        return outcome

    async def schedule(self, request: ScheduleRequest) -> dict[str, Any]:
        return schedule_json(await self._engine.scheduling.add(request))

    async def unschedule(self, schedule_id: str) -> dict[str, Any]:
        return schedule_json(await self._engine.unschedule(schedule_id))

    async def pause_schedule(self, schedule_id: str) -> dict[str, Any]:
        return schedule_json(await self._engine.pause_schedule(schedule_id))

    async def resume_schedule(self, schedule_id: str) -> dict[str, Any]:
        return schedule_json(await self._engine.resume_schedule(schedule_id))

    async def retry_parked(self, parked_id: str) -> Retried:
        from statewright.adapters.nats.inbound import read_parked

        return await self._engine.retry_parked(parked_id, partial(read_parked, self._engine.charts))


def _nats(options: Options) -> NatsOptions | None:
    """The server that the options name; None leaves it to the command which it is."""
    if options.nats in (None, "embedded"):
        return None
    from statewright.adapters.nats.endpoint import Endpoint, NatsOptions

    named = Endpoint.from_url(options.nats or "")
    return NatsOptions(
        named.url,
        named.user,
        named.password,
        named.token,
        options.nats_creds,
        options.nats_nkey,
        options.nats_ca,
        options.nats_cert,
        options.nats_key,
    )


@asynccontextmanager
async def commanding(options: Options, charts: Iterable[str] = ()) -> AsyncIterator[Commands]:
    """Whoever owns the store, or this process. `charts` are registered only in the second case."""
    where = _nats(options) or _owner_of(options.store)
    if where is not None:
        from statewright.adapters.nats.client import Client

        async with await Client.connect(where, name="statewright command") as client:
            yield client
        return
    # Timers and effects are left alone: nobody here has the handlers, and the command is to end soon.
    async with Engine.open(options.store, charts=[load(chart) for chart in charts], run_due=False) as engine:
        yield _Owner(engine)


@asynccontextmanager
async def connected(options: Options) -> AsyncIterator[Client]:
    """A client of whoever owns the store. Raises `UnavailableError` if nobody does."""
    from statewright.adapters.nats.client import Client

    where = _nats(options) or _owner_of(options.store)
    if where is None:
        raise UnavailableError(f"no engine serves {redacted(options.store)}: start one with `statewright serve`")
    async with await Client.connect(where, name="statewright client") as client:
        yield client


@asynccontextmanager
async def pruning(options: Options) -> AsyncIterator[tuple[Engine, Pruner]]:
    """An engine that reads the store, and who prunes it: its owner, or this process, which then has the metrics follow
    first."""
    where = _nats(options) or _owner_of(options.store)
    if where is not None:
        from statewright.adapters.nats.client import Client

        async with (
            reading(options) as engine,
            await Client.connect(where, name="statewright prune", timeout_s=PRUNE_TIMEOUT_S) as client,
        ):
            yield engine, client
        return
    async with owning(options) as engine:
        yield engine, engine.upkeep


@asynccontextmanager
async def owning(options: Options) -> AsyncIterator[Engine]:
    """An engine that owns a store that is there, runs nothing that is due, and has its metrics follow."""
    open_store(options.store, read_only=True).close()  # Refuses to make one.
    async with Engine.open(options.store, run_due=False) as engine:
        await engine.attach(MetricsProjection(metrics_view(engine), engine.on_reader, engine.on_writer))
        yield engine


def back_up(options: Options, target: str) -> tuple[int, Verification]:
    """Copy the store to a new file; its size in bytes and what verifying it has found.

    Raises `InvalidError`, `UnavailableError`, among others if the copy is not true to itself.
    """
    from statewright.adapters.sqlite.backup import back_up as back_up_sqlite

    if _is_postgres(options.store):
        raise InvalidError("expected a SQLite store; PostgreSQL has tools of its own: use pg_dump, or its archiving")
    store = open_store(options.store, read_only=True)
    if not isinstance(store, SQLiteStore):
        raise InvalidError(f"expected a SQLite store to back up, got {options.store}")
    found: list[Verification] = []

    def verify(path: str) -> None:
        found.append(verify_store(f"sqlite:///{quote(path)}"))
        if not found[0].is_true:
            raise UnavailableError(
                f"the copy of {options.store} is not true to itself, so neither is the store; "
                f"`statewright store verify` shows all: {found[0].differences[0]}"
            )

    size = back_up_sqlite(store.path, target, verify)
    return size, found[0]


def check_nats(url: str) -> None:
    """Raises `InvalidError` if it is no URL of a nats-server."""
    from statewright.adapters.nats.doors import EMBEDDED
    from statewright.adapters.nats.endpoint import Endpoint

    if url != EMBEDDED:
        Endpoint.from_url(url)


def _check_admission(environment: Mapping[str, str]) -> None:
    from statewright.adapters.nats.admission import Admission

    Admission(SystemClock(), environment)


def _check_replicas(environment: Mapping[str, str]) -> None:
    from statewright.adapters.nats.streams import replicas

    replicas(environment)


def _check_encryption(environment: Mapping[str, str]) -> None:
    if "CIPHER_TOPIC" in environment_of(environment):
        from statewright.adapters.encryption.keyring import KeyRing

        KeyRing(environment)


VARIABLE_CHECKS = (_check_admission, _check_replicas, _check_encryption)
"""Of variables without a flag, by those who read them: each takes the environment and raises InvalidError."""


def default_worker() -> str:
    """What an engine is called that was given no name."""
    from statewright.adapters.nats.health import default_worker

    return default_worker()


def _is_postgres(url: str) -> bool:
    return url.startswith(("postgresql:", "postgres:"))


def _owner_of(url: str) -> Any:
    from statewright.adapters.nats.endpoint import find_endpoint

    store = open_store(url)
    try:
        return None if store.endpoint_path is None else find_endpoint(store.endpoint_path)
    finally:
        store.close()


class Served(msgspec.Struct, frozen=True):
    """What `serve` says when it is ready."""

    store: str
    nats: str
    pid: int
    worker: str
    definitions: list[str]
    unhandled: list[str]
    """Effects that some chart asks for and nobody here performs, `step.function.docs.load` of workflows among them;
    they wait in the store."""


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Served]:
    """The whole system: engine, handlers, metrics, doors. On the way out it comes to rest, in the order that loses
    nothing and leaves nobody without an answer: doors, timers, effects, projections, store."""
    from statewright.adapters.nats.doors import open_doors
    from statewright.adapters.nats.health import Operating

    options = settings.options
    registrations = [load_handlers(source) for source in settings.handlers]
    functions = {name: function for source in settings.handlers for name, function in load_functions(source).items()}
    operating = Operating(settings.worker, settings.signals_every, settings.ready_lag)
    charts = [load(chart) for chart in settings.charts]
    async with (
        _plugins(settings.plugins) as plugins,
        Engine.open(options.store, charts=charts, residents_max=settings.residents_max) as engine,
    ):
        for register in registrations:
            register(engine)
        await engine.attach(MetricsProjection(metrics_view(engine), engine.on_reader, engine.on_writer))
        doors = await open_doors(engine, _nats(options), operating=operating)
        try:
            # After the doors, which bring the bus on which steps of services go out.
            async with Orchestrator(engine, functions=functions, plugins=plugins) as orchestrator:
                yield _served(orchestrator, options, doors.endpoint.url, settings.worker)
                await doors.stop_taking()
                await engine.drain(settings.shutdown_timeout)
        finally:
            await doors.close()


@asynccontextmanager
async def _plugins(names: list[str]) -> AsyncIterator[Plugins | None]:
    """The installed plugins of these names, active as long as the engine that is opened in it; None without names.

    Raises what `Plugins.discover` and `Plugins.start` raise, all of it before an engine is there."""
    if not names:
        yield None
        return
    from statewright.adapters.plugins import Plugins

    plugins = Plugins()
    plugins.discover(names)
    async with plugins:
        yield plugins


def _served(orchestrator: Orchestrator, options: Options, nats: str, worker: str) -> Served:
    engine = orchestrator.engine
    wanted = {name for chart in engine.charts.values() for name in chart.handler_names}
    unhandled = sorted([*(wanted - engine.handled), *orchestrator.unperformed()])
    return Served(redacted(options.store), nats, os.getpid(), worker, sorted(engine.charts), unhandled)


async def handled(handlers: Iterable[str]) -> frozenset[str]:
    """The effects for which these handlers are; they are registered with an engine that runs nothing and is thrown
    away."""
    registrations = [load_handlers(source) for source in handlers]
    with TemporaryDirectory(prefix="statewright-") as folder:
        async with Engine.open(f"sqlite:///{folder}/empty.db", run_due=False) as engine:
            for register in registrations:
                register(engine)
            return frozenset(engine.handled)


def metrics_view(engine: Engine) -> MetricsView:
    """Where the engine's store keeps metrics: in the same database."""
    recorder = engine.log.recorder  # Not `engine.recorder`: of an encrypted store that is a wrapper of another type.
    if isinstance(recorder, SQLiteInstanceRecorder):
        return SQLiteMetricsView(recorder.datastore)
    from statewright.adapters.postgres.recorder import PostgresInstanceRecorder
    from statewright.adapters.postgres.views import PostgresMetricsView

    return PostgresMetricsView(cast(PostgresInstanceRecorder, recorder).datastore)


async def current_metrics(options: Options) -> dict[Key, Figures]:
    """The figures as of the last recorded fact."""
    async with reading(options) as engine:
        return await engine.on_reader(read_metrics, metrics_view(engine), engine.log.following)


async def rebuilt_metrics(options: Options) -> dict[Key, Figures]:
    """The figures computed again from the whole log, and stored."""
    async with Engine.open(options.store, run_due=False) as engine:
        return await engine.on_writer(rebuild_metrics, metrics_view(engine), engine.log.following)


def outer_states(engine: Engine, definition: str, version: str) -> frozenset[str]:
    """The states of a stored definition that contain others."""
    row = engine.recorder.select_definition(definition, version)
    return parents(row.json) if row is not None else frozenset()


async def svg(options: Options, source: str | None, instance: str | None) -> str:
    """The picture of the chart that `source` names, or of an instance in the store; both name one definition.

    Raises `NotFoundError`, `InvalidError` if they don't, `LayoutError`.
    """
    from statewright.adapters.svg import render_svg

    chart = load(source) if source is not None else None
    if instance is None:
        assert chart is not None
        return render_svg(chart)
    async with reading(options) as engine:
        row = await engine.status(instance)
        chart = _pinned(engine, row) if chart is None else chart
        if chart.digest != row.digest:
            raise InvalidError(
                f"expected the definition that '{instance}' is pinned to, '{row.definition}' version '{row.version}' "
                f"with digest {row.digest[:12]}, got '{chart.name}' version '{chart.version}' with "
                f"{chart.digest[:12]} from {source}; without CHART the stored one is drawn"
            )
        return render_svg(chart, visits(chart, await engine.history(instance)))


def _pinned(engine: Engine, row: InstanceRow) -> Chart:
    """The stored definition of an instance. Raises `InvalidError` if it can't be compiled without its functions."""
    stored = engine.recorder.select_definition(row.definition, row.version)
    try:
        return Chart.from_json(stored.json.encode() if stored is not None else b"")
    except ChartError as error:
        raise InvalidError(
            f"the stored definition of '{row.id}' can't be drawn by itself, name CHART too: {error}"
        ) from error
