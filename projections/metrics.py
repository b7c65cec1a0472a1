"""Metrics by definition, version and state: how many, how often, how long. A pure fold over the log.

Laws: the same facts in the same order give equal figures, whether folded at once, in batches or again from zero;
`runs` holds what the fold must remember of each instance between facts, `figures` all that is shown.
What is counted:
- `now` of a state: instances that are in it and have not ended (a paused one is still where it was). A parent
  state and each region of a parallel state count on their own.
- `entered`: how many times it was entered; of a final state, how many runs came through it.
- dwell: from entering to leaving, the end of the run included; a state in which a run ended the moment it was
  entered has none.
- duration: from the start of a run to its end, however it ended. A run that goes on after its end (`instance_modified`)
  is one that has not ended, and once it ends has another duration, from when it went on.
An instance that was pruned counts as it did: its tombstone keeps the figures that its facts came to. One that runs a
definition derived from its own counts with the version that it was started with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from statewright.engine.events import (
    ENDED,
    EventDeferred,
    EventDiscarded,
    EventRefused,
    Fact,
    InstanceCancelled,
    InstanceFailed,
    InstanceModified,
    InstancePaused,
    InstancePruned,
    InstanceResumed,
    InstanceStarted,
    Macrostep,
    Status,
)
from statewright.projections.histogram import Histogram

KEPT = "metrics"
"""The name of what tombstones keep for this fold."""
KEPT_VERSION = "metrics_version"
"""The version that it counts with: an instance may have been modified to run another since."""

Key = tuple[str, str]
"""(definition, version)."""


class StateFigures(msgspec.Struct, omit_defaults=True):
    """Of one state."""

    now: int = 0
    entered: int = 0
    dwell: Histogram = msgspec.field(default_factory=Histogram)

    def merge(self, other: StateFigures) -> None:
        self.now += other.now
        self.entered += other.entered
        self.dwell.merge(other.dwell)


class Figures(msgspec.Struct, omit_defaults=True):
    """Of one definition and version. `active` and `paused` are how many there are now; the others count up."""

    started: int = 0
    active: int = 0
    paused: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    transitions: int = 0
    refused: int = 0
    discarded: int = 0
    deferred: int = 0
    duration: Histogram = msgspec.field(default_factory=Histogram)
    states: dict[str, StateFigures] = {}

    def state(self, name: str) -> StateFigures:
        """The figures of one state, made when it is first seen."""
        found = self.states.get(name)
        if found is None:
            found = self.states[name] = StateFigures()
        return found

    def merge(self, other: Figures) -> None:
        """Add another version's figures."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.duration.merge(other.duration)
        for name, state in other.states.items():
            self.state(name).merge(state)


_COUNTS = tuple(name for name in Figures.__struct_fields__ if name not in ("duration", "states"))


class Run(msgspec.Struct):
    """What the fold remembers of one instance. `open`: state -> since when it is in it (ns UTC)."""

    definition: str
    version: str
    started_at: int
    status: Status
    open: dict[str, int] = {}


class Touched(NamedTuple):
    """What a batch of facts has changed."""

    figures: set[Key]
    runs: set[str]


class Metrics:
    """The fold. `figures` by definition and version; `runs` by instance id, at least those of the facts applied.

    An instance's first fact makes its run; for an instance that started earlier `runs` must hold its run
    before `apply` is called (`KeyError` otherwise).
    """

    def __init__(self, figures: dict[Key, Figures] | None = None, runs: dict[str, Run] | None = None) -> None:
        self.figures: dict[Key, Figures] = {} if figures is None else figures
        self.runs: dict[str, Run] = {} if runs is None else runs

    def apply_all(self, facts: Iterable[Fact]) -> Touched:
        """Fold `facts` in the log's order."""
        touched = Touched(set(), set())
        for fact in facts:
            self.apply(fact)
            run = self.runs[fact.instance_id]
            touched.runs.add(fact.instance_id)
            touched.figures.add((run.definition, run.version))
        return touched

    def apply(self, fact: Fact) -> None:
        """Fold one fact."""
        if isinstance(fact, InstancePruned):
            self._prune(fact)
            return
        if isinstance(fact, InstanceStarted):
            run = self.runs[fact.instance_id] = Run(fact.definition, fact.version, fact.time, "active")
            figures = self._figures(run)
            figures.started += 1
            figures.active += 1
        else:
            run = self.runs[fact.instance_id]
            figures = self._figures(run)
        if isinstance(fact, Macrostep):
            if isinstance(fact, InstanceModified):
                _go_on(figures, run, fact)
            elif not isinstance(fact, InstanceStarted):
                figures.transitions += 1
            _move(figures, run, fact)
        else:
            _note(figures, run, fact)

    def _prune(self, fact: InstancePruned) -> None:
        """What the pruned facts had come to; if they have been folded before, the run is known and it is counted."""
        if fact.instance_id in self.runs:
            return
        version = fact.kept.get(KEPT_VERSION, fact.version)
        run = self.runs[fact.instance_id] = Run(fact.definition, version, fact.started_at, fact.status)
        self._figures(run).merge(msgspec.convert(fact.kept.get(KEPT, {}), Figures, str_keys=True))

    def _figures(self, run: Run) -> Figures:
        key = (run.definition, run.version)
        found = self.figures.get(key)
        if found is None:
            found = self.figures[key] = Figures()
        return found


def kept_of(facts: Collection[Fact]) -> Mapping[str, Any]:
    """What a tombstone keeps for the metrics (`InstancePruned.kept`), from all facts of one instance that has ended."""
    metrics = Metrics()
    metrics.apply_all(facts)
    (((_, version), figures),) = metrics.figures.items()
    kept = {KEPT: msgspec.to_builtins(figures, str_keys=True)}
    return kept | {KEPT_VERSION: version} if any(isinstance(fact, InstanceModified) for fact in facts) else kept


def _note(figures: Figures, run: Run, fact: Fact) -> None:
    """Facts without a macrostep."""
    match fact:
        case EventRefused():
            figures.refused += 1
        case EventDiscarded():
            figures.discarded += 1
        case EventDeferred():
            figures.deferred += 1
        case InstancePaused():
            _set_status(figures, run, "paused")
        case InstanceResumed():
            _set_status(figures, run, "active")
        case InstanceCancelled():
            _end(figures, run, "cancelled", fact.time)
        case InstanceFailed():
            _end(figures, run, "failed", fact.time)


def _move(figures: Figures, run: Run, fact: Macrostep) -> None:
    """States left and entered. A state that was not open and is left was entered in this same macrostep, for no time
    at all; of one that is entered more than once only the last stay goes on."""
    was_open = [name for name in fact.exited if name in run.open]
    for name in fact.exited:
        state = figures.state(name)
        since = run.open.pop(name, None)
        if since is not None:
            state.now -= 1
        state.dwell.add(0 if since is None else fact.time - since)
    for name in fact.entered:
        state = figures.state(name)
        state.entered += 1
        if name not in run.open and _is_active(name, fact, was_open):
            state.now += 1
            run.open[name] = fact.time
    if fact.status in ENDED:
        _end(figures, run, fact.status, fact.time, entered=fact.entered)


def _go_on(figures: Figures, run: Run, fact: InstanceModified) -> None:
    """What has ended runs again; what was paused may."""
    if run.status in ENDED:
        run.started_at = fact.time
    going_on: Status = "paused" if fact.status == "paused" else "active"
    if run.status != going_on:
        _set_status(figures, run, going_on)


def _is_active(name: str, fact: Macrostep, was_open: Collection[str]) -> bool:
    """Whether a state that was entered is active after the macrostep. A fact that doesn't list the active states tells
    by how often it was left, all its microsteps together."""
    if fact.configuration_changes is None:
        return name in fact.configuration
    return (name in was_open) + fact.entered.count(name) > fact.exited.count(name)


def _end(figures: Figures, run: Run, status: Status, now: int, entered: Collection[str] = ()) -> None:
    """The run is over: all its states are left. Those `entered` in the same macrostep get no dwell."""
    for name, since in run.open.items():
        state = figures.state(name)
        state.now -= 1
        if name not in entered:
            state.dwell.add(now - since)
    run.open = {}
    _set_status(figures, run, status)
    figures.duration.add(now - run.started_at)


def _set_status(figures: Figures, run: Run, status: Status) -> None:
    """`active` and `paused` say how many there are now, the ends count up."""
    setattr(figures, run.status, getattr(figures, run.status) - 1)
    setattr(figures, status, getattr(figures, status) + 1)
    run.status = status


def merged(figures: Mapping[Key, Figures]) -> dict[str, Figures]:
    """The figures by definition, its versions added up, ordered by name."""
    result: dict[str, Figures] = {}
    for (definition, _), one in sorted(figures.items()):
        result.setdefault(definition, Figures()).merge(one)
    return result


def metrics_json(definition: str, figures: Figures, version: str | None = None) -> dict[str, Any]:
    """One line of `metrics --json`: the counts, `duration_ns` of runs, and `states`: name -> {now, entered,
    dwell_ns}. A duration is {count, min, mean, p50, p95, max} in ns, null where nothing was counted."""
    line: dict[str, Any] = {"definition": definition}
    if version is not None:
        line["version"] = version
    line |= {name: getattr(figures, name) for name in _COUNTS}
    line["duration_ns"] = _duration_json(figures.duration)
    line["states"] = {
        name: {"now": state.now, "entered": state.entered, "dwell_ns": _duration_json(state.dwell)}
        for name, state in figures.states.items()
    }
    return line


def _duration_json(histogram: Histogram) -> dict[str, int | None]:
    some = histogram.count > 0
    return {
        "count": histogram.count,
        "min": histogram.min if some else None,
        "mean": histogram.mean,
        "p50": histogram.quantile(0.5),
        "p95": histogram.quantile(0.95),
        "max": histogram.max if some else None,
    }
