"""Read models as people read them: tables, relative times, states by name, the timeline in sentences.

Pure: facts and rows in, rich renderables out; `now` is given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from rich.table import Column, Table
from rich.text import Text

from statewright.adapters.cli.output import clean, duration, moment, relative, value
from statewright.engine.events import (
    CheckpointTaken,
    Fact,
    InstanceModified,
    InstanceStarted,
    Macrostep,
    RequestedEffect,
    Trigger,
)
from statewright.engine.recorder import EffectRow, TimerRow
from statewright.projections.metrics import Figures
from statewright.projections.timeline import Entry
from statewright.statecharts.facts import Verdict

_STYLES = {"active": "green", "paused": "yellow", "completed": "cyan", "failed": "red", "cancelled": "magenta"}
_ID_WIDTH = 36
"""What an id may claim in a narrow terminal: the length of a UUID."""
_KINDS = {"event": "", "timer": " (timer)", "effect": " (result)", "message": " (message)"}
_RELATIVES = {
    "start": "starts child",
    "cancel": "cancels child",
    "send": "sends",
    "forward": "forwards",
    "done": "tells its parent",
}


def parents(definition: str) -> frozenset[str]:
    """The ids of the states that have states of their own, from a definition's canonical JSON."""
    found = set()
    pending: list[Any] = [msgspec.json.decode(definition)]
    while pending:
        node = pending.pop()
        inner = node.get("states") or []
        if inner and "id" in node:
            found.add(node["id"])
        pending.extend(inner)
    return frozenset(found)


def place(configuration: Iterable[str], outer: Collection[str]) -> str:
    """Where an instance stands: its active states without those that only contain others (`outer`)."""
    return ", ".join(clean(state) for state in configuration if state not in outer) or "nowhere"


def status_text(status: str) -> Text:
    return Text(status, style=_STYLES.get(status, ""))


def status_grid(
    columns: dict[str, Any],
    outer: Collection[str],
    *,
    now: int,
    timers: Sequence[TimerRow] = (),
    effects: Sequence[EffectRow] = (),
) -> Table:
    """One instance: `columns` as of `status_json`, its pending timers and the effects that are not done."""
    grid = _grid()
    grid.add_row("instance", Text(columns["id"], style="bold"))
    grid.add_row("definition", f"{columns['definition']} version {clean(columns['version'])}")
    grid.add_row("status", status_text(columns["status"]))
    if columns["parent"]:
        grid.add_row("parent", columns["parent"])
    grid.add_row("in", place(columns["configuration"], outer))
    if columns["failure"]:
        grid.add_row("failure", Text(clean(columns["failure"]), style="red"))
    for position, (key, item) in enumerate((columns["context"] or {}).items()):
        grid.add_row("" if position else "context", f"{clean(key)} = {value(item)}")
    for name in ("started_at", "updated_at", "ended_at"):
        if columns[name] is not None:
            grid.add_row(name[:-3], f"{relative(columns[name], now)} ({moment(columns[name])})")
    for timer in timers:
        grid.add_row("timer", f"{clean(timer.event)} {relative(timer.due_at, now)}")
    for effect in effects:
        if effect.state != "done":
            grid.add_row("effect", _effect_row(effect))
    grid.add_row("sequence", str(columns["sequence"]))
    return grid


def _effect_row(effect: EffectRow) -> str:
    attempts = f", attempt {effect.attempt}" if effect.attempt else ""
    error = f": {clean(effect.error)}" if effect.error else ""
    return f"{clean(effect.name)} {effect.state}{attempts}{error}"


def list_table(rows: Iterable[tuple[dict[str, Any], Collection[str]]], *, now: int) -> Table:
    """Instances, one a row; each with the containing states of its definition. An id is there to be copied: it is
    folded when there is no room, never cut."""
    rows = list(rows)
    longest = max((len(columns["id"]) for columns, _ in rows), default=0)
    instance = Column("instance", overflow="fold", min_width=min(longest, _ID_WIDTH))
    table = Table(instance, "definition", "status", "in", "started", "updated", box=None, header_style="bold")
    for columns, outer in rows:
        table.add_row(
            columns["id"],
            columns["definition"],
            status_text(columns["status"]),
            place(columns["configuration"], outer),
            relative(columns["started_at"], now),
            relative(columns["updated_at"], now),
        )
    return table


def schedules_table(rows: Iterable[dict[str, Any]], *, now: int) -> Table:
    """Schedules, one a row, as of `schedule_json`."""
    table = Table("schedule", "definition", "cron", "status", "next", "last", "note", box=None, header_style="bold")
    table.columns[0].overflow = "fold"
    table.columns[2].no_wrap = True
    for columns in rows:
        table.add_row(
            columns["id"],
            columns["definition"],
            clean(f"{columns['cron']} {columns['tz']}"),
            columns["status"],
            relative(columns["next_at"], now) if columns["status"] == "active" else "",
            "" if columns["last_at"] is None else relative(columns["last_at"], now),
            clean(columns["note"]),
        )
    return table


def history_table(entries: Iterable[Entry], outer: Collection[str], *, now: int) -> Table:
    """Facts, one a row: when, what happened, where it led."""
    table = Table("#", "when", "what", "by", "result", box=None, header_style="bold")
    table.columns[0].justify = "right"
    for entry in entries:
        fact = entry.fact
        table.add_row(
            str(fact.sequence),
            relative(fact.time, now),
            what(fact),
            clean(_actor(fact)),
            _to(entry, outer) or clean(getattr(fact, "reason", "") or getattr(fact, "error", "")),
        )
    return table


def facts_table(lines: Iterable[dict[str, Any]], *, now: int) -> Table:
    """Facts as `history --json` has them, one a row."""
    table = Table("#", "when", "what", "by", "in", box=None, header_style="bold")
    table.columns[0].justify = "right"
    for line in lines:
        trigger = line["trigger"] or {}
        named = f"{clean(trigger['name'])}{_KINDS[trigger['kind']]} " if trigger else ""
        why = clean(line.get("reason") or line.get("error") or "")
        table.add_row(
            str(line["sequence"]),
            relative(line["time"], now),
            f"{named}{line['type'].rpartition('_')[2]}" + (f": {why}" if why else ""),
            clean(trigger.get("actor") or line.get("actor") or ""),
            place(line["to"], ()),
        )
    return table


def parked_table(items: Iterable[dict[str, Any]], *, now: int) -> Table:
    """What is parked, as of `parked_json`. An id is there to be copied."""
    table = Table(Column("id", overflow="fold"), "parked", "subject", "reason", box=None, header_style="bold")
    for item in items:
        table.add_row(
            clean(item["parked_id"]), relative(item["received_at"], now), clean(item["subject"]), clean(item["reason"])
        )
    return table


def steps(entries: Iterable[Entry], outer: Collection[str]) -> Iterable[Text]:
    """How an instance got where it is: a line for each fact, indented lines for what it came from and brought."""
    before = None
    for entry in entries:
        fact = entry.fact
        line = Text(f"{fact.sequence:>4}  {moment(fact.time)}  ", style="dim")
        line.append(what(fact), style="not dim bold")
        if by := _actor(fact):
            line.append(f" by {clean(by)}", style="not dim")
        if before is not None:
            line.append(f"  (+{duration(max(fact.time - before, 0))})")
        if to := _to(entry, outer):
            line.append("\n      ").append(to, style="not dim green")
        for detail in details(entry):
            line.append(f"\n      {detail}", style="not dim")
        yield line
        before = fact.time


def what(fact: Fact) -> str:
    """A fact in a few words."""
    trigger = getattr(fact, "trigger", None)
    name = f"{clean(trigger.name)}{_KINDS[trigger.kind]}" if isinstance(trigger, Trigger) else ""
    if isinstance(fact, InstanceStarted):
        parent = f" by {fact.parent.instance_id}" if fact.parent is not None else ""
        return f"started {fact.definition} version {clean(fact.version)}{parent}"
    if isinstance(fact, Macrostep) and name:
        return name
    if isinstance(fact, CheckpointTaken):
        return f"checkpoint {clean(fact.name)}"
    # The tag says it in the past tense already: event_refused, instance_paused.
    done = str(fact.__struct_config__.tag).rpartition("_")[2]
    return f"{name} {done}" if name else done


def details(entry: Entry) -> Iterable[str]:
    """What a fact holds beyond its name: reason, guards, context changes, timers, effects, messages."""
    fact = entry.fact
    for word in ("reason", "error"):
        if text := getattr(fact, word, ""):
            yield f"{word}: {clean(text)}"
    if isinstance(fact, InstanceModified) and entry.before is not None and fact.digest != entry.before.digest:
        yield f"version {clean(entry.before.version)} → {clean(fact.version)}"
    for verdict in getattr(fact, "guards", ()):
        yield _guard(verdict)
    for key, (old, new) in entry.changes.items():
        was = f": {value(old)} →" if entry.before is not None else " ="
        yield f"context {clean(key)}{was} {value(new)}"
    for effect in getattr(fact, "effects", ()):
        yield _effect(effect)
    for cancelled in getattr(fact, "effects_cancelled", ()):
        yield f"effect {clean(cancelled)} cancelled"
    if isinstance(fact, Macrostep):
        for raised in fact.raised:
            yield f"raised {clean(raised)}"
        for timer in fact.timers_set:
            yield f"timer {clean(timer.event)} set, due in {duration(timer.due_at - fact.time)}"
        for log in fact.logs:
            yield f"log: {clean(log)}"
        if fact.output is not None:
            yield f"output: {value(fact.output)}"


def _effect(effect: RequestedEffect) -> str:
    if effect.kind in _RELATIVES:
        other = clean(effect.data["to"] or "nobody")
        return f"{_RELATIVES[effect.kind]} {clean(effect.name)} ({other})"
    data = "" if effect.data is None else f" {value(effect.data)}"
    until = effect.policy.until if effect.policy is not None else ""
    bound = f" (until {clean(until)} is left)" if until else ""
    return f"effect {effect.kind} {clean(effect.name)}{data}{bound}"


def _guard(verdict: Verdict) -> str:
    said = f"could not be evaluated: {clean(verdict.error)}" if verdict.error else str(verdict.passed).lower()
    return f"guard {clean(verdict.guard)} of {clean(verdict.state)}: {said}"


def _actor(fact: Fact) -> str:
    trigger = getattr(fact, "trigger", None)
    return trigger.actor if isinstance(trigger, Trigger) else getattr(fact, "actor", "")


def _to(entry: Entry, outer: Collection[str]) -> str:
    """`draft → review`, or where it stays when nothing moved, or why."""
    after = place(entry.after.configuration, outer)
    if not isinstance(entry.fact, Macrostep):
        return ""
    ended = f" ({entry.after.status})" if entry.after.status != "active" else ""
    if entry.before is None:
        return f"→ {after}{ended}"
    before = place(entry.before.configuration, outer)
    return f"{before} → {after}{ended}" if before != after else f"{after}{ended}"


def metrics_tables(definition: str, figures: Figures) -> Iterable[Table | Text]:
    """The counts of a definition, then its states."""
    counts = Text(definition, style="bold")
    counts.append(f"  {figures.started} started", style="not bold")
    for name in ("active", "paused", "completed", "failed", "cancelled"):
        if number := getattr(figures, name):
            counts.append(f", {number} ").append(name, style=f"not bold {_STYLES[name]}")
    for name in ("refused", "discarded"):
        if number := getattr(figures, name):
            counts.append(f", {number} {'events' if number > 1 else 'event'} {name}", style="not bold")
    yield counts
    run = figures.duration
    if run.count:
        yield Text(
            f"run   p50 {duration(run.quantile(0.5))}   p95 {duration(run.quantile(0.95))}   max {duration(run.max)}"
        )
    table = Table("state", "now", "entered", "p50", "p95", "longest", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, state in figures.states.items():
        dwell = state.dwell
        longest = dwell.max if dwell.count else None
        times = (dwell.quantile(0.5), dwell.quantile(0.95), longest)
        table.add_row(clean(name), str(state.now), str(state.entered), *map(duration, times))
    yield table


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    return grid
