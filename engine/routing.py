"""Conditional routing: rules with CEL conditions decide where something goes, and say why. Pure, but for `load_router`.

    router = Router("mail", [Rule("big", "manual", "input.amount > 10000", priority=10)], default=Route("archive"))
    router.decide({"amount": 20000}).target          # "manual"

Conditions, confidences and the templates in parameters see one thing, `input`: what the router is given.

Invariants: rules are tried by priority, the highest first, those of the same priority as they were written; the first
that holds decides. The same input gives the same decision, which names every rule with its verdict. A rule whose
condition can't be evaluated on this input (a field is not there) does not hold, and its verdict says so. What is wrong
with a rule itself is refused when the router is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from statewright.engine.calls import PermanentError
from statewright.engine.errors import InvalidError
from statewright.engine.ids import check_id
from statewright.engine.workflows.parameters import resolved
from statewright.statecharts.documents import read_document
from statewright.statecharts.errors import ChartError
from statewright.statecharts.expressions import ExpressionError, Formula
from statewright.statecharts.facts import Json
from statewright.statecharts.workflows.parameters import Facts, Parameters, TemplateError

RULES_MAX = 10_000

Verdict = Literal["matched", "not_matched", "low_confidence", "error", "not_tried"]


class InvalidRouter(InvalidError):
    """A router was refused; the message names the rule and what is wrong with it."""


class NoRoute(PermanentError):
    """No rule holds, and there is no default. `decision` has no target and says what was tried."""

    def __init__(self, router: str, decision: Decision) -> None:
        self.decision = decision
        tried = ", ".join(f"{rule.rule}: {rule.verdict}" for rule in decision.rules) or "it has no rules"
        super().__init__(f"router '{router}' has no default, and no rule holds: {tried}")


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where something goes if no rule holds. `confidence` 0..1."""

    target: str
    parameters: Mapping[str, Json] = {}
    confidence: float = 0.0


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`condition` is CEL over `input`. `parameters` go with the decision; they may hold templates (`"${input.id}"`), as
    a step's do. `confidence` is how sure the decision is, 0..1, or CEL that says so (`"input.score"`)."""

    name: str
    target: str
    condition: str
    priority: int = 0
    parameters: Mapping[str, Json] = {}
    confidence: float | str = 1.0
    description: str = ""


class RuleVerdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a rule. `detail` says why, where the verdict alone doesn't."""

    rule: str
    priority: int
    verdict: Verdict
    detail: str = ""


class Decision(msgspec.Struct, frozen=True):
    """`rule` is the one that decided, "" for the default; `rules` are all, in the order in which they were tried."""

    router: str
    target: str
    parameters: Mapping[str, Json]
    reason: str
    rule: str
    confidence: float
    rules: tuple[RuleVerdict, ...]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    rules: list[Rule]
    default: Route | str | None = None
    confidence_min: float = 0.0
    description: str = ""


class _Compiled(NamedTuple):
    rule: Rule
    condition: Formula
    confidence: Formula | None
    parameters: Parameters


class Router:
    """Rules that decide. `default`: a `Route` or the name of its target. `confidence_min`: a rule that holds but is
    less sure than that does not decide.

    A router is a function of a step, too: `WorkflowStep("route", function=router, parameters={...})`. Its `input` is
    the step's parameters, or without any the execution's input; its decision is the step's result, so it is recorded,
    and conditions of other steps can ask for `steps.route.target`."""

    def __init__(
        self,
        name: str,
        rules: Iterable[Rule],
        *,
        default: Route | str | None = None,
        confidence_min: float = 0.0,
        description: str = "",
    ) -> None:
        """Raises `InvalidRouter`."""
        self.name = self.__name__ = check_id("a router's name", name)
        self.description = description
        self.confidence_min = _share(confidence_min, f"router '{name}': confidence_min")
        given = tuple(rules)
        if len(given) > RULES_MAX:
            raise InvalidRouter(f"router '{name}': expected at most {RULES_MAX:,} rules, got {len(given):,}")
        for rule in given:
            _check_types(rule, Rule, f"router '{name}'")
        if twice := [rule for rule, count in Counter(rule.name for rule in given).items() if count > 1]:
            raise InvalidRouter(f"router '{name}' has more than one rule called '{twice[0]}'")
        self.rules = tuple(sorted(given, key=lambda rule: -rule.priority))
        self._compiled = [_compiled(name, rule) for rule in self.rules]
        self.default = Route(default) if isinstance(default, str) else default
        if self.default is not None:
            _check_types(self.default, Route, f"router '{name}'")
            if not self.default.target:
                raise InvalidRouter(f"router '{name}': expected its default to have a target, got an empty one")
            _share(self.default.confidence, f"router '{name}': the default's confidence")
            self._default_parameters = _parameters(self.default.parameters, f"router '{name}', default")

    def decide(self, input: Json) -> Decision:  # noqa: A002 (what expressions call it)
        """Where `input` (JSON) goes. Raises `NoRoute` if no rule holds and there is no default, and
        `InvalidParameters` if the parameters of the rule that holds can't be computed."""
        verdicts: list[RuleVerdict] = []
        for number, compiled in enumerate(self._compiled):
            verdict, confidence = self._try(compiled, input)
            verdicts.append(verdict)
            if verdict.verdict != "matched":
                continue
            rule = compiled.rule
            verdicts += [RuleVerdict(rest.name, rest.priority, "not_tried") for rest in self.rules[number + 1 :]]
            reason = f"rule '{rule.name}' holds: {rule.description or rule.condition}"
            parameters = resolved(compiled.parameters, Facts(input=input))
            return Decision(self.name, rule.target, parameters, reason, rule.name, confidence, tuple(verdicts))
        if self.default is None:
            raise NoRoute(self.name, Decision(self.name, "", {}, "no rule holds", "", 0.0, tuple(verdicts)))
        parameters = resolved(self._default_parameters, Facts(input=input))
        route = self.default
        reason = "no rule holds: the default"
        return Decision(self.name, route.target, parameters, reason, "", route.confidence, tuple(verdicts))

    def __call__(self, input: Json = None, /, **parameters: Any) -> dict[str, Any]:  # noqa: A002
        """As a step's function: the decision as JSON."""
        return _as_json(self.decide(parameters or input))

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        document = _Document(self.name, [*self.rules], self.default, self.confidence_min, self.description)
        return _as_json(document)

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, Any]) -> Router:
        """From `{"name", "rules": [...], "default", "confidence_min", "description"}`. Raises `InvalidRouter`."""
        try:
            if isinstance(document, str | bytes):
                read = msgspec.json.decode(document, type=_Document)
            else:
                read = msgspec.convert(document, _Document)
        except msgspec.DecodeError as error:
            raise InvalidRouter(f"a router can't be read: {error}") from None
        return cls(
            read.name,
            read.rules,
            default=read.default,
            confidence_min=read.confidence_min,
            description=read.description,
        )

    def _try(self, compiled: _Compiled, given: Json) -> tuple[RuleVerdict, float]:
        rule = compiled.rule
        try:
            holds = compiled.condition.evaluate({"input": given})
            if not isinstance(holds, bool):
                raise ExpressionError(f"expected true or false, got {holds!r:.60}")
            if not holds:
                return RuleVerdict(rule.name, rule.priority, "not_matched"), 0.0
            confidence = self._confidence(compiled, given)
        except ExpressionError as error:
            return RuleVerdict(rule.name, rule.priority, "error", str(error)), 0.0
        if confidence < self.confidence_min:
            detail = f"{confidence:g} is below {self.confidence_min:g}"
            return RuleVerdict(rule.name, rule.priority, "low_confidence", detail), confidence
        return RuleVerdict(rule.name, rule.priority, "matched"), confidence

    def _confidence(self, compiled: _Compiled, given: Json) -> float:
        if compiled.confidence is None:
            return float(compiled.rule.confidence)
        value = compiled.confidence.evaluate({"input": given})
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ExpressionError(f"expected a confidence from 0 to 1, got {value!r:.60}")
        return float(value)


def load_router(path: str | Path) -> Router:
    """A router from a YAML or JSON file. Raises `InvalidRouter` with the place, `OSError`."""
    path = Path(path)
    try:
        tree, _ = read_document(path.read_bytes(), is_json=path.suffix == ".json")
        return Router.from_json(tree)
    except (ChartError, InvalidRouter) as error:
        raise InvalidRouter(f"{path}: {error}") from None


def _as_json(value: msgspec.Struct) -> dict[str, Any]:
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return written


def _check_types(given: Rule | Route, kind: type[Rule] | type[Route], place: str) -> None:
    """Refuse what isn't one of `kind`, or has a field that isn't what it is declared to be."""
    if not isinstance(given, kind):
        raise InvalidRouter(f"{place}: expected a {kind.__name__}, got {type(given).__name__}")
    place = f"{place}, rule '{given.name}'" if isinstance(given, Rule) else f"{place}, default"
    for field in msgspec.structs.fields(kind):
        try:
            msgspec.convert(getattr(given, field.name), field.type)
        except msgspec.ValidationError as error:
            raise InvalidRouter(f"{place}: {field.name}: {error}") from None


def _compiled(router: str, rule: Rule) -> _Compiled:
    place = f"router '{router}', rule '{rule.name}'"
    if not rule.name or not rule.target:
        raise InvalidRouter(f"{place}: expected a name and a target, got {rule.name!r} and {rule.target!r}")
    condition = _expression(rule.condition, f"{place}: condition", ("bool", "dyn"))
    confidence = None
    if isinstance(rule.confidence, str):
        confidence = _expression(rule.confidence, f"{place}: confidence", ("double", "int", "dyn"))
    else:
        _share(rule.confidence, f"{place}: confidence")
    return _Compiled(rule, condition, confidence, _parameters(rule.parameters, place))


def _expression(text: str, place: str, types: tuple[str, ...]) -> Formula:
    try:
        formula = Formula(text, ["input"])
    except ExpressionError as error:
        raise InvalidRouter(f"{place}: {text!r} is no CEL expression: {error}") from None
    if formula.type not in types:
        raise InvalidRouter(f"{place}: expected {types[0]}, but {text!r} is {formula.type}")
    return formula


def _parameters(written: Mapping[str, Json], place: str) -> Parameters:
    try:
        parameters = Parameters(written)
    except TemplateError as error:
        raise InvalidRouter(f"{place}: {error}") from None
    if others := parameters.uses - {"input"}:
        raise InvalidRouter(f"{place}: parameters may use input alone, got {', '.join(sorted(others))}")
    return parameters


def _share(value: float, place: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidRouter(f"{place}: expected a number from 0 to 1, got {value!r}")
    return value
