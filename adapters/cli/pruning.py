"""Pruning and restoring: instances that have ended go from a store to an archive, and back.

Invariants: the archive of a batch is on the disk before the batch goes from the store, and a batch goes in one short
transaction. So whatever is killed when, each instance is in the store, or in the archive, or (once, for a moment) in
both. A batch is bounded by instances and by bytes; nothing else is held in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, cast

import msgspec
from eventsourcing.persistence import MapperDeserialisationError, Notification

from statewright.adapters.cli.archive import ArchivedInstance, ArchiveWriter, Definition, Head, Line, Torn, read_archive
from statewright.engine import Engine
from statewright.engine.changes import instance_row
from statewright.engine.errors import AlreadyExistsError, BusyError, InvalidError, NotFoundError
from statewright.engine.events import AnyFact, InstancePruned
from statewright.engine.instance import fold
from statewright.engine.recorder import EffectRow, EndedFilter, InboxRow, InstanceRow
from statewright.engine.steps import fold_steps
from statewright.projections.metrics import kept_of

BATCH = 100
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""About how many bytes of facts are archived at once."""
TOMBSTONES_BYTES_MAX = 256 * 1024
"""About how many bytes of tombstones are handed over at once: what any nats-server carries."""
TRIES_MAX = 10
TRY_WAIT_S = 0.5
"""Between tries while a projection catches up."""


class Pruner(Protocol):
    """The engine that owns the store, or a client of it."""

    async def prune(self, tombstones: Sequence[InstancePruned], *, position: int) -> Sequence[str]: ...


class PrunedSome(msgspec.Struct):
    """What a prune has come to. `left`: archived, but something happened to them meanwhile, so they are still there."""

    pruned: int = 0
    facts: int = 0
    left: int = 0
    archive: str | None = None


class Restored(msgspec.Struct):
    """What a restore has come to. `present`: already in the store as they are in the archive; `refused`: why, by id;
    `torn`: the archive ends in the middle."""

    restored: int = 0
    present: int = 0
    refused: dict[str, str] = {}
    torn: bool = False


class _Whole(msgspec.Struct):
    """All that the store has of one instance."""

    row: InstanceRow
    events: Sequence[Notification]
    inbox: Sequence[InboxRow]
    effects: Sequence[EffectRow]
    tombstone: InstancePruned


async def prune(engine: Engine, pruner: Pruner, wheres: Sequence[EndedFilter], path: str, store: str) -> PrunedSome:
    """Archive what `wheres` select at `path`, and have it pruned. `engine` reads the store, `pruner` writes it.

    Raises `InvalidError` (the file), `BusyError` (a projection that doesn't catch up), `UnavailableError`, `OSError`:
    what was pruned until then is in the archive."""
    writer = ArchiveWriter(path, Head(1, store, engine.clock.now()))
    done = PrunedSome()
    described: set[tuple[str, str]] = set()
    try:
        for where in wheres:
            async for batch in _batches(engine, where):
                lines: list[Line] = []
                for whole in batch:
                    key = (whole.row.definition, whole.row.version)
                    if key not in described:
                        described.add(key)
                        lines.extend(_definition(engine, *key))
                    lines.append(ArchivedInstance.of(whole.row, whole.events, whole.inbox, whole.effects))
                await engine.on_reader(writer.add, lines)
                done.archive = path
                await _remove(pruner, batch, done)
    except BusyError:
        if not done.pruned:  # Certainly nothing has gone, so the file is of no use.
            writer.discard()
        raise
    finally:
        writer.close()
    return done


async def _batches(engine: Engine, where: EndedFilter) -> AsyncIterator[list[_Whole]]:
    after: str | None = None
    while True:
        batch = await engine.on_reader(_read_batch, engine, msgspec.structs.replace(where, after=after, limit=BATCH))
        if not batch:
            return
        after = batch[-1].row.id
        yield batch


def _read_batch(engine: Engine, where: EndedFilter) -> list[_Whole]:
    recorder = engine.recorder
    batch: list[_Whole] = []
    states = tombstones = 0
    with recorder.consistent():
        for row in recorder.select_ended(where):
            events = recorder.located_events(row.id)
            inbox = recorder.select_inbox(row.id, 2**63 - 1)
            tombstone = _tombstone(row, _facts(engine, events))
            batch.append(_Whole(row, events, inbox, recorder.select_effects(row.id), tombstone))
            states += sum(len(event.state) for event in events)
            tombstones += len(msgspec.json.encode(tombstone))
            if states > BATCH_BYTES_MAX or tombstones > TOMBSTONES_BYTES_MAX:
                break
    return batch


def _facts(engine: Engine, events: Sequence[Notification]) -> list[AnyFact]:
    return [cast(AnyFact, engine.log.mapper.to_domain_event(event)) for event in events]


def _tombstone(row: InstanceRow, facts: Sequence[AnyFact]) -> InstancePruned:
    """Raises `InvalidError` if the facts don't come to the row: what is not true to itself is not thrown away."""
    instance = fold(facts)
    if instance is None or instance_row(instance) != row or instance.ended_at is None:
        raise InvalidError(f"instance '{row.id}' is not what its facts say; see `statewright store verify`")
    return InstancePruned(
        instance_id=row.id,
        sequence=row.sequence + 1,
        time=0,
        definition=row.definition,
        version=row.version,
        digest=row.digest,
        status=instance.status,
        started_at=row.started_at,
        ended_at=instance.ended_at,
        kept=kept_of(facts),
    )


def _definition(engine: Engine, name: str, version: str) -> list[Line]:
    row = engine.recorder.select_definition(name, version)
    return [Definition(*row)] if row is not None else []


async def _remove(pruner: Pruner, batch: Sequence[_Whole], done: PrunedSome) -> None:
    position = max(whole.events[-1].id for whole in batch)
    tombstones = [whole.tombstone for whole in batch]
    for tried in range(1, TRIES_MAX + 1):
        try:
            pruned = set(await pruner.prune(tombstones, position=position))
            break
        except BusyError:
            if tried == TRIES_MAX:
                raise
            await asyncio.sleep(TRY_WAIT_S)
    done.pruned += len(pruned)
    done.left += len(batch) - len(pruned)
    done.facts += sum(len(whole.events) for whole in batch if whole.row.id in pruned)


async def restore(engine: Engine, path: str) -> Restored:
    """Bring back what is in the archive at `path` into the store that `engine` owns, one instance after another.

    Raises `InvalidError` (no archive, or not what it says), `UnavailableError`, `OSError`: what came before stays.
    """
    done = Restored()
    lines = read_archive(path)
    while (line := await engine.on_reader(next, lines, None)) is not None:
        if isinstance(line, Definition):
            known = engine.recorder.select_definition(line.name, line.version)
            if known is not None and known.digest != line.digest:
                raise InvalidError(
                    f"definition '{line.name}' version '{line.version}' is in this store with another digest: the "
                    f"archive is another store's"
                )
            if known is None:
                await engine.on_writer(engine.recorder.insert_definition, line.row)
        elif isinstance(line, ArchivedInstance):
            await _restore(engine, line, done)
        elif isinstance(line, Torn):
            done.torn = True
    return done


async def _restore(engine: Engine, line: ArchivedInstance, done: Restored) -> None:
    try:
        row, events = line.instance_row, line.events
        facts = _facts(engine, events)
        instance = fold(facts)
    except (TypeError, ValueError, MapperDeserialisationError) as error:
        raise InvalidError(f"expected an archived instance, got one that can't be read: {error}") from error
    if instance is None or instance_row(instance) != row:
        raise InvalidError(f"instance '{row.id}' of the archive is not what its facts say: it was changed since")
    stored = await engine.on_reader(engine.recorder.located_events, row.id)
    if list(stored) == events:
        done.present += 1
        return
    try:
        if not stored:
            raise NotFoundError(f"instance '{row.id}' was never pruned from this store")
        await engine.upkeep.restore(row, events, line.inbox_rows, line.effect_rows, fold_steps(facts))
        done.restored += 1
    except (AlreadyExistsError, NotFoundError) as error:
        done.refused[row.id] = str(error)
