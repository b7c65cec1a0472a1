"""Commands on recurring starts: schedule add, list, remove, pause, resume."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from statewright.adapters.cli.options import DEFAULTS, Options, Repeated, parse_object, parse_time


async def add(
    definition: str,
    /,
    *,
    cron: str,
    tz: str = "UTC",
    id: str | None = None,  # noqa: A002 (as of `start`)
    context: str | None = None,
    version: str | None = None,
    catch_up: Literal["all", "one", "none"] = "one",
    overlap: Literal["allow", "skip"] = "allow",
    end: Annotated[str | None, Parameter(name="--end")] = None,
    actor: str = "",
    chart: Annotated[list[str] | None, Repeated] = None,
    options: Options = DEFAULTS,
) -> None:
    """Start an instance of a definition whenever a cron expression is due.

    Parameters
    ----------
    definition
        The definition's name.
    cron
        Five fields: minute hour day-of-month month day-of-week, such as "0 9 * * MON".
    tz
        The time zone in which they are meant, such as Europe/Zurich.
    id
        The schedule's id; the definition's name without it. Adding the same again is a no-op.
    context
        The data that each instance begins with: a JSON object.
    version
        The definition's version; without it the newest at each start.
    catch_up
        What is made up for of the starts that were due while no engine ran: all, the last one, or none.
    overlap
        Whether to start, or skip it, while the instance before still runs.
    end
        Start nothing after this time (ISO 8601).
    actor
        Who adds it.
    chart
        A chart to register first, when no server runs.
    """
    from statewright.adapters.cli import wiring
    from statewright.engine.schedules import ScheduleRequest

    request = ScheduleRequest(
        definition=definition,
        cron=cron,
        tz=tz,
        id=id,
        context=parse_object("--context", context) or {},
        version=version,
        catch_up=catch_up,
        overlap=overlap,
        end_at=None if end is None else parse_time("--end", end),
        actor=actor,
    )
    async with wiring.commanding(options, chart or ()) as commands:
        schedule = await commands.schedule(request)
    _print(schedule, options)


async def list_(*, options: Options = DEFAULTS) -> None:
    """List schedules, in the order of their ids."""
    from statewright.adapters.cli import output, people, wiring
    from statewright.projections.schedules import schedule_json

    async with wiring.reading(options) as engine:
        schedules = [schedule_json(row) for row in await engine.schedules()]
        now = engine.clock.now()
    if options.json:
        for schedule in schedules:
            output.print_json(schedule)
        return
    output.console().print(people.schedules_table(schedules, now=now) if schedules else "no schedules")


async def remove(schedule: str, /, *, options: Options = DEFAULTS) -> None:
    """Remove a schedule; the instances that it has started go on.

    Parameters
    ----------
    schedule
        Its id.
    """
    await _change("unschedule", schedule, options)


async def pause(schedule: str, /, *, options: Options = DEFAULTS) -> None:
    """Start nothing until it is resumed.

    Parameters
    ----------
    schedule
        Its id.
    """
    await _change("pause_schedule", schedule, options)


async def resume(schedule: str, /, *, options: Options = DEFAULTS) -> None:
    """Go on with the next due time; what was due during the pause is not made up for.

    Parameters
    ----------
    schedule
        Its id.
    """
    await _change("resume_schedule", schedule, options)


async def _change(
    command: Literal["unschedule", "pause_schedule", "resume_schedule"], schedule_id: str, options: Options
) -> None:
    from statewright.adapters.cli import wiring

    async with wiring.commanding(options) as commands:
        schedule = await getattr(commands, command)(schedule_id)
    _print(schedule, options, removed=command == "unschedule")


def _print(schedule: dict[str, Any], options: Options, *, removed: bool = False) -> None:
    from statewright.adapters.cli import output

    if options.json:
        output.print_json(schedule)
        return
    what = f"{schedule['definition']} at '{schedule['cron']}' {schedule['tz']}"
    if removed:
        state = "removed"
    elif schedule["status"] == "active":
        state = f"next {output.moment(schedule['next_at'])}"
    else:
        state = schedule["status"]
    output.console().print(f"{schedule['id']}: {output.clean(what)}, {state}", soft_wrap=True)
