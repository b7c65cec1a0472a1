"""Performs the steps of workflows: resolves a step's parameters and has a function, a plugin or a service do it.

A step is an effect like any other: recorded with the fact that asks for it, performed after the commit, at least once,
retried as its workflow says. Its data is what is returned. Nothing is remembered between attempts: parameters are
resolved again from recorded facts alone, the execution's input and the results of earlier steps.

Who can perform which step differs between processes, so each is an effect of a kind of its own, which is claimed only
where it can be performed, and else waits in the store: `step.function.<workflow>.<name>` where that function is
registered, `step.plugin` where there are plugins, `step.service` where there are services or a bus. What is claimed and
then can't be found (an unknown plugin among the plugins, say) has failed for good.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from statewright.engine.calls import EffectCall, Handler, PermanentError
from statewright.engine.clock import SECOND_NS
from statewright.engine.engine import Engine
from statewright.engine.errors import UnavailableError, UnusableError
from statewright.engine.instance import Instance
from statewright.engine.requests import as_json
from statewright.engine.workflows.calls import Caller, StepCall
from statewright.engine.workflows.errors import (
    FunctionNotFound,
    PluginNotFound,
    ServiceNotFound,
)
from statewright.engine.workflows.functions import StepFunction
from statewright.engine.workflows.parameters import resolved
from statewright.engine.workflows.plans import Needs, Plan, Plans
from statewright.engine.workflows.results import Data, read_data, read_earlier, read_last
from statewright.statecharts.chart import Chart
from statewright.statecharts.definition import RunStep, walk_actions
from statewright.statecharts.facts import Json
from statewright.statecharts.workflows.model import WorkflowStep
from statewright.statecharts.workflows.parameters import Facts

__all__ = ["Caller", "StepCall", "StepPerformer"]

_LOG = logging.getLogger("statewright.engine")
T = TypeVar("T")

PLUGIN, SERVICE = "step.plugin", "step.service"


def function_kind(workflow: str, function: str) -> str:
    """The kind of the effects that `function` of `workflow` performs."""
    return f"step.function.{workflow}.{function}"


class StepPerformer:
    """Performs on one engine what it is given functions, plugins and services for."""

    def __init__(self, engine: Engine, plans: Plans, plugins: Caller | None, services: Caller | None) -> None:
        self._engine = engine
        self._plans = plans
        self._plugins = plugins
        self._services = services
        self._functions: dict[str, dict[str, StepFunction]] = {}
        """By workflow, those of one name only for it: two workflows may each have their `load`."""
        if plugins is not None:
            engine.performer(PLUGIN, self._perform, in_thread=True)  # Their methods may be plain functions.
        if services is not None or engine.performers.performer_of("call") is not None:
            engine.performer(SERVICE, self._perform)

    def register(self, workflow: str, functions: Mapping[str, Callable[..., Any]]) -> None:
        """These perform the function steps of `workflow` from now on, of all its versions."""
        known = self._functions.setdefault(workflow, {}) if functions else {}
        for name, function in functions.items():
            known[name] = StepFunction(name, function)
            in_thread = not known[name].is_async
            self._engine.performer(function_kind(workflow, name), self._perform, in_thread=in_thread)

    def functions(self, workflow: str) -> dict[str, Callable[..., Any]]:
        """Those that are known of a workflow."""
        return {name: one.function for name, one in self._functions.get(workflow, {}).items()}

    def warn_of_unperformed(self, chart: Chart) -> None:
        """Whoever waits for an execution would else wait without a word: functions are easily forgotten."""
        if missing := self.unperformed((chart,)):
            _LOG.warning(
                "workflow '%s': nothing in this process performs %s; such steps wait for a process that can",
                chart.name,
                ", ".join(sorted(missing)),
            )

    def unperformed(self, charts: Iterable[Chart]) -> set[str]:
        """The kinds of steps that `charts` ask for and that are not performed here."""
        actions = (action for chart in charts for action in walk_actions(chart.definition))
        wanted = {f"step.{action.by}" for action in actions if isinstance(action, RunStep) and action.by}
        return {kind for kind in wanted if self._engine.performers.performer_of(kind) is None}

    async def _perform(self, effect: EffectCall) -> Json:
        execution, plan = await self._pinned(effect)
        step = plan.step(effect.name) if plan is not None else None
        if plan is None or step is None:
            raise PermanentError(
                f"expected '{effect.name}' to be a step of '{execution.definition}' version '{execution.version}', "
                "which has none of that name"
            )
        call = StepCall(
            execution.id,
            plan.workflow.id,
            step.id,
            step.plugin,
            step.service,
            step.method,
            {},
            effect.effect_id,
            effect.attempt,
            effect.deadline,
            step.metadata,
            effect,
        )
        if step.function:
            return await self._call_function(execution, plan, step, call)
        subject = plan.subject(step) if not step.parameters else ""
        given, facts = await self._facts(execution, plan, step, frozenset((subject,)))
        parameters = {subject: given[subject]} if subject else resolved(plan.parameters(step), facts)
        call = _with_parameters(call, parameters)
        if step.plugin:
            if self._plugins is None:
                raise PluginNotFound(f"step '{step.id}': there are no plugins here, so none is called '{step.plugin}'")
            return await self._plugins.call(call)
        return await self._call_service(call, effect)

    async def _call_function(self, execution: Instance, plan: Plan, step: WorkflowStep, call: StepCall) -> Json:
        function = self._functions.get(plan.workflow.id, {}).get(step.function)
        if function is None:
            raise FunctionNotFound(f"step '{step.id}': no function '{step.function}' is registered here")
        subject = plan.subject(step)
        given, facts = await self._facts(execution, plan, step, function.asks(step.parameters, subject))
        call = _with_parameters(call, resolved(plan.parameters(step), facts))
        bound = function.bind(call, given=given, subject=subject)
        effect = call.effect
        assert effect is not None
        result = bound() if function.is_async else await effect.in_thread(bound)
        # An object whose `__call__` is a coroutine looks like a plain function until it is called.
        return await result if inspect.isawaitable(result) else result

    async def _call_service(self, call: StepCall, effect: EffectCall) -> Json:
        """By the services, or else on the bus, at `statewright.calls.<service>.<method>`, as the action `call` does."""
        if self._services is not None:
            return await self._services.call(call)
        ask: Handler | None = self._engine.performers.performer_of("call")
        if ask is None:
            raise ServiceNotFound(f"step '{call.step}': there is no bus to reach service '{call.service}' by")
        found = ask(replace(effect, name=f"{call.service}.{call.method}", kind="call", data=dict(call.parameters)))
        return await found if inspect.isawaitable(found) else found

    async def _pinned(self, effect: EffectCall) -> tuple[Instance, Plan | None]:
        """The execution, as of this effect's request or later, and its plan."""
        instance = self._engine.resident(effect.instance_id)
        asked_at = int(effect.effect_id.rsplit("-", 2)[1])
        if instance is None or instance.sequence < asked_at:  # Another worker has written since.
            instance = await self._read(self._engine.on_reader, self._engine.log.load, effect.instance_id)
            if instance is None:
                raise await self._engine.on_reader(self._engine.log.absence, effect.instance_id)
        return instance, await self._read(self._plans.of, instance.definition, instance.version, instance.digest)

    async def _facts(
        self, execution: Instance, plan: Plan, step: WorkflowStep, asked: frozenset[str]
    ) -> tuple[dict[str, Json], Facts]:
        """What can be asked for by name, and what templates see. Reads no more than is asked for."""
        needs = plan.needs(step, plan.parameters(step).uses | asked)
        first = execution.context.get("input")
        given: dict[str, Json] = {"input": first, "previous": first, "results": {}}
        data = Data({}, {})
        if needs.steps or needs.before:
            data, previous = await self._read(
                self._engine.on_reader, self._read_needed, execution.id, plan, needs, step
            )
            given["results"] = {member: data.steps[member] for member in needs.results if member in data.steps}
            if previous is not None:
                given["previous"] = previous[0]
        return given, Facts(first, data.steps, given["previous"], given["results"], data.absent)

    def _read_needed(
        self, execution_id: str, plan: Plan, needs: Needs, step: WorkflowStep
    ) -> tuple[Data, tuple[Json] | None]:
        """On the reading thread. What a fallback has done counts as done by the step that it stands for. To undo a step
        that was to be done again (`checkpoints.py`), what it had done before counts."""
        log = self._engine.log
        steps, absent = {}, {}
        if needs.steps:
            found = read_data(log, execution_id, plan.with_fallbacks(needs.steps))
            absent = dict(found.absent)
            done = ((name, plan.stand_in(name, found.steps)) for name in needs.steps)
            steps = {name: found.steps[by] for name, by in done if by in found.steps}
            if step.id not in plan.steps:
                steps |= read_earlier(log, execution_id, needs.steps.difference(steps))
        return Data(steps, absent), read_last(log, execution_id, plan.line, needs.before) if needs.before else None

    async def _read(self, reading: Callable[..., Awaitable[T]], *args: Any) -> T:
        """What `reading` the store gives, tried again while it can't be read: that is no fault of the step's, and must
        not use up its attempts. It ends when the attempt's time is up."""
        clock = self._engine.clock
        while True:
            try:
                return await reading(*args)
            except UnusableError:
                raise
            except UnavailableError as error:
                _LOG.warning("a step waits for the store: %s", error)
                await clock.sleep_until(clock.now() + SECOND_NS)


def _with_parameters(call: StepCall, parameters: Mapping[str, Json]) -> StepCall:
    """Raises `InvalidError`, `TooLargeError`: parameters are as large as an event's data may be."""
    if not parameters:
        return call
    given, _ = as_json(f"the parameters of step '{call.step}'", dict(parameters))
    return msgspec.structs.replace(call, parameters=given)
