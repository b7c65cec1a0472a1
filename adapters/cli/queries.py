"""Reading commands: status, list, history, replay, metrics. They work beside a running server, and without one.

They read the store; with `--nats`, status, list and history ask the engine there instead, wherever its store is.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Annotated, Any

from statewright.adapters.cli.options import DEFAULTS, LIMIT_MAX, Flag, Options, check_range, invalid, parse_time

if TYPE_CHECKING:
    from statewright.engine.recorder import InstanceFilter

PAGE = 500
"""Facts asked for at once over the bus."""


async def status(instance: str, /, *, options: Options = DEFAULTS) -> None:
    """Show where an instance is.

    Parameters
    ----------
    instance
        Its id.
    """
    from statewright.adapters.cli import output, people, wiring
    from statewright.projections.status import status_json

    if options.nats is not None:
        async with wiring.connected(options) as client:
            columns = await client.status(instance)
        if options.json:
            output.print_json(columns)
        else:
            output.console().print(people.status_grid(columns, (), now=time_ns()))
        return
    async with wiring.reading(options) as engine:
        row = await engine.status(instance)
        wiring.say_what_is_withheld(engine)
        if options.json:
            output.print_json(status_json(row))
            return
        grid = people.status_grid(
            status_json(row),
            wiring.outer_states(engine, row.definition, row.version),
            now=engine.clock.now(),
            timers=engine.recorder.select_timers(instance),
            effects=await engine.effects(instance),
        )
        output.console().print(grid)


async def list_(
    *,
    definition: str | None = None,
    status: str | None = None,
    state: str | None = None,
    limit: int = 100,
    after: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """List instances, in the order of their ids.

    Parameters
    ----------
    definition
        Only those of this definition.
    status
        Only those that are active, paused, completed, failed or cancelled.
    state
        Only those that are in this state.
    limit
        How many at most.
    after
        The cursor: the last id of the page before.
    """
    from typing import get_args

    from statewright.adapters.cli import output, people, wiring
    from statewright.engine import InstanceFilter
    from statewright.engine.events import Status
    from statewright.projections.status import status_json

    check_range("--limit", limit, 1, LIMIT_MAX)
    if status is not None and status not in get_args(Status):
        raise invalid(f"expected --status to be one of {', '.join(get_args(Status))}, got {status!r}")
    where = InstanceFilter(definition=definition, status=status, state=state, limit=limit, after=after)
    if options.nats is not None:
        await _list_from_owner(where, options)
        return
    async with wiring.reading(options) as engine:
        rows = await engine.list(where)
        if options.json:
            for row in rows:
                output.print_json(status_json(row))
            return
        outer = {key: wiring.outer_states(engine, *key) for key in {(row.definition, row.version) for row in rows}}
        described = [(status_json(row), outer[row.definition, row.version]) for row in rows]
        console = output.console()
        console.print(people.list_table(described, now=engine.clock.now()) if rows else "no instances")
        if len(rows) == limit:
            console.print(f"there may be more: --after {rows[-1].id}", soft_wrap=True)


async def _list_from_owner(where: InstanceFilter, options: Options) -> None:
    """Page by page, as a reply can't carry any number."""
    from msgspec.structs import replace

    from statewright.adapters.cli import output, people, wiring

    rows: list[dict[str, Any]] = []
    async with wiring.connected(options) as client:
        more = True
        while more and len(rows) < where.limit:
            after = rows[-1]["id"] if rows else where.after
            page = await client.list(replace(where, limit=where.limit - len(rows), after=after))
            rows += page.items
            more = page.more and bool(page.items)
    if options.json:
        for row in rows:
            output.print_json(row)
        return
    console = output.console()
    console.print(people.list_table([(row, ()) for row in rows], now=time_ns()) if rows else "no instances")
    if len(rows) == where.limit:
        console.print(f"there may be more: --after {rows[-1]['id']}", soft_wrap=True)


async def history(
    instance: str,
    /,
    *,
    after: int = 0,
    limit: int | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Show every recorded fact of an instance, in order.

    Parameters
    ----------
    instance
        Its id.
    after
        Only facts after this sequence.
    limit
        How many at most.
    """
    from itertools import islice

    from statewright.adapters.cli import output, people, wiring
    from statewright.projections.timeline import history_json, timeline

    if limit is not None:
        check_range("--limit", limit, 1, LIMIT_MAX)
    if options.nats is not None:
        await _history_from_owner(instance, after, limit, options)
        return
    async with wiring.reading(options) as engine:
        # From the first fact on: where the instance stood before `after` is their fold.
        entries = (entry for entry in timeline(await engine.history(instance)) if entry.fact.sequence > after)
        if options.json:
            for entry in islice(entries, limit):
                output.print_json(history_json(entry))
            return
        row = await engine.status(instance)
        outer = wiring.outer_states(engine, row.definition, row.version)
        output.console().print(people.history_table(islice(entries, limit), outer, now=engine.clock.now()))


async def _history_from_owner(instance: str, after: int, limit: int | None, options: Options) -> None:
    """Page by page; what is printed is JSON, which is what the owner sends, a line for each fact."""
    from statewright.adapters.cli import output, people, wiring

    left, more = LIMIT_MAX if limit is None else limit, True
    lines: list[dict[str, Any]] = []
    async with wiring.connected(options) as client:
        while more and left > 0:
            page = await client.history(instance, after=after, limit=min(left, PAGE))
            more = page.more and bool(page.items)
            left -= len(page.items) if limit is not None else 0
            after = page.items[-1]["sequence"] if page.items else after
            if options.json:
                for line in page.items:
                    output.print_json(line)
            else:
                lines += page.items
    if not options.json:
        output.console().print(people.facts_table(lines, now=time_ns()))


async def replay(
    instance: str,
    /,
    *,
    to: int | None = None,
    at: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Show an instance as of then (by default: now), and how it got there. Nothing is run again.

    Parameters
    ----------
    instance
        Its id.
    to
        As of this sequence.
    at
        As of this time: ISO 8601 (UTC if it names no offset; a date means its first moment), or integer nanoseconds
        since the epoch.
    """
    from statewright.adapters.cli import output, people, wiring
    from statewright.projections.status import instance_json
    from statewright.projections.timeline import timeline

    if to is not None and at is not None:
        raise invalid("expected --to or --at, got both")
    until = None if at is None else parse_time("--at", at)
    async with wiring.reading(options) as engine:
        if to is not None:
            check_range("--to", to, 1, (await engine.status(instance)).sequence)
        replayed = await engine.replay(instance, to_sequence=to, at=until)
        then = replayed.instance
        as_of = then.updated_at if until is None else until
        if options.json:
            output.print_json(instance_json(then, as_of=as_of))
            return
        console = output.console()
        outer = wiring.outer_states(engine, then.definition, then.version)
        for step in people.steps(timeline(replayed.facts), outer):
            console.print(step, soft_wrap=True)
        console.print()
        console.print(f"as of sequence {then.sequence}, {output.moment(as_of)}")
        console.print(people.status_grid(instance_json(then), outer, now=engine.clock.now()))


async def metrics(
    *,
    definition: str | None = None,
    by_version: Annotated[bool, Flag] = False,
    rebuild: Annotated[bool, Flag] = False,
    signals: Annotated[bool, Flag] = False,
    options: Options = DEFAULTS,
) -> None:
    """Counts and durations by definition and state, as of the last recorded fact.

    Parameters
    ----------
    definition
        Only of this definition.
    by_version
        One line a version instead of one a definition.
    rebuild
        First compute the stored figures again from the whole log (while no server runs).
    signals
        How much work waits in the running engine instead: one JSON object, as it is published on
        statewright.signals.<worker>.
    """
    from statewright.adapters.cli import output, people, wiring

    if signals:
        async with wiring.connected(options) as client:
            output.print_json(await client.signals())
        return
    from statewright.projections.metrics import merged, metrics_json

    figures = await (wiring.rebuilt_metrics(options) if rebuild else wiring.current_metrics(options))
    figures = {key: one for key, one in sorted(figures.items()) if definition in (None, key[0])}
    rows = list(figures.items()) if by_version else [((name, None), one) for name, one in merged(figures).items()]
    if options.json:
        for (name, version), one in rows:
            output.print_json(metrics_json(name, one, version))
        return
    console = output.console()
    if not rows:
        console.print("nothing has been started")
    for (name, version), one in rows:
        for table in people.metrics_tables(name if version is None else f"{name} version {version}", one):
            console.print(table)
        console.print()
