"""Commands for what is parked: list, retry, drop. They go to whoever owns the store; listing reads it beside that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time_ns
from typing import TYPE_CHECKING, Annotated, Any

from statewright.adapters.cli.options import DEFAULTS, LIMIT_MAX, Flag, Options, check_range, invalid

if TYPE_CHECKING:
    from statewright.adapters.cli.wiring import Commands

FAILED = 1


async def list_(*, limit: int = 100, options: Options = DEFAULTS) -> None:
    """List what is parked, the oldest first: messages, and timers and effects that always failed.

    Parameters
    ----------
    limit
        How many at most.
    """
    from statewright.adapters.cli import output, people

    check_range("--limit", limit, 1, LIMIT_MAX)
    items = await _listed(limit, options)
    if options.json:
        for item in items:
            output.print_json(item)
        return
    console = output.console()
    console.print(people.parked_table(items, now=time_ns()) if items else "nothing is parked")
    if len(items) == limit:
        console.print("there may be more: --limit")


async def retry(
    *ids: str, all_: Annotated[bool, Flag] = False, limit: int = LIMIT_MAX, options: Options = DEFAULTS
) -> int:
    """Deliver what is parked once more, with the same identity: what was recorded after all is a duplicate. What fails
    again stays parked.

    Parameters
    ----------
    ids
        Which.
    all_
        All, the oldest first.
    limit
        With --all: how many at most.
    """

    async def retry_one(commands: Commands, parked_id: str) -> dict[str, Any]:
        import msgspec

        done: dict[str, Any] = msgspec.to_builtins(await commands.retry_parked(parked_id))
        return done

    return await _each(ids, all_, limit, options, retry_one)


async def drop(
    *ids: str,
    all_: Annotated[bool, Flag] = False,
    limit: int = LIMIT_MAX,
    reason: str = "",
    options: Options = DEFAULTS,
) -> int:
    """Remove what is parked for good; that and why is logged. A timer's end is recorded in its instance.

    Parameters
    ----------
    ids
        Which.
    all_
        All, the oldest first.
    limit
        With --all: how many at most.
    reason
        Why.
    """

    async def drop_one(commands: Commands, parked_id: str) -> dict[str, Any]:
        await commands.drop_parked(parked_id, reason=reason)
        return {"id": parked_id, "dropped": True}

    return await _each(ids, all_, limit, options, drop_one)


async def _listed(limit: int, options: Options) -> list[dict[str, Any]]:
    from statewright.adapters.cli import wiring
    from statewright.projections.parked import parked_json

    if options.nats is not None:
        async with wiring.connected(options) as client:
            return (await client.parked(limit)).items
    async with wiring.reading(options) as engine:
        return [parked_json(row) for row in await engine.parked(limit)]


async def _each(
    ids: tuple[str, ...],
    everything: bool,
    limit: int,
    options: Options,
    act: Callable[[Commands, str], Awaitable[dict[str, Any]]],
) -> int:
    """One after another; one that fails doesn't keep the others from their turn."""
    from statewright.adapters.cli import output, wiring
    from statewright.statecharts.errors import StatewrightError

    if bool(ids) == everything:
        raise invalid("expected ids, or --all; `statewright parked list` shows what is parked")
    check_range("--limit", limit, 1, LIMIT_MAX)
    wanted = list(ids) or [item["parked_id"] for item in await _listed(limit, options)]
    code = 0
    async with wiring.commanding(options) as commands:
        for parked_id in wanted:
            try:
                done = await act(commands, parked_id)
            except StatewrightError as error:
                if len(wanted) == 1:
                    raise
                code = FAILED
                done = {"id": parked_id, "error": {"code": error.code, "message": str(error)}}
            if options.json:
                output.print_json(done)
            else:
                output.console().print(f"{output.clean(parked_id)}: {_said(done)}", soft_wrap=True)
    if not wanted and not options.json:
        output.console().print("nothing is parked")
    return code


def _said(done: dict[str, Any]) -> str:
    from statewright.adapters.cli import output

    if "error" in done:
        return f"failed: {output.clean(done['error']['message'])}"
    if "dropped" in done:
        return "dropped"
    outcome = done["outcome"]
    return "retried, it takes its turn" if outcome is None else f"{outcome['kind']} at sequence {outcome['sequence']}"
