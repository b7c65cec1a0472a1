"""The instances of a service: one in this process, one in another, or the queue group that stands for those in others.

A `Member` is what is known of an instance; its `Target` performs a call there. Invariant: `in_flight` returns to 0
whatever becomes of the calls.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

import msgspec

from statewright.adapters.services.balancing import Candidate
from statewright.adapters.services.measures import CallMeasure, InstanceMetrics
from statewright.engine.calls import EffectCall
from statewright.engine.errors import InvalidError
from statewright.engine.services import ServiceBus
from statewright.engine.threads import Threads
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters, ServiceNotFound
from statewright.engine.workflows.functions import StepFunction

HEALTH_TIMEOUT_S = 2.0
"""How long a health check may take."""

Health = Callable[[], bool | Awaitable[bool]]
Load = Callable[[], float]

_LOG = logging.getLogger("statewright.services")


class Target(Protocol):
    """Performs calls at one instance. `methods`: those that it has, empty if that isn't known."""

    @property
    def methods(self) -> frozenset[str]: ...

    async def perform(self, call: StepCall) -> Any: ...


class LocalTarget:
    """A Python object (its public methods), a module (its public functions) or a mapping of names to callables."""

    def __init__(self, service: str, target: object, threads: Threads) -> None:
        """Raises `InvalidError` if there is nothing to call."""
        self._service = service
        self._threads = threads
        self._functions: dict[str, StepFunction] = {}
        for name, function in _callables(target).items():
            try:
                self._functions[name] = StepFunction(f"{service}.{name}", function)
            except (TypeError, ValueError) as error:  # Some that are written in C don't say what they take.
                if isinstance(target, Mapping):
                    raise InvalidError(f"service '{service}' can't offer '{name}': {error}") from error
        if not self._functions:
            raise InvalidError(
                f"expected service '{service}' to be an object with a public method, a module or a mapping of names to "
                f"functions, got {target!s:.80}"
            )

    @property
    def methods(self) -> frozenset[str]:
        return frozenset(self._functions)

    async def perform(self, call: StepCall) -> Any:
        """Raises `ServiceNotFound`, `InvalidParameters`, and what the method raises."""
        function = self._functions.get(call.method)
        if function is None:
            has = ", ".join(sorted(self._functions))
            raise ServiceNotFound(f"service '{self._service}' has no method '{call.method}'; it has {has}")
        if call.parameters is None:  # A `call` effect without data.
            call = msgspec.structs.replace(call, parameters={})
        if not isinstance(call.parameters, Mapping):
            raise InvalidParameters(f"expected parameters by name for {function.name}, got {call.parameters!r:.80}")
        bound = function.bind(call, given={}, subject="")
        result: Any = bound() if function.is_async else await self._threads.run(function.name, bound)
        # A partial of a coroutine function, say, looks like a plain function until it is called.
        return await result if inspect.isawaitable(result) else result


class RemoteTarget:
    """Instances on the bus: the one with this subject word, or with "" whichever the queue group chooses."""

    def __init__(
        self, service: str, bus: ServiceBus, subject_word: str = "", methods: frozenset[str] = frozenset()
    ) -> None:
        self._service = service
        self._bus = bus
        self.subject_word = subject_word
        self._methods = methods

    @property
    def methods(self) -> frozenset[str]:
        return self._methods

    async def perform(self, call: StepCall) -> Any:
        """The effect that goes out keeps the step's own terms, pulse and identity."""
        name = f"{self._service}.{call.method}"
        effect = call.effect or EffectCall(
            call.effect_id, call.execution_id, name, "call", None, call.attempt, deadline=call.deadline_ns
        )
        return await self._bus.call(replace(effect, name=name, kind="call", data=call.parameters), self.subject_word)


@dataclass
class Member:
    """An instance. `capacity` is how many calls at once are a load of 1 (0: calls say nothing of its load);
    `is_addressable`: it can be asked by itself."""

    id: str
    target: Target
    weight: int = 1
    capacity: int = 0
    health: Health | None = None
    load_of: Load | None = None
    reported_load: float | None = None
    is_remote: bool = False
    is_addressable: bool = True
    is_alive: bool = True
    is_overloaded: bool = False
    misses: int = 0
    measure: CallMeasure = field(default_factory=CallMeasure)

    def __post_init__(self) -> None:
        if self.weight < 1 or self.capacity < 0:
            raise InvalidError(
                f"expected instance '{self.id}' to have a weight from 1 and a capacity from 0, "
                f"got {self.weight} and {self.capacity}"
            )

    @property
    def load(self) -> float | None:
        """0..1: the highest of what is reported and what its calls under way make of its capacity."""
        known = [self.measure.in_flight / self.capacity] if self.capacity else []
        known += [load for load in (self.reported_load, self._asked_load()) if load is not None]
        return min(max(*known, 0.0), 1.0) if known else None

    def _asked_load(self) -> float | None:
        if self.load_of is None:
            return None
        try:
            load = float(self.load_of())
        except Exception:
            _LOG.exception("instance '%s' can't tell its load", self.id)
            return None
        return None if math.isnan(load) else load

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.id, self.weight, self.measure.in_flight, self.load)

    @property
    def metrics(self) -> InstanceMetrics:
        measure = self.measure
        return InstanceMetrics(
            id=self.id,
            calls=measure.calls,
            failures=measure.failures,
            in_flight=measure.in_flight,
            latency_ms=measure.latency_ms,
            load=self.load,
            is_alive=self.is_alive,
            is_overloaded=self.is_overloaded,
        )

    async def check(self, timeout_s: float, threads: Threads) -> str:
        """Ask a local instance for its health: "" if it is well, else why not. A plain function runs in a thread."""
        health = self.health
        if health is None:
            return ""
        try:
            async with asyncio.timeout(timeout_s):
                is_async = inspect.iscoroutinefunction(health)
                answer = health() if is_async else await threads.run(f"health of {self.id}", health)
                well = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            return f"no answer to the health check within {timeout_s:g} s"
        except Exception as error:
            return f"the health check failed: {type(error).__name__}: {error}"
        return "" if well else "the health check says no"


def _callables(target: object) -> dict[str, Callable[..., Any]]:
    if isinstance(target, Mapping):
        return {str(name): function for name, function in target.items() if callable(function)}
    if isinstance(target, ModuleType):
        own = {name: value for name, value in vars(target).items() if not name.startswith("_")}
        return {
            name: value
            for name, value in own.items()
            if inspect.isroutine(value) and getattr(value, "__module__", "") == target.__name__
        }
    if type(target).__module__ == "builtins":  # A class, a function, a text: something was mistaken for an object.
        return {}
    names = [name for name in dir(target) if not name.startswith("_")]
    # Looked at without being asked for: a property must not run because somebody registers its object.
    routines = (staticmethod, classmethod)
    found = [
        name
        for name in names
        if isinstance(value := inspect.getattr_static(target, name), routines) or inspect.isroutine(value)
    ]
    return {name: getattr(target, name) for name in found}
