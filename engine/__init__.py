"""Decides and records: the aggregate, the runtime loop, effects and timers. Knows no driver."""

from statewright.engine.calls import EffectCall, EffectCancelled, Handler, PermanentError, RetryLater
from statewright.engine.clock import Clock, ManualClock, SystemClock
from statewright.engine.engine import Engine
from statewright.engine.followers import Projection
from statewright.engine.log import LoggedFact
from statewright.engine.recorder import InstanceFilter, InstanceRow, ScheduleRow
from statewright.engine.replay import Replay
from statewright.engine.requests import ExternalEvent, Outcome, Started
from statewright.statecharts.definition import Retry

__all__ = [
    "Clock",
    "EffectCall",
    "EffectCancelled",
    "Engine",
    "ExternalEvent",
    "Handler",
    "InstanceFilter",
    "InstanceRow",
    "LoggedFact",
    "ManualClock",
    "Outcome",
    "PermanentError",
    "Projection",
    "Replay",
    "Retry",
    "RetryLater",
    "ScheduleRow",
    "Started",
    "SystemClock",
]
