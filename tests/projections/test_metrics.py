"""Metrics: exact counts, quantiles within their bound, and the same figures however the log is folded."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statewright.engine.events import (
    EventRefused,
    InstanceCancelled,
    InstanceFailed,
    InstanceModified,
    InstancePaused,
    InstanceResumed,
    InstanceStarted,
    Macrostep,
    TransitionTaken,
    Trigger,
)
from statewright.engine.log import LoggedFact
from statewright.projections.histogram import RELATIVE_ERROR_MAX, Histogram, bucket_of
from statewright.projections.metrics import Figures, Metrics, Run, merged, metrics_json
from tests.projections.streams import logs, started

property_test = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
MINUTE = 60 * 10**9


def moved(sequence: int, time: int, left: str, to: str, status: Any = "active") -> TransitionTaken:
    return TransitionTaken(
        instance_id="a",
        sequence=sequence,
        time=time,
        trigger=Trigger("e", f"e-{sequence}"),
        exited=tuple(left.split()),
        entered=tuple(to.split()),
        configuration=tuple(to.split()),
        status=status,
    )


def figures_of(*facts: Any) -> Figures:
    metrics = Metrics()
    metrics.apply_all(facts)
    return metrics.figures["approval", "1"]


def test_a_run_from_start_to_completion() -> None:
    figures = figures_of(
        started(),
        moved(2, 2 * MINUTE, "draft", "review first"),
        moved(3, 7 * MINUTE, "first review", "approved", "completed"),
    )
    assert (figures.started, figures.active, figures.completed, figures.transitions) == (1, 0, 1, 2)
    assert {name: state.now for name, state in figures.states.items()} == dict.fromkeys(
        ["draft", "review", "first", "approved"], 0
    )
    assert figures.states["draft"].dwell.max == 2 * MINUTE
    assert figures.states["review"].dwell.max == figures.states["first"].dwell.max == 5 * MINUTE
    assert (figures.states["approved"].entered, figures.states["approved"].dwell.count) == (1, 0)
    assert (figures.duration.count, figures.duration.max) == (1, 7 * MINUTE)


def test_a_paused_instance_is_still_where_it_was() -> None:
    paused = InstancePaused(instance_id="a", sequence=2, time=MINUTE)
    figures = figures_of(started(), paused)
    assert (figures.active, figures.paused, figures.states["draft"].now) == (0, 1, 1)
    resumed = InstanceResumed(instance_id="a", sequence=3, time=2 * MINUTE)
    figures = figures_of(started(), paused, resumed)
    assert (figures.active, figures.paused, figures.states["draft"].now) == (1, 0, 1)


def test_a_cancelled_instance_leaves_its_states() -> None:
    paused = InstancePaused(instance_id="a", sequence=2, time=MINUTE)
    figures = figures_of(started(), paused, InstanceCancelled(instance_id="a", sequence=3, time=3 * MINUTE))
    assert (figures.active, figures.paused, figures.cancelled) == (0, 0, 1)
    assert (figures.states["draft"].now, figures.states["draft"].dwell.max) == (0, 3 * MINUTE)


def test_a_refusal_counts_and_moves_nothing() -> None:
    refused = EventRefused(instance_id="a", sequence=2, time=MINUTE, trigger=Trigger("e", "1"), reason="no")
    figures = figures_of(started(), refused)
    assert (figures.refused, figures.transitions, figures.states["draft"].now) == (1, 0, 1)


def test_a_state_passed_through_in_one_macrostep_has_a_dwell_of_zero() -> None:
    through = TransitionTaken(
        instance_id="a",
        sequence=2,
        time=MINUTE,
        trigger=Trigger("e", "1"),
        exited=("draft", "check", "draft"),
        entered=("check", "draft", "review"),
        configuration=("review",),
    )
    figures = figures_of(started(), through)
    assert (figures.states["check"].entered, figures.states["check"].dwell.count) == (1, 1)
    assert figures.states["check"].dwell.max == 0
    draft = figures.states["draft"]
    assert (draft.entered, draft.now, draft.dwell.count, draft.dwell.sum) == (2, 0, 2, MINUTE)


def test_what_has_failed_and_goes_on_has_not_failed() -> None:
    failed = InstanceFailed(instance_id="a", sequence=2, time=2 * MINUTE, error="boom")
    place: dict[str, Any] = {"definition": "approval", "version": "1+0a1b2c3d", "digest": "e"}
    again = InstanceModified(
        instance_id="a", sequence=3, time=5 * MINUTE, entered=("review",), configuration=("review",), **place
    )
    figures = figures_of(started(), failed, again)
    assert (figures.started, figures.active, figures.failed, figures.transitions) == (1, 1, 0, 0)
    assert {name: state.now for name, state in figures.states.items()} == {"draft": 0, "review": 1}
    assert (figures.states["draft"].dwell.count, figures.states["draft"].dwell.max) == (1, 2 * MINUTE)
    figures = figures_of(started(), failed, again, moved(4, 6 * MINUTE, "review", "approved", "completed"))
    assert (figures.active, figures.failed, figures.completed) == (0, 0, 1)
    assert (figures.duration.count, figures.duration.sum) == (2, 3 * MINUTE)


def test_versions_are_kept_apart_and_add_up() -> None:
    metrics = Metrics()
    metrics.apply_all([started(), started(instance_id="b", version="2", time=5)])
    assert {key: one.started for key, one in metrics.figures.items()} == {("approval", "1"): 1, ("approval", "2"): 1}
    whole = merged(metrics.figures)["approval"]
    assert (whole.started, whole.states["draft"].now) == (2, 2)


def test_json_says_null_where_nothing_was_counted() -> None:
    line = metrics_json("approval", figures_of(started()))
    assert line["duration_ns"] == {"count": 0, "min": None, "mean": None, "p50": None, "p95": None, "max": None}
    assert line["states"]["draft"]["now"] == 1
    assert msgspec.json.decode(msgspec.json.encode(line)) == line


@property_test
@given(logs(), st.integers(1, 7))
def test_batches_with_a_store_between_give_the_figures_of_one_fold(log: list[LoggedFact], size: int) -> None:
    whole = Metrics()
    whole.apply_all(entry.fact for entry in log)

    stored: tuple[dict[Any, bytes], dict[str, bytes]] = ({}, {})
    for start in range(0, len(log), size):
        facts = [entry.fact for entry in log[start : start + size]]
        figures = {key: msgspec.json.decode(text, type=Figures) for key, text in stored[0].items()}
        needed = {fact.instance_id for fact in facts}
        runs = {key: msgspec.json.decode(text, type=Run) for key, text in stored[1].items() if key in needed}
        part = Metrics(figures, runs)
        touched = part.apply_all(facts)
        stored[0].update({key: msgspec.json.encode(part.figures[key]) for key in touched.figures})
        stored[1].update({key: msgspec.json.encode(part.runs[key]) for key in touched.runs})
    assert {key: msgspec.json.decode(text, type=Figures) for key, text in stored[0].items()} == whole.figures


@property_test
@given(logs())
def test_figures_equal_those_counted_by_hand(log: list[LoggedFact]) -> None:
    metrics = Metrics()
    metrics.apply_all(entry.fact for entry in log)
    for key, expected in by_hand(log).items():
        figures = metrics.figures[key]
        for name in ("started", "active", "paused", "completed", "failed", "cancelled", "refused", "discarded"):
            assert getattr(figures, name) == expected["counts"][name], name
        assert exact(figures.duration) == sorted_summary(expected["durations"])
        for state in figures.states:
            assert figures.states[state].now == expected["now"][state]
            assert figures.states[state].entered == expected["entered"][state]
            assert exact(figures.states[state].dwell) == sorted_summary(expected["dwell"][state])


def by_hand(log: list[LoggedFact]) -> dict[tuple[str, str], dict[str, Any]]:
    """The slow way: each instance's facts one by one, each stay of a state as an interval."""
    result: dict[tuple[str, str], dict[str, Any]] = {}
    for instance_id in {entry.fact.instance_id for entry in log}:
        facts = [entry.fact for entry in log if entry.fact.instance_id == instance_id]
        first = facts[0]
        assert isinstance(first, InstanceStarted)
        mine = result.setdefault(
            (first.definition, first.version),
            {"counts": Counter(), "durations": [], "now": Counter(), "entered": Counter(), "dwell": defaultdict(list)},
        )
        status, open_since, begun = "active", dict[str, int](), first.time
        mine["counts"]["started"] += 1
        for fact in facts:
            kind = type(fact).__name__
            if isinstance(fact, InstanceModified) and status not in ("active", "paused"):
                begun = fact.time
            if isinstance(fact, InstanceStarted | TransitionTaken | InstanceModified):
                fresh = stays(fact, open_since, mine)
                status = fact.status
            else:
                fresh = set[str]()
                mine["counts"]["refused"] += kind == "EventRefused"
                mine["counts"]["discarded"] += kind == "EventDiscarded"
                changed = {"InstancePaused": "paused", "InstanceResumed": "active", "InstanceCancelled": "cancelled"}
                status = changed.get(kind, "failed" if kind == "InstanceFailed" else status)
            if status not in ("active", "paused") and kind not in ("EventRefused", "EventDiscarded"):
                mine["durations"].append(fact.time - begun)
                for state, since in open_since.items():
                    if state not in fresh:
                        mine["dwell"][state].append(fact.time - since)
                open_since = {}
        mine["counts"][status] += 1
        mine["now"].update(open_since.keys())
    return result


def stays(fact: Macrostep, open_since: dict[str, int], mine: dict[str, Any]) -> set[str]:
    """Move `open_since` over one macrostep; the states that were entered in it and are still active."""
    mine["entered"].update(fact.entered)
    for state in {*fact.entered, *fact.exited}:
        lengths = [fact.time - open_since.pop(state)] if state in open_since else []
        lengths += [0] * fact.entered.count(state)
        if state in fact.configuration:
            open_since[state] = fact.time - lengths.pop()
        mine["dwell"][state] += lengths
    return {state for state in fact.entered if state in fact.configuration}


def exact(histogram: Histogram) -> tuple[int, int, int, int]:
    return histogram.count, histogram.sum, histogram.min, histogram.max


def sorted_summary(values: list[int]) -> tuple[int, int, int, int]:
    return len(values), sum(values), min(values, default=0), max(values, default=0)


@property_test
@given(st.lists(st.integers(0, 10**18), min_size=1), st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_quantiles_are_within_the_stated_error(values: list[int], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    true = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = histogram.quantile(q)
    assert found is not None
    assert abs(found - true) <= true * RELATIVE_ERROR_MAX
    assert RELATIVE_ERROR_MAX <= 0.025


@property_test
@given(st.lists(st.integers(0, 10**18)), st.integers(0, 100), st.randoms(use_true_random=False))
def test_histograms_depend_on_the_values_alone(values: list[int], cut: int, random: Any) -> None:
    one, left, right = Histogram(), Histogram(), Histogram()
    for value in values:
        one.add(value)
    random.shuffle(values)
    for value in values[:cut]:
        left.add(value)
    for value in values[cut:]:
        right.add(value)
    left.merge(right)
    assert left == one


@given(st.integers(0, 2**70))
@property_test
def test_buckets_grow_with_the_value(value: int) -> None:
    assert bucket_of(value) <= bucket_of(value + 1) <= bucket_of(value) + 1


def test_a_clock_set_back_counts_as_no_time() -> None:
    histogram = Histogram()
    histogram.add(-5)
    assert (histogram.count, histogram.min, histogram.max, histogram.sum) == (1, 0, 0, 0)


def test_an_event_for_an_unknown_run_is_an_error() -> None:
    with pytest.raises(KeyError):
        Metrics().apply(moved(2, 0, "draft", "review"))
