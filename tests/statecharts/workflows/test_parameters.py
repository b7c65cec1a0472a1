"""Templates in a step's parameters: what they give, and what is said about those that give nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statewright.statecharts.workflows.parameters import Facts, NoData, Parameters, TemplateError

FACTS = Facts(
    input={"id": 7, "name": "ann", "deep": {"list": [1, {"x": 2.5}]}, "nothing": None},
    steps={"load": {"rows": [1, 2], "big": 2**60}, "load-all": {"x": 1}},
    previous={"out": True},
    results={"a": 1, "b": 2},
    absent={"images": "skipped"},
)


def resolved(value: Any) -> Any:
    return Parameters({"p": value}).resolve(FACTS)["p"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("plain", "plain"),
        (5, 5),
        (None, None),
        ("${steps.load.rows}", [1, 2]),
        ("${ steps.load.rows[1] }", 2),
        ("${steps.load.big}", 2**60),
        ('${steps["load-all"].x}', 1),
        ("${steps['load-all'].x + 1}", 2),
        ("${input}", FACTS.input),
        ("${input.nothing}", None),
        ("${input.deep.list[1].x}", 2.5),
        ("${previous.out}", True),
        ("${results}", {"a": 1, "b": 2}),
        ("r-${input.id}-${input.name}.txt", "r-7-ann.txt"),
        ("rows: ${steps.load.rows}, ${previous.out}, ${input.nothing}", "rows: [1,2], true, null"),
        ("$${input.id} is ${input.id}", "${input.id} is 7"),
        ("$${only}", "${only}"),
        ("costs $5 {really}", "costs $5 {really}"),
        ("${size(steps.load.rows) > 1 ? 'yes}' : \"no{\"}", "yes}"),
        ("${ {'a': input.id}.a }", 7),
        ({"cel": "steps.load.rows.map(n, n * 2)"}, [2, 4]),
        ({"cel": "has(steps.images) ? 1 : 2"}, 2),
        ({"cel": "1", "other": 2}, {"cel": "1", "other": 2}),
        ({"a": ["${results.a}", {"b": "${results.b}"}]}, {"a": [1, {"b": 2}]}),
        ("${'steps.nobody'}", "steps.nobody"),
    ],
)
def test_a_template_gives(written: Any, value: Any) -> None:
    assert resolved(written) == value


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${input.nope}", "parameters.p: ${input.nope}: input has no 'nope'; it has deep, id, name, nothing"),
        ("${input.deep.list[4]}", "input.deep.list has no 4; it is a list of 2"),
        ("${input.name.first}", "input.name has no 'first'; it is \"ann\""),
        ("${previous.a.b}", "previous has no 'a'; it has out"),
        ("${input.id + 'x'}", "parameters.p: \"input.id + 'x'\" can't be evaluated"),
    ],
)
def test_what_is_not_there_is_said_when_it_is_resolved(written: Any, said: str) -> None:
    with pytest.raises(TemplateError) as refused:
        resolved(written)
    assert said in str(refused.value)


@pytest.mark.parametrize("written", ["${steps.images.url}", "${size(steps.images.url)}", "${steps.images}"])
def test_a_step_without_data_is_a_dependency_that_is_not_satisfied(written: str) -> None:
    with pytest.raises(NoData) as refused:
        resolved(written)
    assert "step 'images' has no data, it is skipped" in str(refused.value)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${", "'${' at column 1 of '${' has no '}'"),
        ("a ${input.x", "at column 3"),
        ("${}", "expected an expression, got ''"),
        ("${inptu.id}", "undeclared reference to 'inptu"),
        ("${steps[input.name]}", "expected each step by its id, as in steps.load, got 'steps[input.name]'"),
        ("${size(steps)}", "expected each step by its id"),
        ({"cel": "1 +"}, "'1 +' is no CEL expression"),
    ],
)
def test_what_can_never_be_resolved_is_refused_at_once(written: Any, said: str) -> None:
    with pytest.raises(TemplateError) as refused:
        Parameters({"outer": [written]})
    assert said in str(refused.value)
    assert "parameters.outer[0]" in str(refused.value)


def test_they_say_whose_data_they_need() -> None:
    parameters = Parameters(
        {"a": "${steps.load.rows}", "b": [{"cel": "steps['load-all'].x + input.id"}], "c": "steps.x"}
    )

    assert parameters.steps == {"load", "load-all"}
    assert parameters.uses == {"steps", "input"}


property_test = settings(suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@property_test
@given(JSON)
def test_a_path_alone_gives_the_very_value(value: Any) -> None:
    facts = Facts(input={"v": value}, steps={"s": value})

    assert Parameters({"p": "${input.v}", "q": "${steps.s}"}).resolve(facts) == {"p": value, "q": value}


@property_test
@given(JSON)
def test_what_is_data_is_never_taken_for_a_template(value: Any) -> None:
    facts = Facts(input={"v": value})
    text = Parameters({"p": "<${input.v}>"}).resolve(facts)["p"]

    assert text == f"<{value}>" if isinstance(value, str) else text.startswith("<")
