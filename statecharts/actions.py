"""Compiles actions, guards and values into functions of the running macrostep.

A compiled action reads the macrostep's context and event and adds to its changes, queue, timers and effects; it
raises `ActionError` where it fails. What can be made beforehand is (constant effects, timers), so that running it
is one append.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from statewright.statecharts import definition as d
from statewright.statecharts.actions_reader import suggest
from statewright.statecharts.context import ContextType, json_type, require_json
from statewright.statecharts.durations import delay_ns, parse_duration
from statewright.statecharts.dynamic import DynamicExpression, DynamicExpressions, undeclared
from statewright.statecharts.errors import ContextError, Fault
from statewright.statecharts.expressions import Expression, ExpressionError, Expressions, assignable, to_json
from statewright.statecharts.facts import Effect, Event, Policy, TimerCancelled, TimerSet
from statewright.statecharts.places import Faults
from statewright.statecharts.policies import PolicyFaults, compile_policy
from statewright.statecharts.scripts import compile_assign, compile_foreach, compile_script
from statewright.statecharts.sends import compile_send
from statewright.statecharts.step import ActionError, Macrostep

if TYPE_CHECKING:
    from statewright.statecharts.definition import Json, Node

Operation = Callable[[Macrostep], None]
Block = tuple[Operation, ...]
"""Executable content that fails as one: what comes after a failing action in it is not run."""
Value = Callable[[Macrostep], Any]


class ActionCompiler:
    """Compiles the executable content of one chart; what is wrong goes to `faults`, and a harmless stand-in comes
    back.
    """

    def __init__(
        self,
        context: ContextType,
        expressions: Expressions | DynamicExpressions,
        functions: Mapping[str, Callable[..., Any]],
        faults: Faults,
        *,
        known: Collection[str] = (),
    ) -> None:
        """`known`: the variables that dynamic expressions will find; others are warned of."""
        self.context = context
        self.expressions = expressions
        self.functions = functions
        self.faults = faults
        self.strict = isinstance(expressions, Expressions)
        self.known = known
        self.warnings: list[Fault] = []
        """What will fail in a dynamic chart when it is evaluated."""
        self.used: dict[str, Callable[..., Any]] = {}
        """The registered functions that the chart refers to."""
        self._compiled: dict[str, Expression | ExpressionError] = {}
        self._within = ""
        self._compilers: dict[type, Callable[[Any, str, str], Operation]] = {
            d.Assign: self._assign,
            d.Raise: self._raise,
            d.Send: self._send,
            d.Cancel: self._cancel,
            d.Emit: self._emit,
            d.Call: self._call,
            d.Perform: self._perform,
            d.RunStep: self._run_step,
            d.Record: self._record,
            d.Log: self._log,
            d.If: self._if,
            d.Foreach: lambda action, state, where: compile_foreach(self, action, state, where),
            d.Script: lambda action, state, where: compile_script(self, action, where),
            d.Block: self._nested_block,
        }

    def block(self, actions: tuple[d.AnyAction, ...], state: str, where: str, within: str | None = None) -> Block:
        """One block; `where` completes "… failed in" (`entry of state 'draft'`). `within` is the state that is active
        once it has run, whose leaving may cancel effects ("" if there is none, None if it is the enclosing block's)."""
        if within is not None:
            self._within = within
        return tuple([self._compilers[type(action)](action, state, where) for action in actions])

    def blocks(self, actions: tuple[d.AnyAction, ...], state: str, where: str, within: str) -> tuple[Block, ...]:
        """The blocks of a state's entry or exit: each `Block` is one, the actions between them are too."""
        self._within = within
        found: list[Block] = []
        loose: list[d.AnyAction] = []
        for action in actions:
            if isinstance(action, d.Block):
                found += [self.block(tuple(loose), state, where), self.block(action.actions, state, where)]
                loose = []
            else:
                loose.append(action)
        return tuple(block for block in (*found, self.block(tuple(loose), state, where)) if block)

    def warn(self, node: Node, message: str, *suffix: str | int) -> None:
        """Note what will fail. In a strict chart nothing may be written that does, so there it is a fault."""
        if self.strict:
            self.faults.add(node, message, *suffix)
        else:
            self.warnings.append(self.faults.places.fault(node, message, *suffix, severity="warning"))

    # -- guards and values -------------------------------------------------------------------------------------

    def guard(self, guard: d.Guard, node: Node) -> tuple[str, Callable[..., Any] | None, Expression | None]:
        """(its text for messages, the function, the expression): one of the latter two, neither if it was refused."""
        if isinstance(guard, d.FunctionRef):
            return guard.function, self.function(guard.function, node, "guard"), None
        expression = self.expression(guard, node, "guard")
        if expression is not None and self.strict and expression.type not in ("bool", "dyn"):
            self.faults.add(node, f"expected a guard of type bool, got {expression.type} from {guard!r}", "guard")
        return guard, None, expression

    def function(self, name: str, node: Node, *suffix: str) -> Callable[..., Any] | None:
        function = self.functions.get(name)
        if function is None:
            known = (
                f"; did you mean{suggest(name, self.functions).removeprefix('; did you mean')}"
                if suggest(name, self.functions)
                else ""
            )
            self.faults.add(node, f"no function {name!r} is registered{known}", *suffix)
            return None
        self.used[name] = function
        return function

    def expression(self, text: str, node: Node, *suffix: str | int) -> Expression | None:
        found = self._compiled.get(text)
        if found is None:
            try:
                found = self.expressions.compile(text)
            except ExpressionError as error:
                found = error
            self._compiled[text] = found
        if isinstance(found, ExpressionError):
            self.faults.add(node, f"bad expression {text!r}: {found}", *suffix)
            return None
        if isinstance(found, DynamicExpression):
            if found.fault:
                self.warn(node, f"bad expression {text!r}: {found.fault}", *suffix)
            for name in undeclared(text, self.known):
                self.warn(node, f"nothing declares {name!r}, which {text!r} refers to", *suffix)
        return found

    def value(self, tree: Json, node: Node, what: str, *suffix: str | int) -> tuple[Value, bool]:
        """(a function of the macrostep, whether it always gives the same). `what` begins the message when it fails."""
        if isinstance(tree, str):
            return self._text_value(tree, node, what, *suffix)
        if isinstance(tree, Mapping) and set(tree) == {"function"}:
            return self._function_value(tree["function"], node, what, *suffix), False
        if isinstance(tree, Mapping):
            items = [(key, *self.value(item, node, what, *suffix, key)) for key, item in tree.items()]
            if not all(constant for _, _, constant in items):
                return lambda run: {key: value(run) for key, value, _ in items}, False
        elif isinstance(tree, list):
            parts = [self.value(item, node, what, *suffix, index) for index, item in enumerate(tree)]
            if not all(constant for _, constant in parts):
                return lambda run: [value(run) for value, _ in parts], False
        return lambda run: tree, True

    def _text_value(self, text: str, node: Node, what: str, *suffix: str | int) -> tuple[Value, bool]:
        expression = self.expression(text, node, *suffix)
        if expression is None:
            return lambda run: None, True

        def evaluate(run: Macrostep) -> Json:
            try:
                return to_json(expression.evaluate(run.context, run.event, run.configuration))
            except ExpressionError as error:
                raise ActionError(f"{what} failed: {text!r}: {error}") from None

        return evaluate, False

    def _function_value(self, name: str, node: Node, what: str, *suffix: str | int) -> Value:
        function = self.function(name, node, *map(str, suffix))

        def evaluate(run: Macrostep) -> Json:
            try:
                return require_json(function(run.context, run.event))  # type: ignore[misc]
            except Exception as error:  # whatever a user's function raises
                raise ActionError(f"{what} failed: {name}(): {type(error).__name__}: {error}") from error

        return evaluate

    def delay(self, text: str, node: Node, what: str, *suffix: str) -> tuple[int | None, Value]:
        """(nanoseconds if it is a literal, else None, and the function that computes them)."""
        literal = parse_duration(text)
        if literal is not None:
            return literal, lambda run: literal
        try:
            expression = self.expressions.compile(text)
        except ExpressionError as error:
            expected = "a duration such as 24h, 50ms or PT24H, or a CEL expression"
            self.faults.add(node, f"expected {expected}, got {text!r}: {error}", *suffix)
            return 0, lambda run: 0
        if self.strict and expression.type not in ("string", "int", "duration", "dyn"):
            expected = "a duration: a text such as '24h', a CEL duration or whole milliseconds"
            self.faults.add(node, f"expected {expected}, got {expression.type} from {text!r}", *suffix)

        def evaluate(run: Macrostep) -> int:
            try:
                value = expression.evaluate(run.context, run.event, run.configuration)
            except ExpressionError as error:
                raise ActionError(f"{what} failed: delay {text!r}: {error}") from None
            ns = delay_ns(value)
            if ns is None:
                raise ActionError(f"{what} failed: delay {text!r}: expected a duration, got {json_type(value)}")
            return ns

        return None, evaluate

    def name(self, name: str, expr: str, node: Node, what: str, key: str) -> tuple[str, Value]:
        """A name given as itself or as an expression: (the name or "", the function that gives it)."""
        if not expr:
            return name, lambda run: name
        value, _ = self._text_value(expr, node, what, key)

        def evaluate(run: Macrostep) -> str:
            computed = value(run)
            if not isinstance(computed, str) or not computed:
                raise ActionError(f"{what} failed: {expr!r}: expected a name, got {json_type(computed)}")
            return computed

        return "", evaluate

    # -- actions -----------------------------------------------------------------------------------------------

    def _assign(self, action: d.Assign, state: str, where: str) -> Operation:
        if action.function:
            return self._assign_function(action, where)
        if not self.strict:
            return compile_assign(self, action, where)
        check = self.context.check
        pairs: list[tuple[str, Value, str]] = []
        for key, tree in action.values.items():
            what = f"assign {key!r} in {where}"
            value, _ = self.value(tree, action, what, key)
            self._check_assigned(action, key, tree)
            pairs.append((key, value, what))

        def assign(run: Macrostep) -> None:
            changes = {}
            for key, value, what in pairs:
                try:
                    changes[key] = check(key, value(run))
                except ContextError as error:
                    raise ActionError(f"{what} failed: {error}") from None
            run.assign(changes)

        return assign

    def _check_assigned(self, action: d.Assign, key: str, tree: Json) -> None:
        field = self.context.fields.get(key)
        if field is None:
            if self.strict:
                known = ", ".join(self.context.fields) or "no fields"
                message = f"there is no field {key!r}{suggest(key, self.context.fields)}; the context declares {known}"
                self.faults.add(action, message, key)
            return
        if isinstance(tree, str):
            expression = self._compiled.get(tree)
            if isinstance(expression, Expression) and self.strict and not assignable(expression.type, field.text):
                self.faults.add(
                    action, f"expected {field.text} for field {key!r}, got {expression.type} from {tree!r}", key
                )
        elif not isinstance(tree, Mapping | list):
            try:
                self.context.check(key, tree)
            except ContextError as error:
                self.faults.add(action, str(error), key)

    def _assign_function(self, action: d.Assign, where: str) -> Operation:
        name, check = action.function, self.context.check
        function = self.function(name, action)

        def assign(run: Macrostep) -> None:
            try:
                changes = function(run.context, run.event)  # type: ignore[misc]
                if not isinstance(changes, Mapping):
                    raise TypeError(f"expected a mapping of the fields to change, got {type(changes).__name__}")
                run.assign({key: check(key, value) for key, value in changes.items()})
            except Exception as error:  # whatever a user's function raises
                said = str(error) if isinstance(error, ContextError) else f"{type(error).__name__}: {error}"
                raise ActionError(f"assign by {name}() in {where} failed: {said}") from error

        return assign

    def _raise(self, action: d.Raise, state: str, where: str) -> Operation:
        value, constant = self.value(action.data, action, f"raise {action.event!r} in {where}", "data")
        name = action.event
        if constant:
            event = Event(name, action.data, "internal")
            return lambda run: run.enqueue(event)
        return lambda run: run.enqueue(Event(name, value(run), "internal"))

    def _send(self, action: d.Send, state: str, where: str) -> Operation:
        if not self.strict or action.target or action.targetexpr or action.processor or action.processorexpr:
            return compile_send(self, action, where)
        what = f"send {action.event or action.eventexpr!r} in {where}"
        _, event = self.name(action.event, action.eventexpr, action, what, "eventexpr")
        data, _ = self.value(action.data, action, what, "data")
        _, delay = self.delay(action.delay, action, what, "delay") if action.delay else (0, lambda run: 0)
        send_id = action.id

        def send(run: Macrostep) -> None:
            name, content, after = event(run), data(run), delay(run)
            timer_id = send_id
            if not timer_id:
                run.serial += 1
                timer_id = f"send.{run.serial}"
            run.timers.append(TimerSet(timer_id, name, after, content, send_id))

        return send

    def _cancel(self, action: d.Cancel, state: str, where: str) -> Operation:
        what = f"cancel in {where}"
        _, send_id = self.name(action.sendid, action.sendidexpr, action, what, "sendidexpr")
        if self.strict:
            return lambda run: run.timers.append(TimerCancelled(send_id(run)))
        # Several sends may have this id.
        return lambda run: run.timers.append(TimerCancelled("", send_id(run)))

    def _emit(self, action: d.Emit, state: str, where: str) -> Operation:
        what = f"emit {action.subject or action.subjectexpr!r} in {where}"
        literal, subject = self.name(action.subject, action.subjectexpr, action, what, "subjectexpr")
        return self._effect("emit", literal, subject, action, state, what)

    def _call(self, action: d.Call, state: str, where: str) -> Operation:
        name = f"{action.service}.{action.method}"
        return self._effect("call", name, lambda run: name, action, state, f"call {name!r} in {where}")

    def _perform(self, action: d.Perform, state: str, where: str) -> Operation:
        name = action.name
        return self._effect("perform", name, lambda run: name, action, state, f"perform {name!r} in {where}")

    def _run_step(self, action: d.RunStep, state: str, where: str) -> Operation:
        kind = f"step.{action.by}" if action.by else "step"
        effect = Effect(action.step, kind, None, state, self._policy(action, f"run_step {action.step!r} in {where}"))
        return lambda run: run.effects.append(effect)

    def _record(self, action: d.Record, state: str, where: str) -> Operation:
        step, status = action.step, action.status
        return lambda run: run.record(step, status)

    def _effect(
        self, kind: str, literal: str, name: Value, action: d.Emit | d.Call | d.Perform, state: str, what: str
    ) -> Operation:
        value, constant = self.value(action.data, action, what, "data")
        policy = self._policy(action, what)
        if constant and literal:
            effect = Effect(literal, kind, action.data, state, policy)
            return lambda run: run.effects.append(effect)
        return lambda run: run.effects.append(Effect(name(run), kind, value(run), state, policy))

    def _policy(self, action: d.Emit | d.Call | d.Perform | d.RunStep, what: str) -> Policy | None:
        """What the action says about how it is performed, None if nothing."""
        until = self._within if action.cancel == "on_exit" else ""
        if action.cancel == "on_exit" and not until:
            message = f"{what} can't be cancelled on exit: there is no one state that it leads to or stays in"
            self.faults.add(action, f"{message}; ask for it in the entry of a state", "cancel")
        heartbeat = "" if isinstance(action, d.Emit) else action.heartbeat
        faults: PolicyFaults = []
        policy = compile_policy(action.retry, action.timeout, heartbeat, faults)
        for path, message in faults:
            self.faults.add(action, f"{message} in {what}", *path)
        return replace(policy, until=until) if until else policy if policy != Policy() else None

    def _log(self, action: d.Log, state: str, where: str) -> Operation:
        value, _ = self.value(action.expr, action, f"log in {where}", "expr") if action.expr else (None, True)
        label = action.label

        def log(run: Macrostep) -> None:
            parts = [label] if label else []
            if value is not None:
                said = value(run)
                parts.append(said if isinstance(said, str) else _compact(said))
            run.logs = run.logs or []
            run.logs.append(": ".join(parts))

        return log

    def _nested_block(self, action: d.Block, state: str, where: str) -> Operation:
        block = self.block(action.actions, state, where)
        return lambda run: run.run(block)

    def output(self, tree: Json, node: Node, what: str) -> Value:
        """What a final state gives. In a dynamic chart a failing entry is left out, with its error (SCXML 5.7.1)."""
        if self.strict or not isinstance(tree, Mapping):
            return self.value(tree, node, what, "output")[0]
        entries = [(key, self.value(item, node, what, "output", key)[0]) for key, item in tree.items()]

        def evaluate(run: Macrostep) -> Json:
            given = {}
            for key, value in entries:
                try:
                    given[key] = value(run)
                except ActionError as error:
                    run.fail(str(error))
            return given or None

        return evaluate

    def _if(self, action: d.If, state: str, where: str) -> Operation:
        arms: list[tuple[Callable[[Macrostep], Any], str, Block]] = []
        for branch in action.branches:
            text, function, expression = self.guard(branch.guard, branch)
            arms.append((_condition(text, function, expression), text, self.block(branch.actions, state, where)))
        otherwise, strict = self.block(action.otherwise, state, where), self.strict

        def branch_off(run: Macrostep) -> None:
            block = otherwise
            for condition, text, actions in arms:
                try:
                    passed = condition(run)
                    failure = "" if passed is True or passed is False else f"expected true or false, got {passed!r}"
                except Exception as error:  # whatever a user's guard raises
                    passed, failure = None, str(error)
                if passed is True:
                    block = actions
                    break
                if failure and strict:
                    raise ActionError(f"if {text!r} in {where} failed: {failure}")
                if failure:  # counts as false, and is an error besides (SCXML 5.9.1)
                    run.fail(f"if {text!r} in {where} failed: {failure}")
            for operation in block:
                operation(run)

        return branch_off


def _condition(
    text: str, function: Callable[..., Any] | None, expression: Expression | None
) -> Callable[[Macrostep], Any]:
    if function is not None:
        return lambda run: function(run.context, run.event)
    if expression is not None:
        return lambda run: expression.evaluate(run.context, run.event, run.configuration)
    return lambda run: False


def _compact(value: Json) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
