"""Routers: rules that decide, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statewright.engine import PermanentError
from statewright.engine.routing import Decision, InvalidRouter, NoRoute, Route, Router, Rule, RuleVerdict, load_router
from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters
from statewright.engine.workflows.functions import StepFunction

BIG = Rule("big", "manual", "input.amount > 10000", priority=10, parameters={"id": "${input.id}", "urgent": True})
INVOICE = Rule("invoice", "invoices", "input.kind == 'invoice'", confidence="input.score", description="is an invoice")
ANY = Rule("any", "archive", "has(input.kind)", confidence=0.3)
MAIL = Router("mail", [ANY, INVOICE, BIG], default=Route("unsorted", {"from": "${input.sender}"}, 0.1))


def test_the_first_rule_that_holds_decides_by_priority() -> None:
    decision = MAIL.decide({"id": 7, "amount": 20_000, "kind": "invoice", "score": 0.9})
    assert decision == Decision(
        router="mail",
        target="manual",
        parameters={"id": 7, "urgent": True},
        reason="rule 'big' holds: input.amount > 10000",
        rule="big",
        confidence=1.0,
        rules=(
            RuleVerdict("big", 10, "matched"),
            RuleVerdict("any", 0, "not_tried"),
            RuleVerdict("invoice", 0, "not_tried"),
        ),
    )


def test_rules_of_one_priority_are_tried_as_written() -> None:
    given = {"amount": 1, "kind": "invoice", "score": 0.8}
    assert MAIL.decide(given).rule == "any"
    other = Router("mail", [INVOICE, ANY, BIG]).decide(given)
    assert (other.rule, other.confidence, other.reason) == ("invoice", 0.8, "rule 'invoice' holds: is an invoice")


def test_the_default_is_taken_when_no_rule_holds() -> None:
    decision = MAIL.decide({"amount": 5, "sender": "ann"})
    assert (decision.target, decision.rule, decision.parameters) == ("unsorted", "", {"from": "ann"})
    assert (decision.reason, decision.confidence) == ("no rule holds: the default", 0.1)
    assert [rule.verdict for rule in decision.rules] == ["not_matched", "not_matched", "error"]
    assert decision.rules[2].detail == 'Key not found in map : "kind"'


def test_a_rule_that_is_not_sure_enough_does_not_decide() -> None:
    router = Router("mail", [INVOICE], default="manual", confidence_min=0.6)
    sure = router.decide({"kind": "invoice", "score": 0.6})
    unsure = router.decide({"kind": "invoice", "score": 0.5})
    assert (sure.target, unsure.target) == ("invoices", "manual")
    assert unsure.rules == (RuleVerdict("invoice", 0, "low_confidence", "0.5 is below 0.6"),)


@pytest.mark.parametrize(
    ("rule", "given", "detail"),
    [
        (Rule("r", "t", "input.kind"), {"kind": "x"}, "expected true or false, got 'x'"),
        (Rule("r", "t", "input.kind == 'x'"), None, "Applying SELECT to non-message type"),
        (Rule("r", "t", "true", confidence="input.score"), {"score": 2}, "expected a confidence from 0 to 1, got 2"),
        (Rule("r", "t", "true", confidence="input.score"), {"score": True}, "expected a confidence from 0 to 1"),
        (Rule("r", "t", "input[0] > 1"), [], "Index error: index=0 size=0"),
    ],
)
def test_what_can_not_be_evaluated_does_not_hold(rule: Rule, given: Any, detail: str) -> None:
    decision = Router("r", [rule], default="else").decide(given)
    assert decision.target == "else"
    assert decision.rules[0].verdict == "error"
    assert detail in decision.rules[0].detail


def test_without_a_default_nothing_may_be_left_over() -> None:
    with pytest.raises(NoRoute, match=r"router 'r' has no default, and no rule holds: big: not_matched") as left:
        Router("r", [BIG]).decide({"amount": 1})
    assert isinstance(left.value, PermanentError), "trying again can't help"
    assert left.value.decision.rules == (RuleVerdict("big", 10, "not_matched"),)
    with pytest.raises(NoRoute, match="it has no rules"):
        Router("r", []).decide({})


def test_parameters_that_can_not_be_computed_are_an_error() -> None:
    with pytest.raises(InvalidParameters, match=r"parameters\.id: \$\{input\.id\}: input has no 'id'"):
        MAIL.decide({"amount": 20_000})


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        (
            [Rule("a", "t", "input.")],
            {},
            "rule 'a': condition: 'input.' is no CEL expression: Syntax error",
        ),
        ([Rule("a", "t", "amount > 1")], {}, "undeclared reference to 'amount' (column 1); it may use input"),
        ([Rule("a", "t", "1 + 1")], {}, "router 'r', rule 'a': condition: expected bool, but '1 + 1' is int"),
        ([Rule("a", "t", "true", confidence="'x'")], {}, "rule 'a': confidence: expected double, but"),
        ([Rule("a", "t", "true", confidence=1.5)], {}, "rule 'a': confidence: expected a number from 0 to 1, got 1.5"),
        ([Rule("a", "", "true")], {}, "rule 'a': expected a name and a target, got 'a' and ''"),
        ([Rule("a", "t", "true", parameters={"x": "${steps.b}"})], {}, "parameters may use input alone, got steps"),
        ([Rule("a", "t", "true", parameters={"x": "${input"})], {}, "router 'r', rule 'a': parameters.x"),
        ([Rule("a", "t", "true"), Rule("a", "u", "true")], {}, "router 'r' has more than one rule called 'a'"),
        ([Rule("a", "t", "true", confidence=None)], {}, "rule 'a': confidence: Expected `float | str`, got `null`"),  # type: ignore[arg-type]
        ([Rule("a", 5, "true")], {}, "rule 'a': target: Expected `str`, got `int`"),  # type: ignore[arg-type]
        ([Rule("a", "t", "true", parameters=[1])], {}, "rule 'a': parameters: Expected `object`, got `array`"),  # type: ignore[arg-type]
        ([{"name": "a"}], {}, "router 'r': expected a Rule, got dict"),
        ([], {"default": 5}, "router 'r': expected a Route, got int"),
        ([], {"confidence_min": "1"}, "router 'r': confidence_min: expected a number from 0 to 1, got '1'"),
        ([], {"default": ""}, "router 'r': expected its default to have a target"),
        ([], {"confidence_min": -1}, "router 'r': confidence_min: expected a number from 0 to 1, got -1"),
        ([], {"default": Route("t", {}, 7)}, "the default's confidence: expected a number from 0 to 1, got 7"),
    ],
)
def test_a_bad_router_is_refused_with_the_place(rules: list[Rule], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRouter) as refused:
        Router("r", rules, **options)
    assert message in str(refused.value)


def test_a_router_is_data() -> None:
    again = Router.from_json(msgspec.json.encode(MAIL.to_json()))
    for mail in ({"amount": 20_000, "id": 1}, {"amount": 1, "kind": "x"}, {"amount": 1, "sender": "ann"}):
        assert again.decide(mail) == MAIL.decide(mail)
    assert again.to_json() == MAIL.to_json()


def test_a_router_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mail.yaml"
    file.write_text(
        "name: mail\n"
        "default: unsorted\n"
        "rules:\n"
        "  - {name: big, target: manual, condition: input.amount > 10, priority: 1}\n"
    )
    assert load_router(file).decide({"amount": 11}).target == "manual"
    assert load_router(file).decide({"amount": 10}).target == "unsorted"
    file.write_text("name: mail\nrules:\n  - {name: big, goto: manual}\n")
    with pytest.raises(InvalidRouter, match=r"mail\.yaml: a router can't be read: .*`\$\.rules\[0\]`"):
        load_router(file)
    with pytest.raises(InvalidRouter, match="router 'mail', rule 'big': priority: Expected `int`, got `str`"):
        Router("mail", [Rule("big", "manual", "true", priority="1")])  # type: ignore[arg-type]
    file.write_text("name: [mail\n")
    with pytest.raises(InvalidRouter, match=r"mail\.yaml: .*line 2"):
        load_router(file)


def routed(parameters: dict[str, Any], given: Any) -> Any:
    """As a performer of steps calls it."""
    call = StepCall(execution_id="x-1", workflow="w", step="route", parameters=parameters)
    return StepFunction("mail", MAIL).bind(call, given={"input": given}, subject="")()


def test_a_router_is_a_function_of_a_step() -> None:
    decided = routed({"amount": 20_000, "id": 7}, {"amount": 1})
    assert (decided["target"], decided["parameters"]) == ("manual", {"id": 7, "urgent": True})
    assert decided["rules"][0] == {"rule": "big", "priority": 10, "verdict": "matched"}
    assert routed({}, {"amount": 30_000, "id": 8})["parameters"]["id"] == 8, "without parameters the execution's input"
    assert routed({"input": {"amount": 30_000, "id": 9}}, None)["parameters"]["id"] == 9


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)  # A busy machine says nothing about routers.
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5)), max_size=8),
    st.integers(0, 5),
)
def test_the_decision_is_that_of_the_highest_rule_that_holds(rules: list[tuple[int, int]], number: int) -> None:
    """The same as reading the rules from top to bottom."""
    written = [
        Rule(f"r{index}", f"t{index}", f"input == {value}", priority) for index, (priority, value) in enumerate(rules)
    ]
    holding = [index for index, (_, value) in enumerate(rules) if value == number]
    expected = min(holding, key=lambda index: (-rules[index][0], index), default=None)
    decision = Router("r", written, default="else").decide(number)
    assert decision.target == ("else" if expected is None else f"t{expected}")
    assert len(decision.rules) == len(rules)
