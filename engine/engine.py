"""The engine: the front door for Python, and what adapters are built on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from eventsourcing.persistence import MapperDeserialisationError, PersistenceError

from statewright.engine.background import Background
from statewright.engine.calls import Handler
from statewright.engine.cipher import KEYS
from statewright.engine.clock import Clock, SystemClock
from statewright.engine.definitions import Definitions
from statewright.engine.effects import Effects
from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.events import AnyFact, InstancePruned
from statewright.engine.followers import Projection
from statewright.engine.ids import Ids, check_id, new_id
from statewright.engine.instance import Instance
from statewright.engine.log import InstanceLog
from statewright.engine.parking import Read, Retried
from statewright.engine.recorder import (
    Changes,
    EffectRow,
    InstanceFilter,
    InstanceRecorder,
    InstanceRow,
    ParkedRow,
    ScheduleRow,
    Store,
)
from statewright.engine.redaction import redacted
from statewright.engine.replay import Replay, replayed
from statewright.engine.requests import (
    REASON_CHARS_MAX,
    ControlRequest,
    ExternalEvent,
    Outcome,
    Request,
    Started,
    StartRequest,
    check_text,
)
from statewright.engine.residents import RESIDENTS_MAX
from statewright.engine.runtime import QUEUE_MAX, Runtime
from statewright.engine.schedules import CatchUp, Overlap, ScheduleRequest, Schedules
from statewright.engine.shares import Shares
from statewright.engine.signals import Signals
from statewright.engine.stores import bus_opener, open_store
from statewright.engine.upkeep import Upkeep
from statewright.engine.worker import Worker, Workers
from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import Retry
from statewright.statecharts.policies import PolicyFaults, compile_policy

T = TypeVar("T")
H = TypeVar("H", bound=Handler)


class Engine:
    """Runs instances of charts on one store. Made by `Engine.open`, used as an async context manager."""

    @classmethod
    def open(
        cls,
        store: str | Store,
        *,
        charts: Iterable[Chart] = (),
        clock: Clock | None = None,
        nats: str | object | None = None,
        read_only: bool = False,
        run_due: bool = True,
        residents_max: int = RESIDENTS_MAX,
        cipher_key: str | None = None,
        queue_max: int = QUEUE_MAX,
        workers: Workers = Worker,
        ids: Ids = new_id,
    ) -> Self:
        """An engine on the store behind the URL `store` (or on a `Store`); nothing is touched until it is entered.

        charts: what can be started (stored definitions can be, too). nats: URL of a server on which to open the
        doors, or `NatsOptions` of `statewright.adapters.nats.endpoint`. read_only: only queries, beside a live owner.
        run_due=False: timers, schedules and effects are left to another run. residents_max: how many instances are kept
        in memory; the others are read from the log when something happens to them (0: all are, each time). cipher_key:
        the key ring that encrypts the store (docs/security.md), if the environment does not hold it. queue_max: how
        many requests may wait; the next is answered `BusyError`. workers, ids: for simulations, who does what the event
        loop must not wait for (threads) and what makes the ids that nobody has given.

        Entering raises `UnavailableError`, `AlreadyExistsError`, `InvalidError`, and what a chart's children raise.
        """
        limits = (residents_max, queue_max)
        outside = (clock or SystemClock(), workers, ids)
        return cls(store, tuple(charts), nats, read_only, run_due, limits, cipher_key, outside)

    def __init__(
        self,
        store: str | Store,
        charts: tuple[Chart, ...],
        nats: str | object | None,
        read_only: bool,
        run_due: bool,
        limits: tuple[int, int],
        cipher_key: str | None,
        outside: tuple[Clock, Workers, Ids],
    ) -> None:
        self._store_given = store
        self._url = redacted(store if isinstance(store, str) else store.url)
        self._charts = charts
        self._nats = nats
        self._read_only = read_only
        self._run_due = run_due
        self._residents_max, self._queue_max = limits
        self._cipher_key = cipher_key
        self._doors: Any = None
        self._opened = False
        self._runtime: Runtime | None = None
        self._background: Background | None = None
        self.clock, self._workers, self._ids = outside

    async def __aenter__(self) -> Self:
        if self._opened:
            raise InvalidError("expected an engine that was not opened before; make another with Engine.open")
        self._opened = True
        given = self._store_given
        self.store: Store = open_store(given, read_only=self._read_only) if isinstance(given, str) else given
        try:
            await self._enter()
        except PersistenceError as error:
            await self.close()
            raise UnavailableError(f"store {self._url} can't be used: {error}") from error
        except BaseException:
            await self.close()
            raise
        return self

    async def _enter(self) -> None:
        if not self._read_only:
            self.store.acquire()
        key = {KEYS: self._cipher_key} if self._cipher_key is not None else {}
        self.log = InstanceLog({**self.store.environment, **key})
        self.log.check_key(read_only=self._read_only)
        self.definitions = Definitions(self.recorder)
        self.definitions.register(self._charts, store=not self._read_only)
        self.definitions.revive_stored()
        self._runtime = Runtime(
            self.log,
            self.definitions,
            self.clock,
            self._residents_max,
            self._queue_max,
            self._workers,
            is_shared=self.store.is_shared,
        )
        run_due = self._run_due and not self._read_only
        shared = run_due and self.store.is_shared
        worker = self._ids(self.clock.now()) if shared else None
        self._background = Background(self.log, self.definitions, self._runtime, self.clock, worker)
        if not self._read_only:
            await self._background.start(run_due=run_due)
        if self._nats is not None:
            self._doors = await bus_opener("nats")(self, self._nats)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def drain(self, timeout_s: float) -> None:
        """Come to rest before `close`, for who has closed the doors: fire no more timers, let running effects end
        (after three quarters of `timeout_s` the rest is stopped and put back), answer what was accepted, and let the
        projections take in what was recorded. What is not done in time is in the store, and the log says so."""
        await self._behind.drain(timeout_s)

    async def close(self) -> None:
        """Close the doors, answer what was accepted, stop, and give up the store. Idempotent."""
        doors, self._doors = self._doors, None
        if doors is not None:
            await doors.close()
        background, self._background = self._background, None
        if background is not None:
            await background.close()
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.close()
        if hasattr(self, "log"):
            self.log.close()
        if hasattr(self, "store"):
            self.store.close()

    # Commands

    async def start(
        self,
        definition: str,
        context: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 (the contract's name)
        version: str | None = None,
        actor: str = "",
    ) -> Started:
        """Start an instance; returns once that is durable. Starting again with the same id and content gives the
        same answer. Raises `NotFoundError` (definition), `InvalidError`, `ContextError`, `TooLargeError`,
        `AlreadyExistsError` (other content), `BusyError`, `UnavailableError`."""
        check_id("a definition name", definition)
        instance_id = self._ids(self.clock.now()) if id is None else check_id("an instance id", id)
        started: Started = await self.submit(
            StartRequest(instance_id, definition, {} if context is None else context, version, actor, is_new=id is None)
        )
        return started

    async def send(
        self,
        instance_id: str,
        name: str,
        data: Any = None,
        *,
        event_id: str | None = None,
        source: str = "",
        actor: str = "",
        time: int = 0,
    ) -> Outcome:
        """Deliver an event; returns once what became of it is durable. The same (instance, source, event_id) is
        recorded once, however often it is sent. Raises `NotFoundError`, `InvalidError`, `TooLargeError`,
        `IdReusedError`, `BusyError`, `UnavailableError`."""
        check_id("an instance id", instance_id)
        if event_id is None:
            event_id = self._ids(self.clock.now())
        outcome: Outcome = await self.submit(ExternalEvent(instance_id, name, data, event_id, source, actor, time))
        return outcome

    async def pause(self, instance_id: str, *, reason: str = "", actor: str = "") -> Outcome:
        """Defer events and due timers until `resume`."""
        return await self._control(ControlRequest(instance_id, "pause", reason, actor))

    async def resume(self, instance_id: str, *, reason: str = "", actor: str = "") -> Outcome:
        """Go on, applying first what was deferred, in order."""
        return await self._control(ControlRequest(instance_id, "resume", reason, actor))

    async def cancel(self, instance_id: str, *, reason: str = "", actor: str = "") -> Outcome:
        """End an instance from outside: its timers and effects are dropped."""
        return await self._control(ControlRequest(instance_id, "cancel", reason, actor))

    async def _control(self, request: ControlRequest) -> Outcome:
        check_id("an instance id", request.instance_id)
        outcome: Outcome = await self.submit(request)
        return outcome

    def submit(self, request: Request) -> asyncio.Future[Any]:
        """Queue a request whose ids have been checked; for adapters, which needn't await one to queue the next."""
        self._refuse_reading_only()
        return self._running.submit(request)

    def hold(self, instance_id: str) -> AbstractAsyncContextManager[None]:
        """While the block runs, nothing is decided about an instance here but modifications; what comes waits. For who
        works one out from where the instance stands. Other workers on a shared store know nothing of it."""
        self._refuse_reading_only()
        return self._running.holds.hold(instance_id)

    # Recurring starts

    async def schedule(
        self,
        definition: str,
        cron: str,
        context: Mapping[str, Any] | None = None,
        *,
        tz: str = "UTC",
        id: str | None = None,  # noqa: A002 (as of `start`)
        version: str | None = None,
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
        end_at: int | None = None,
        actor: str = "",
    ) -> ScheduleRow:
        """Start an instance of `definition` whenever `cron` is due in the time zone `tz` (see `engine/cron.py`), until
        `end_at` (ns UTC). id: the definition's name by default; again with the same content it is the same schedule.
        catch_up: of the starts that were due while no engine ran "all" are made up for, "one" (the last), or "none".
        overlap: "skip" starts nothing while the instance before still runs.

        Raises `InvalidError`, `NotFoundError` (definition), `ContextError`, `TooLargeError`, `AlreadyExistsError`
        (other content), `UnavailableError`.
        """
        given = {} if context is None else context
        return await self.scheduling.add(
            ScheduleRequest(
                definition=definition,
                cron=cron,
                tz=tz,
                id=id,
                context=given,
                version=version,
                catch_up=catch_up,
                overlap=overlap,
                end_at=end_at,
                actor=actor,
            )
        )

    async def unschedule(self, schedule_id: str) -> ScheduleRow:
        """Remove a schedule; the instances that it has started go on. Raises `NotFoundError`, `UnavailableError`."""
        return await self.scheduling.remove(schedule_id)

    async def pause_schedule(self, schedule_id: str) -> ScheduleRow:
        """Start nothing until `resume_schedule`. Raises `NotFoundError`, `InvalidError` (it has ended),
        `UnavailableError`."""
        return await self.scheduling.pause(schedule_id)

    async def resume_schedule(self, schedule_id: str) -> ScheduleRow:
        """Go on with the next due time; what was due during the pause is not made up for. Raises as the above."""
        return await self.scheduling.resume(schedule_id)

    async def schedules(self) -> Sequence[ScheduleRow]:
        """All schedules, in the order of their ids."""
        return await self.on_reader(self.recorder.select_schedules)

    # Queries

    async def status(self, instance_id: str) -> InstanceRow:
        """The `instances` row. Raises `NotFoundError`."""
        row = await self.on_reader(self.recorder.select_instance, check_id("an instance id", instance_id))
        if row is None:
            raise await self.on_reader(self.log.absence, instance_id)
        return row

    async def list(self, where: InstanceFilter = InstanceFilter()) -> Sequence[InstanceRow]:  # noqa: B008 (frozen)
        """The rows that match, in the order of the cursor."""
        return await self.on_reader(self.recorder.select_instances, where)

    async def effects(self, instance_id: str) -> Sequence[EffectRow]:
        """The effects of one instance, in the order in which they were asked for."""
        return await self.on_reader(self.recorder.select_effects, check_id("an instance id", instance_id))

    async def history(self, instance_id: str, *, after: int = 0, to: int | None = None) -> Sequence[AnyFact]:
        """The facts with after < sequence <= to, in order. Raises `NotFoundError`."""
        check_id("an instance id", instance_id)
        facts = await self.on_reader(lambda: self.log.facts(instance_id, after=after, to=to))
        pruned = bool(facts) and isinstance(facts[-1], InstancePruned)
        if pruned or (not facts and await self.on_reader(self.recorder.select_instance, instance_id) is None):
            raise await self.on_reader(self.log.absence, instance_id)
        return facts

    async def replay(self, instance_id: str, *, to_sequence: int | None = None, at: int | None = None) -> Replay:
        """The instance as of a sequence, or as of a time (ns UTC), or now; by folding its facts, running nothing.
        Raises `NotFoundError` for an unknown instance and for a moment before its start."""
        return replayed(instance_id, await self.history(instance_id, to=to_sequence), at)

    # What adapters and projections use

    def handler(
        self, name: str, *, retry: Retry | None = None, timeout: str = "", heartbeat: str = ""
    ) -> Callable[[H], H]:
        """Decorator: the function performs the effects that are called `name`.

        retry, timeout (of an attempt: `30s`), heartbeat (the longest time between two): for effects whose chart doesn't
        say; each of them that the chart says replaces the one given here, `retry` as a whole. Raises `InvalidError`.
        """
        effects = self._behind.effects
        faults: PolicyFaults = []
        policy = compile_policy(retry, timeout, heartbeat, faults)
        if faults:
            said = "; ".join(f"{'.'.join(path)}: {message}" for path, message in faults)
            raise InvalidError(f"handler '{name}': {said}")

        def register(function: H) -> H:
            effects.register(name, function, policy)
            return function

        return register

    def performer(self, kind: str, function: Handler, *, in_thread: bool | None = None) -> None:
        """`function` performs every effect of `kind` ("emit", "call"). in_thread: whether that takes a thread, of which
        there are fewer; by default what is no coroutine function does."""
        self._behind.effects.register_kind(kind, function, in_thread=in_thread)

    @property
    def performers(self) -> Effects:
        """What performs effects here, and knows who performs which."""
        return self._behind.effects

    def watch(self, seen: Callable[[Changes], None]) -> Callable[[], None]:
        """From now on `seen` is told the rows of each commit of this engine, right after it, on the event loop; what is
        returned ends that. What other workers commit is not among them."""
        return self._behind.watch(seen)

    def resident(self, instance_id: str) -> Instance | None:
        """An instance that is in memory, as of its last commit here (on a shared store there may be later ones)."""
        found = self._running.residents.get(instance_id)
        return found.instance if found is not None else None

    @property
    def handled(self) -> frozenset[str]:
        """The names of the effects that have a handler here."""
        return self._behind.effects.handled

    @property
    def doors(self) -> Any:
        """The doors that `nats=` opened, None without."""
        return self._doors

    @property
    def charts(self) -> Mapping[str, Chart]:
        """By name, the chart that a start without a version takes."""
        return self.definitions.newest

    @property
    def recorder(self) -> InstanceRecorder:
        return self.log.instances

    async def park(self, row: ParkedRow) -> None:
        """Keep a message that can't be understood or applied, with its reason. Raises `UnavailableError`."""
        try:
            await self.on_writer(self.recorder.park, row)
        except PersistenceError as error:
            raise UnavailableError(f"store {self._url} can't be written: {error}") from error

    async def parked(self, limit: int) -> Sequence[ParkedRow]:
        """What is parked, the oldest first."""
        return await self.on_reader(self.recorder.select_parked, limit)

    async def retry_parked(self, parked_id: str, read: Read) -> Retried:
        """Deliver what is parked once more, with the same identity; `read` understands a message. Raises
        `NotFoundError`, `UnavailableError`, and what makes it fail again: then it stays parked."""
        self._refuse_reading_only()
        retried = await self._behind.parking.retry(parked_id, read)
        self._behind.ring()
        return retried

    async def drop_parked(self, parked_id: str, *, reason: str = "") -> ParkedRow:
        """Drop for good, and log; a timer's as a fact. Raises `NotFoundError`, `InvalidError`, `UnavailableError`."""
        self._refuse_reading_only()
        check_text("the reason", reason, REASON_CHARS_MAX)
        return await self._behind.parking.drop(parked_id, reason)

    @property
    def upkeep(self) -> Upkeep:
        """Pruning and restoring. Raises `UnavailableError` unless the engine is open for writing."""
        self._refuse_reading_only()
        return Upkeep(self.recorder, self._running, self._behind.followers, self.clock)

    def _refuse_reading_only(self) -> None:
        if self._read_only:
            raise UnavailableError(f"store {self._url} is open for reading only")

    async def attach(self, projection: Projection) -> None:
        """Feed every fact to `projection`, from its position on, for as long as the engine is open."""
        self._behind.attach(projection)

    async def signals(self) -> Signals:
        """How much work waits and for how long. Raises `UnavailableError` when the store can't be read."""
        try:
            return await self._behind.signals()
        except PersistenceError as error:
            raise UnavailableError(f"store {self._url} can't be read: {error}") from error

    async def touch(self) -> None:
        """Write to the store. Raises `UnavailableError` when it can't be written, or could not a moment ago."""
        try:
            await self.on_writer(self.recorder.touch, self.clock.now())
            self._running.check_refusal()
        except PersistenceError as error:
            raise UnavailableError(f"store {self._url} can't be written: {error}") from error

    async def on_writer(self, function: Callable[..., T], *args: Any) -> T:
        """Run synchronous store work on the one writing thread, between commits."""
        return await self._running.on_writer(function, *args)

    async def on_reader(self, function: Callable[..., T], *args: Any) -> T:
        """Run synchronous reads off the event loop. Raises `UnavailableError` when the store can't be read."""
        try:
            return await self._running.on_reader(function, *args)
        except (PersistenceError, MapperDeserialisationError) as error:
            raise UnavailableError(f"store {self._url} can't be read: {error}") from error

    @property
    def _running(self) -> Runtime:
        if self._runtime is None:
            raise UnavailableError("the engine is not open: use `async with Engine.open(...) as engine`")
        return self._runtime

    @property
    def _behind(self) -> Background:
        if self._background is None:
            raise UnavailableError("the engine is not open: use it, and register handlers, inside `async with`")
        return self._background

    @property
    def scheduling(self) -> Schedules:
        """The commands on schedules, for adapters. Raises `UnavailableError` unless the engine is open for writing."""
        self._refuse_reading_only()
        return self._behind.schedules

    @property
    def shares(self) -> Shares | None:
        """What this worker does of the work on a shared store; None on a store that only this engine writes."""
        return self._behind.shares
