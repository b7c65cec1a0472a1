"""How a Python function is called with a step's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from statewright.engine.workflows.calls import StepCall
from statewright.engine.workflows.errors import InvalidParameters
from statewright.engine.workflows.functions import StepFunction

GIVEN = {"input": {"in": 1}, "previous": [1, 2], "results": {"a": 1}}


def called(function: Any, subject: str = "", **parameters: Any) -> Any:
    call = StepCall("e-1", "docs", "load", parameters=parameters, effect_id="e-1-1-0", attempt=2)
    return StepFunction("load", function).bind(call, given=GIVEN, subject=subject)()


class Page(msgspec.Struct):
    number: int
    text: str = ""


@dataclass
class Size:
    width: int


def test_parameters_are_passed_by_name() -> None:
    assert called(lambda path, limit=10: (path, limit), path="a.txt") == ("a.txt", 10)
    assert called(lambda **rest: rest, a=1, b=[2]) == {"a": 1, "b": [2]}
    assert called(lambda a, /, b: (a, b), a=1, b=2) == (1, 2)


def test_they_are_converted_to_what_the_signature_says() -> None:
    def load(path: Path, page: Page, sizes: list[Size], scale: float = 1.0) -> Any:
        return path, page, sizes, scale

    found = called(load, path="a/b.txt", page={"number": 3}, sizes=[{"width": 1}], scale=2)

    assert found == (Path("a/b.txt"), Page(3), [Size(1)], 2.0)


def test_what_does_not_fit_is_refused_all_at_once() -> None:
    def load(path: str, page: Page) -> None: ...

    with pytest.raises(InvalidParameters) as refused:
        called(load, page={"number": "three"}, pth="a")

    assert str(refused.value) == (
        "function 'load' takes path, page: parameter 'page': Expected `int`, got `str` - at `$.number`; "
        "parameter 'path' is missing; there is no parameter 'pth'"
    )


def test_what_it_asks_for_by_name_is_added() -> None:
    def asking(input: Any, previous: Any, results: Any) -> Any:  # noqa: A002
        return input, previous, results

    assert called(asking) == tuple(GIVEN.values())
    assert called(asking, input="mine")[0] == "mine"

    def annotated(about: StepCall, path: str) -> Any:
        return about.effect_id, about.attempt, path

    assert called(annotated, path="a") == ("e-1-1-0", 2, "a")
    assert called(lambda call: call.step) == "load"


def test_in_a_pipeline_the_first_parameter_without_a_value_is_the_data_of_the_step_before() -> None:
    assert called(lambda rows: rows, "previous") == [1, 2]
    assert called(lambda strict, rows: (strict, rows), "previous", strict=True) == (True, [1, 2])
    assert called(lambda rows=(): rows, "previous") == ()
    assert called(lambda parts: parts, "results") == {"a": 1}
    with pytest.raises(InvalidParameters, match="parameter 'other' is missing"):
        called(lambda rows, other: rows, "previous")


@pytest.mark.parametrize(
    ("function", "parameters", "subject", "asks"),
    [
        (lambda path: path, {"path": 1}, "previous", set()),
        (lambda rows: rows, {}, "previous", {"previous"}),
        (lambda rows: rows, {}, "", set()),
        (lambda call, previous: previous, {}, "results", {"previous"}),
        (lambda results: results, {}, "results", {"results"}),
    ],
)
def test_it_says_what_has_to_be_known(function: Any, parameters: Any, subject: str, asks: set[str]) -> None:
    assert StepFunction("f", function).asks(parameters, subject) == asks


def test_anything_that_can_be_called_by_name_will_do() -> None:
    class Loader:
        async def __call__(self, path: str) -> str:
            return path

        async def load(self, path: str) -> str:
            return path

    async def load(path: str, limit: int) -> str:
        return path

    assert StepFunction("f", Loader()).is_async
    assert StepFunction("f", Loader().load).is_async
    assert StepFunction("f", partial(load, limit=1)).is_async
    assert not StepFunction("f", Page).is_async
    assert called(Page, number=1) == Page(1)
