"""Writing commands: start, send, pause, resume, cancel. Each prints the outcome once it is durable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from statewright.adapters.cli.options import DEFAULTS, Options, Repeated, parse_json, parse_object

if TYPE_CHECKING:
    from statewright.engine.requests import Outcome

REFUSED = 1


async def start(
    definition: str,
    /,
    *,
    id: str | None = None,  # noqa: A002 (the contract's name)
    context: str | None = None,
    version: str | None = None,
    actor: str = "",
    chart: Annotated[list[str] | None, Repeated] = None,
    options: Options = DEFAULTS,
) -> None:
    """Start an instance of a definition and print it.

    Parameters
    ----------
    definition
        The definition's name.
    id
        The new instance's id; one is made up without it. Starting again with the same id and content is a no-op.
    context
        The data it begins with: a JSON object.
    version
        The definition's version; without it the newest.
    actor
        Who starts it.
    chart
        A chart to register first, when no server runs.
    """
    from statewright.adapters.cli import output, people, wiring

    given = parse_object("--context", context)
    async with wiring.commanding(options, chart or ()) as commands:
        started = await commands.start(definition, given, id=id, version=version, actor=actor)
    if options.json:
        output.print_json(started)
        return
    console = output.console()
    console.print(started.id, style="bold", end=" ")
    console.print(people.status_text(started.status), f"in {people.place(started.configuration, ())}")


async def send(
    instance: str,
    event: str,
    /,
    *,
    data: str | None = None,
    event_id: str | None = None,
    actor: str = "",
    source: str = "",
    options: Options = DEFAULTS,
) -> int:
    """Send an event to an instance and print what became of it.

    Parameters
    ----------
    instance
        The instance's id.
    event
        The event's name.
    data
        Its data: JSON.
    event_id
        Its id: the same id is recorded once, however often it is sent. One is made up without it.
    actor
        Who sends it.
    source
        Where it comes from; ids are unique for each source.
    """
    from statewright.adapters.cli import wiring

    given = parse_json("--data", data)
    async with wiring.commanding(options) as commands:
        outcome = await commands.send(instance, event, given, event_id=event_id, source=source, actor=actor)
    return _print_outcome(outcome, options)


async def pause(instance: str, /, *, reason: str = "", actor: str = "", options: Options = DEFAULTS) -> int:
    """Defer an instance's events and due timers until it is resumed.

    Parameters
    ----------
    instance
        The instance's id.
    reason
        Why; it is recorded.
    actor
        Who.
    """
    return await _control("pause", instance, reason, actor, options)


async def resume(instance: str, /, *, reason: str = "", actor: str = "", options: Options = DEFAULTS) -> int:
    """Go on with a paused instance: what was deferred is applied, in order.

    Parameters
    ----------
    instance
        The instance's id.
    reason
        Why; it is recorded.
    actor
        Who.
    """
    return await _control("resume", instance, reason, actor, options)


async def cancel(instance: str, /, *, reason: str = "", actor: str = "", options: Options = DEFAULTS) -> int:
    """End an instance from outside; its timers and effects are dropped.

    Parameters
    ----------
    instance
        The instance's id.
    reason
        Why; it is recorded.
    actor
        Who.
    """
    return await _control("cancel", instance, reason, actor, options)


async def _control(
    action: Literal["pause", "resume", "cancel"], instance: str, reason: str, actor: str, options: Options
) -> int:
    from statewright.adapters.cli import wiring

    async with wiring.commanding(options) as commands:
        outcome = await commands.control(instance, action, reason=reason, actor=actor)
    return _print_outcome(outcome, options)


def _print_outcome(outcome: Outcome, options: Options) -> int:
    """The outcome, and the exit code that it means."""
    from statewright.adapters.cli import output, people

    if options.json:
        output.print_json(outcome)
    else:
        reason = f": {output.clean(outcome.reason)}" if outcome.reason else ""
        where = f"in {people.place(outcome.configuration, ())}"
        console = output.console()
        console.print(f"{outcome.kind} at sequence {outcome.sequence}{reason}", soft_wrap=True)
        console.print(people.status_text(outcome.status), where)
    refused = outcome.kind == "refused" or (outcome.kind == "duplicate" and bool(outcome.reason))
    return REFUSED if refused else 0
