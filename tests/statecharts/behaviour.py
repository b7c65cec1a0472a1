"""given(chart).when(event).then(...): how the behaviour tests of charts read."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from statewright.statecharts import Chart, Event, Step, TimerCancelled, TimerSet
from statewright.statecharts.documents import read_document


def read(text: str, **functions: Any) -> Chart:
    """The chart of a YAML text, given a name if it has none."""
    text = dedent(text).lstrip("\n")
    tree, lines = read_document((text if text.startswith("name:") else f"name: test\n{text}").encode())
    return Chart.from_tree(tree, functions, lines)


class Given:
    """A started instance; `step` is the last outcome."""

    def __init__(self, subject: Chart, context: dict[str, Any]) -> None:
        self.chart = subject
        self.step: Step = subject.machine.start(context)

    def when(self, name: str, data: Any = None) -> Given:
        self.step = self.chart.machine.step(self.step.snapshot, Event(name, data))
        return self

    def then(self, *leaves: str, **expected: Any) -> Given:
        """The active leaves, and fields of the step by name; `timers` as `set:id` and `cancelled:id`."""
        assert self.chart.machine.leaves(self.step.snapshot.configuration) == leaves, self.step.reason
        for name, value in expected.items():
            assert getattr(self, name) == value
        return self

    def refused(self, *parts: str) -> Given:
        """The event changed nothing, for a reason that says all of this."""
        assert self.step.reason, f"expected a refusal, but took {self.step.taken}"
        for part in parts:
            assert part in self.step.reason
        assert not self.step.taken
        assert not self.step.effects
        assert not self.step.timers
        return self

    @property
    def context(self) -> dict[str, Any]:
        return dict(self.step.snapshot.context)

    @property
    def exited(self) -> tuple[str, ...]:
        return self.step.exited

    @property
    def entered(self) -> tuple[str, ...]:
        return self.step.entered

    @property
    def raised(self) -> tuple[str, ...]:
        return self.step.raised

    @property
    def effects(self) -> list[str]:
        return [effect.name for effect in self.step.effects]

    @property
    def timers(self) -> list[str]:
        kinds = {TimerSet: "set", TimerCancelled: "cancelled"}
        return [f"{kinds[type(timer)]}:{timer.timer_id}" for timer in self.step.timers]

    @property
    def status(self) -> str:
        return self.step.status


def given(subject: str | Chart, context: dict[str, Any] | None = None, **functions: Any) -> Given:
    return Given(read(subject, **functions) if isinstance(subject, str) else subject, context or {})
