"""The loop that gathers, decides, records together, and only then answers.

One batch is one transaction (group commit): whatever arrived while the last commit was on its way to the disk goes
together in the next; nothing ever waits for a batch to fill. Invariants: cached residents advance only on commit; an
answer is given only for what is durable; after a failed commit its instances are read again and the batch is tried
in halves, so that only the guilty request fails; after an unknown outcome the log decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from functools import partial
from typing import Any, NamedTuple, TypeVar

from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    MapperDeserialisationError,
    PersistenceError,
    ProgrammingError,
)

from statewright.engine import interpreter
from statewright.engine.answers import Delivery, Lookups, answer_all, as_answer, settle
from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.commits import Commits, Nobody
from statewright.engine.definitions import Definitions
from statewright.engine.errors import (
    BusyError,
    ConflictError,
    InvalidError,
    LeaseLostError,
    UnavailableError,
    UnusableError,
)
from statewright.engine.events import InstancePruned
from statewright.engine.holds import Holds
from statewright.engine.instance import Instance
from statewright.engine.log import InstanceLog
from statewright.engine.logged import ids_of_many, log_facts
from statewright.engine.requests import Request, StartRequest, identity_of
from statewright.engine.residents import RESIDENTS_MAX, Resident, Residents, load_resident
from statewright.engine.unit import Answer, Doubtful, Unit
from statewright.engine.worker import Worker, Workers

BATCH_MAX = 1_024
OVERLAP_MIN = 64
"""From how many waiting requests on a batch is split, so that deciding one half overlaps with writing the other. What a
commit costs by itself outweighs that for fewer: split, 40 senders are an eighth slower, 100 a twentieth faster."""
QUEUE_MAX = 20_000
CONFLICTS_MAX = 10
"""How often one request is decided anew because another writer was first."""
REFUSAL_NS = 10 * SECOND_NS
"""For how long a commit that failed tells that the store can't be written: who asks for nothing finds out no more."""
SNAPSHOT_EVERY = 100
"""An instance is snapshotted when its sequence passes a multiple of this."""

_OF_ONE_REQUEST = (IntegrityError, DataError, ProgrammingError)
"""What a store raises for what a request has brought; its other errors are its own."""

_LOG = logging.getLogger("statewright.engine")
T = TypeVar("T")


class _Decided(NamedTuple):
    """A batch with what has been decided about it, not recorded yet."""

    batch: Sequence[Delivery]
    unit: Unit
    answers: list[tuple[Delivery, Answer]]


class _Refused(NamedTuple):
    """A commit that the store did not take, after so many `recorded`."""

    at: int
    recorded: int
    error: UnavailableError


class Runtime:
    """Owns the writing thread and the residents. `workers` makes the threads."""

    def __init__(
        self,
        log: InstanceLog,
        definitions: Definitions,
        clock: Clock,
        residents_max: int = RESIDENTS_MAX,
        queue_max: int = QUEUE_MAX,
        workers: Workers = Worker,
        *,
        is_shared: bool = False,
    ) -> None:
        self._log = log
        self._definitions = definitions
        self._clock = clock
        self._is_shared = is_shared
        self.commits: Commits = Nobody()
        self._queue: deque[Delivery] = deque()
        self._queue_max = queue_max
        self._arrived = asyncio.Event()
        self.is_closing = False
        self._under_way: asyncio.Future[None] | None = None
        """Done when the batch that is being recorded has been answered."""
        self._recovering: asyncio.Task[None] | None = None
        self._recording: Set[str] = frozenset()
        self.holds = Holds(self._put_back)
        self._lookups = Lookups(log, self.on_reader)
        """Those that wait for it count as queued, so that duplicates can't pile up."""
        self.recorded = 0
        """How many facts this run has made durable."""
        self._refused: _Refused | None = None
        self._loop = asyncio.get_running_loop()
        interpreter.tune()
        self._writer = workers("statewright-writer")
        self._reader = workers("statewright-reader")
        self.residents = Residents(residents_max)
        self._partitions = log.instances.partitions
        self._task = self._loop.create_task(self._run(), name="statewright-runtime")

    def submit(self, request: Request, *, bounded: bool = True) -> asyncio.Future[Any]:
        """Queue a request; the future has its answer once that is durable. Raises `BusyError` when the queue is full
        (`bounded=False` is for the engine's own, whose number is bounded elsewhere), `UnavailableError` on closing."""
        if self.is_closing:
            raise UnavailableError("the engine is closing")
        if bounded and self.waiting >= self._queue_max:
            raise BusyError(f"{self._queue_max:,} requests are waiting; try again later")
        answered = self._loop.create_future()
        delivery = Delivery(request, answered)
        if not self.holds.keep(delivery):
            self._queue.append(delivery)
            self._arrived.set()
        return answered

    def _put_back(self, deliveries: Iterable[Delivery]) -> None:
        """At the end of the queue: what came before them may still be in it."""
        self._queue.extend(deliveries)
        self._arrived.set()

    @property
    def waiting(self) -> int:
        """How many requests wait to be decided (held or not), or for an answer that is looked up."""
        return len(self._queue) + self._lookups.waiting + self.holds.waiting

    def check_refusal(self) -> None:
        """Raise `UnavailableError` if the store refused a commit a moment ago and nothing was recorded since: on a full
        disk there may be room for a small write, and for no fact."""
        refused, now = self._refused, self._clock.now()
        if refused is not None and refused.recorded == self.recorded and refused.at <= now < refused.at + REFUSAL_NS:
            raise UnavailableError(str(refused.error)) from refused.error

    async def on_writer(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(*args)` on the one thread that writes, between commits."""
        result: T = await self._writer.call(function, *args)
        return result

    async def on_reader(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(*args)` on the thread that reads."""
        result: T = await self._reader.call(function, *args)
        return result

    async def prune(self, tombstones: Sequence[InstancePruned]) -> list[str]:
        """Put tombstones in the place of instances (see `InstanceRecorder.prune`) and forget them."""
        try:
            return await self.on_writer(self._log.prune, tombstones)
        finally:
            for tombstone in tombstones:
                self.residents.evict(tombstone.instance_id)

    async def finish(self) -> None:
        """Take no more requests and answer those that are queued. The threads go on, for who follows the log."""
        self.is_closing = True
        self.holds.let_go()
        self._arrived.set()
        await self._task

    async def close(self) -> None:
        """Answer what is queued, then stop."""
        await self.finish()
        self._writer.close()
        self._reader.close()

    async def _run(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                if self.is_closing and not self._queue:
                    break
                self._arrived.clear()
                await self._arrived.wait()
                continue
            try:
                decided = await self._decide(batch)
            except Exception as error:  # The loop must outlive any fault: it is answered, and said.
                _LOG.exception("a batch of %d requests failed", len(batch), extra=_ids_of(batch))
                answer_all(batch, error)
                continue
            await self._until_recorded()
            self._hand_over(decided)
            if decided.unit.is_empty:
                await asyncio.sleep(0)  # A flood of duplicates lets others have their turn.
        await self._until_recorded()
        await self._lookups.finish()

    def _take(self) -> list[Delivery]:
        """What is decided next, in order of arrival. While a commit is under way its instances' requests wait for it;
        while none is, half of what has arrived is taken, so that the other half is decided while that is written."""
        queue, recording = self._queue, self._recording
        if self._under_way is None:
            size = len(queue)
            if size >= OVERLAP_MIN and queue[0].request.instance_id != queue[-1].request.instance_id:
                size //= 2  # What is asked of one instance alone can't overlap.
            return [queue.popleft() for _ in range(min(size, BATCH_MAX))]
        batch: list[Delivery] = []
        held: list[Delivery] = []
        while queue and len(batch) + len(held) < BATCH_MAX:
            delivery = queue.popleft()
            (held if delivery.request.instance_id in recording else batch).append(delivery)
        queue.extendleft(reversed(held))
        return batch

    async def _until_recorded(self) -> None:
        if self._under_way is not None:
            await self._under_way

    def _hand_over(self, decided: _Decided) -> None:
        """Have a batch recorded while the next is decided. What is usual takes no task: a lone event waits for each."""
        self._recording = decided.unit.drafts.keys()
        self._under_way = self._loop.create_future()
        if decided.unit.is_empty:
            self._finish(decided, None)
            return
        try:
            self._write(decided.unit).add_done_callback(partial(self._finish, decided))
        except Exception as error:
            self._recover_later(decided, error)

    def _finish(self, decided: _Decided, written: asyncio.Future[Any] | None) -> None:
        error = None if written is None else written.exception()
        if error is None:
            try:
                self._answer(decided)
            except Exception as fault:
                self._fail(decided, fault)
            self._finished()
        else:
            self._recover_later(decided, error)

    def _recover_later(self, decided: _Decided, error: BaseException) -> None:
        self._recovering = self._loop.create_task(self._recover_and_finish(decided, error))

    async def _recover_and_finish(self, decided: _Decided, error: BaseException) -> None:
        try:
            await self._not_written(decided, error, 0)
        except Exception as fault:
            self._fail(decided, fault)
        finally:
            self._finished()

    def _fail(self, decided: _Decided, error: Exception) -> None:
        """The loop must outlive any fault: it is answered, and said."""
        _LOG.error("a batch of %d requests failed", len(decided.batch), exc_info=error, extra=_ids_of(decided.batch))
        answer_all(decided.batch, error)

    def _finished(self) -> None:
        under_way, self._under_way, self._recording = self._under_way, None, frozenset()
        if under_way is not None and not under_way.done():
            under_way.set_result(None)
        self._arrived.set()

    async def _process(self, batch: Sequence[Delivery], conflicts: int = 0) -> None:
        """Decide, record and answer one batch, alone, after it has failed with others."""
        await self._record(await self._decide(batch, ask_inbox=True), conflicts)

    async def _decide(self, batch: Sequence[Delivery], *, ask_inbox: bool = False) -> _Decided:
        """Identities older than those in memory are looked for only with `ask_inbox`: so rare a duplicate meets the
        inbox's key at the commit and comes back here, rather than all others paying for it."""
        kept = self._kept(batch) if self._is_shared else frozenset()
        loaded, batch = await self._load(batch, ask_inbox=ask_inbox)
        unit = self._unit(loaded, kept)
        answers = [(delivery, unit.decide(delivery.request)) for delivery in batch]
        if kept:
            answers = self._without_doubtful(answers)
            batch = [delivery for delivery, _ in answers]
        return _Decided(batch, unit, answers)

    def _kept(self, batch: Sequence[Delivery]) -> frozenset[str]:
        """Of the instances concerned, those in memory: on a shared store others may have written of them since."""
        return frozenset(d.request.instance_id for d in batch if d.request.instance_id in self.residents)

    def _without_doubtful(self, answers: list[tuple[Delivery, Answer]]) -> list[tuple[Delivery, Answer]]:
        """Those that can be given. What only the log can tell comes first in the next batch, with its instance read
        anew."""
        doubtful = [delivery for delivery, answer in answers if isinstance(answer, Doubtful)]
        for delivery in reversed(doubtful):
            self.residents.evict(delivery.request.instance_id)
            self._queue.appendleft(delivery)
        if doubtful:
            self._arrived.set()
        return [(delivery, answer) for delivery, answer in answers if not isinstance(answer, Doubtful)]

    async def _record(self, decided: _Decided, conflicts: int = 0) -> None:
        """Make a decided batch durable and answer it."""
        if not decided.unit.is_empty:
            try:
                await self._write(decided.unit)
            except Exception as error:
                await self._not_written(decided, error, conflicts)
                return
        self._answer(decided)

    def _write(self, unit: Unit) -> asyncio.Future[Any]:
        unit.seal()
        self.commits.begun(unit.changes)
        return self._writer.call(self._log.append, unit.facts, unit.changes)

    async def _not_written(self, decided: _Decided, error: BaseException, conflicts: int) -> None:
        """If it is there all the same it is answered, else all is tried again apart."""
        if not isinstance(error, Exception):
            raise error
        batch, unit, _ = decided
        if await self._is_recorded(unit, error):
            self._answer(decided)
            return
        self.commits.failed(unit.changes, is_certain=isinstance(error, (*_OF_ONE_REQUEST, LeaseLostError)))
        await self._recover(batch, unit, error, conflicts)

    def _answer(self, decided: _Decided) -> None:
        """What was decided is durable."""
        if not decided.unit.is_empty:
            self._advance(decided.unit)
        lookups = [pair for pair in decided.answers if settle(*pair)]
        if lookups:
            self._lookups.begin(lookups)

    def _unit(self, loaded: dict[str, Resident], doubtful: Collection[str] = ()) -> Unit:
        return Unit(loaded, self._definitions, self._partitions, self._clock.now(), doubtful)

    async def _load(
        self, batch: Sequence[Delivery], *, ask_inbox: bool
    ) -> tuple[dict[str, Resident], Sequence[Delivery]]:
        """The residents that `batch` needs, by id (those that don't exist are absent), and the deliveries that can
        go on; one whose instance can't be loaded is answered here."""
        loaded: dict[str, Resident] = {}
        missing: dict[str, None] = {}
        for delivery in batch:
            instance_id = delivery.request.instance_id
            if instance_id not in loaded and instance_id not in missing:
                resident = self.residents.get(instance_id)
                if resident is not None:
                    loaded[instance_id] = resident
                elif ask_inbox or not (type(delivery.request) is StartRequest and delivery.request.is_new):
                    missing[instance_id] = None
        if missing:
            batch = await self._load_missing(batch, missing, loaded)
        if ask_inbox and not all(resident.complete for resident in loaded.values()):
            try:
                await self.on_reader(self._look_for_identities, batch, loaded)
            except PersistenceError as error:
                failure = UnavailableError(f"the store can't be read, it is not known what it has recorded: {error}")
                failure.__cause__ = error
                answer_all(batch, failure)
                return loaded, ()
        return loaded, batch

    async def _load_missing(
        self, batch: Sequence[Delivery], missing: dict[str, None], loaded: dict[str, Resident]
    ) -> Sequence[Delivery]:
        failed: dict[str, Exception] = {}
        for instance_id, found in await self.on_reader(self._read_all, list(missing), batch):
            if isinstance(found, Exception):
                failed[instance_id] = found
            elif found is not None:
                self.residents.put(found)
                loaded[instance_id] = found
        if not failed:
            return batch
        for delivery in batch:
            error = failed.get(delivery.request.instance_id)
            if error is not None:
                answer_all([delivery], as_answer(delivery.request, error))
        return [delivery for delivery in batch if delivery.request.instance_id not in failed]

    def _read_all(
        self, instance_ids: list[str], batch: Sequence[Delivery]
    ) -> list[tuple[str, Resident | Exception | None]]:
        """The instances, with those identities of `batch` that they have recorded: after a restart many come again."""
        by_instance: dict[str, list[Delivery]] = {instance_id: [] for instance_id in instance_ids}
        for delivery in batch:
            if delivery.request.instance_id in by_instance:
                by_instance[delivery.request.instance_id].append(delivery)
        found: list[tuple[str, Resident | Exception | None]] = []
        for instance_id, deliveries in by_instance.items():
            try:
                loaded = load_resident(self._log, self._definitions, instance_id)
                if loaded is not None:
                    self._look_for_identities(deliveries, {instance_id: loaded})
                found.append((instance_id, loaded))
            except MapperDeserialisationError as error:
                found.append((instance_id, UnusableError(f"instance '{instance_id}' can't be read: {error}")))
            except PersistenceError as error:
                found.append((instance_id, UnavailableError(f"instance '{instance_id}' can't be read: {error}")))
            except Exception as error:
                found.append((instance_id, error))
        return found

    def _look_for_identities(self, batch: Sequence[Delivery], loaded: dict[str, Resident]) -> None:
        """For instances with more identities than are held in memory, ask the store about those that come."""
        for one in loaded.values():
            one.trim()
        for delivery in batch:
            identity = identity_of(delivery.request)
            resident = loaded.get(delivery.request.instance_id)
            if resident is None or resident.complete or identity is None or identity in resident.seen:
                continue
            row = self._log.instances.find_inbox(resident.instance.id, *identity)
            if row is not None:
                resident.seen[(row.source, row.event_id)] = (row.sequence, row.digest)

    def _advance(self, unit: Unit) -> None:
        """The commit is durable: take it into the cache, and tell who waits for timers, effects and facts."""
        snapshots = []
        for draft in unit.drafts.values():
            resident, instance = draft.resident, draft.instance
            every = max(SNAPSHOT_EVERY, len(instance.configuration))  # One of many states is long.
            if draft.before is None:
                self.residents.put(resident)
            elif instance.sequence // every > draft.before.sequence // every:
                snapshots.append(instance)
            resident.advance(instance, draft.snapshot, draft.machine, draft.fresh)
            if instance.status == "failed" and (draft.before is None or draft.before.status != "failed"):
                _LOG.error("instance '%s' has failed: %s", instance.id, instance.error, extra={"instance": instance.id})
        self.recorded += len(unit.facts)
        if _LOG.isEnabledFor(logging.DEBUG):
            log_facts(_LOG, unit.facts)
        self.commits.done(unit.changes)
        if snapshots:
            self._writer.call(self._take_snapshots, snapshots)

    def _take_snapshots(self, instances: Sequence[Instance]) -> None:
        try:
            self._log.take_snapshots(instances)
        except Exception as error:  # They only make loading faster; the facts are durable already.
            _LOG.warning("%d instances could not be snapshotted: %s", len(instances), error)

    async def _is_recorded(self, unit: Unit, error: Exception) -> bool:
        """Whether a commit that failed is in the log all the same (the answer may have been lost on its way)."""
        if isinstance(error, IntegrityError) or not unit.facts:
            return False
        try:
            return await self.on_reader(self._log.holds, unit.facts[0])
        except Exception:  # Not known yet: reading its instance again, before anything is answered, will tell.
            return False

    async def _recover(self, batch: Sequence[Delivery], unit: Unit, error: Exception, conflicts: int) -> None:
        """A commit failed. Read its instances anew and find out whose fault it was."""
        for instance_id in unit.drafts:
            self.residents.evict(instance_id)
        if isinstance(error, LeaseLostError | PersistenceError) and not isinstance(error, _OF_ONE_REQUEST):
            await self._refuse_writing(batch, error)
        elif len(batch) > 1:
            middle = len(batch) // 2
            await self._process(batch[:middle])
            await self._process(batch[middle:])
        elif not isinstance(error, IntegrityError):
            failure = InvalidError(f"the request can't be recorded: {type(error).__name__}: {error}")
            failure.__cause__ = error
            answer_all(batch, failure)
        elif conflicts < CONFLICTS_MAX:
            await self._process(batch, conflicts + 1)
        else:
            instance_id = batch[0].request.instance_id
            answer_all(batch, ConflictError(f"instance '{instance_id}' is being written by another process: {error}"))

    async def _refuse_writing(self, batch: Sequence[Delivery], error: Exception) -> None:
        """The store's fault, not a request's: answer what needs no writing from what the log says, refuse the rest."""
        failure = UnavailableError(f"the store can't be written, nothing was recorded: {error}")
        failure.__cause__ = error
        if isinstance(error, PersistenceError):
            self._refused = _Refused(self._clock.now(), self.recorded, failure)
        loaded, batch = await self._load(batch, ask_inbox=True)
        for delivery in batch:
            unit = self._unit(loaded)
            answer = unit.decide(delivery.request)
            if not unit.is_empty:
                answer_all([delivery], failure)
            elif settle(delivery, answer):
                await self._lookups.look_up(delivery, answer)


def _ids_of(batch: Sequence[Delivery]) -> dict[str, str]:
    return ids_of_many(delivery.request.instance_id for delivery in batch)
