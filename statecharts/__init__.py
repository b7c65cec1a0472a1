"""Definitions and the step function. Pure: no clock, no IO but `load_chart` reading its file, no async.

`Chart` is a definition with its compiled machine; `load_chart` reads one from a file or a `module:attribute`;
`chart`, `state`, `to` and their like (module `builder`) write one in Python.
"""

from statewright.statecharts.builder import (
    assign,
    call,
    cancel,
    chart,
    emit,
    final,
    history,
    if_,
    log,
    parallel,
    perform,
    raise_,
    record,
    run_step,
    send,
    state,
    to,
)
from statewright.statecharts.chart import Chart, Machine, load_chart
from statewright.statecharts.context import Context
from statewright.statecharts.definition import Retry
from statewright.statecharts.errors import (
    ChartError,
    ChartNotFound,
    ContextError,
    Fault,
    MessageError,
    StatewrightError,
    UnknownState,
)
from statewright.statecharts.facts import (
    Effect,
    Event,
    Json,
    Snapshot,
    Step,
    StepRecord,
    Taken,
    TimerCancelled,
    TimerSet,
    Verdict,
)
from statewright.statecharts.subscriptions import Mapped, Subscription
from statewright.statecharts.transitions_form import from_transitions
from statewright.statecharts.xstate import from_xstate

__all__ = [
    "Chart",
    "ChartError",
    "ChartNotFound",
    "Context",
    "ContextError",
    "Effect",
    "Event",
    "Fault",
    "Json",
    "Machine",
    "Mapped",
    "MessageError",
    "Retry",
    "Snapshot",
    "StatewrightError",
    "Step",
    "StepRecord",
    "Subscription",
    "Taken",
    "TimerCancelled",
    "TimerSet",
    "UnknownState",
    "Verdict",
    "assign",
    "call",
    "cancel",
    "chart",
    "emit",
    "final",
    "from_transitions",
    "from_xstate",
    "history",
    "if_",
    "load_chart",
    "log",
    "parallel",
    "perform",
    "raise_",
    "record",
    "run_step",
    "send",
    "state",
    "to",
]
