"""The step function does what Appendix D says, on charts that nobody thought of."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statewright.statecharts import Chart, Event, Step
from statewright.statecharts.step import MICROSTEPS_MAX
from tests.statecharts.literal import Interpreter, Outcome, TooManyMicrosteps
from tests.statecharts.random_charts import charts, events


def quickly(examples: int) -> settings:
    """`CHARTS=20000 pytest --hypothesis-profile=random …` looks at that many."""
    wanted = os.environ.get("CHARTS")
    return settings(
        max_examples=int(wanted) if wanted else examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def outcome_of(step: Step) -> Outcome:
    taken = [(item.source, item.event, item.targets) for item in step.taken]
    return Outcome(taken, list(step.exited), list(step.entered), list(step.raised))


@quickly(150)
@given(charts(), events)
def test_fast_equals_literal(tree: dict[str, Any], names: list[str]) -> None:
    chart = Chart.from_tree(tree)
    literal = Interpreter(chart.definition, MICROSTEPS_MAX)
    step = chart.machine.start({})
    try:
        expected = literal.start()
    except TooManyMicrosteps:
        assert "did not settle" in step.reason
        return
    for name in [*names, ""]:
        assert outcome_of(step) == expected
        assert chart.machine.names(step.snapshot.configuration) == literal.names()
        assert step.status == ("active" if literal.running else "completed")
        if not literal.running or not name:
            return
        before = step.snapshot
        step = chart.machine.step(before, Event(name))
        try:
            expected = literal.send(name)
        except TooManyMicrosteps:
            assert "did not settle" in step.reason
            assert step.snapshot == before
            return
        assert bool(step.reason) == (not expected.taken)


@quickly(60)
@given(charts(), events)
def test_what_is_restored_from_names_steps_the_same(tree: dict[str, Any], names: list[str]) -> None:
    chart = Chart.from_tree(tree)
    revived = Chart.from_json(chart.to_json())
    step = chart.machine.start({})
    for name in names:
        if step.reason or step.status == "completed":
            break
        snapshot = step.snapshot
        configuration = chart.machine.names(snapshot.configuration)
        restored = revived.machine.restore(configuration, snapshot.context, snapshot.history, snapshot.serial)
        assert restored == snapshot
        step = chart.machine.step(snapshot, Event(name))
        assert revived.machine.step(restored, Event(name)) == step


@quickly(60)
@given(charts(), events, st.integers(0, 7))
def test_the_same_step_again_gives_the_same(tree: dict[str, Any], names: list[str], again: int) -> None:
    machine = Chart.from_tree(tree).machine
    step = machine.start({})
    for index, name in enumerate(names):
        if step.reason or step.status == "completed":
            break
        before = step.snapshot
        step = machine.step(before, Event(name))
        if index == again:
            assert machine.step(before, Event(name)) == step
            fresh = Chart.from_tree(tree).machine
            assert fresh.step(before, Event(name)) == step


def test_the_judge_knows_right_from_wrong() -> None:
    """A transcription that agreed with everything would prove nothing: it must differ from a wrong answer."""
    tree = {
        "name": "t",
        "states": [
            {
                "id": "p",
                "type": "parallel",
                "states": [
                    {"id": "r1", "states": [{"id": "a1", "on": {"e": "a2"}}, {"id": "a2"}]},
                    {"id": "r2", "states": [{"id": "b1", "on": {"e": "out"}}, {"id": "b2"}]},
                ],
            },
            {"id": "out"},
        ],
    }
    literal = Interpreter(Chart.from_tree(tree).definition, MICROSTEPS_MAX)
    literal.start()
    assert literal.names() == ("p", "r1", "a1", "r2", "b1")
    # The earlier region's transition preempts the later one's, which would leave the parallel state.
    assert literal.send("e").taken == [("a1", "e", ("a2",))]
