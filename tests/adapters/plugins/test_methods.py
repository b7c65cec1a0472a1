"""Calling a method by name: what reaches it, what is refused, what may come back."""

from __future__ import annotations

import asyncio
import datetime
import math
import threading
from typing import Annotated, Any, Literal

import msgspec
import pytest

from statewright.adapters.plugins import InvalidParameters, InvalidResult, MethodNotFound, PluginNotFound, Plugins
from statewright.engine.calls import PermanentError
from statewright.engine.errors import TooLargeError
from statewright.engine.requests import PAYLOAD_BYTES_MAX
from statewright.engine.workflows.calls import StepCall


class Page(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    text: str = ""


class Tools:
    """A plugin with a method for each case."""

    name = "tools"
    version = "1"

    def add(self, a: int, b: float = 0.5) -> float:
        return a + b

    def pages(self, pages: list[Page], mode: Literal["all", "first"] = "all") -> list[Page]:
        return pages if mode == "all" else pages[:1]

    def day(self, at: datetime.datetime, counts: dict[int, int] | None = None) -> Any:
        return [at.tzinfo is not None, type(next(iter(counts or {}), None)).__name__]

    def least(self, n: Annotated[int, msgspec.Meta(ge=1)]) -> int:
        return n

    def loose(self, anything, *, least: int = 0, **more: int):  # type: ignore[no-untyped-def]
        return [anything, least, more]

    async def context(self, call: StepCall, subject: str) -> dict[str, Any]:
        return {"effect": call.effect_id, "attempt": call.attempt, "deadline": call.deadline_ns, "subject": subject}

    def where(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    async def where_async(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    def later(self) -> Any:
        return asyncio.sleep(0, "handed on")

    def lies(self) -> int:
        return "seven"  # type: ignore[return-value]

    def opaque(self) -> Any:
        return object()

    def huge(self) -> str:
        return "x" * (PAYLOAD_BYTES_MAX + 1)

    def fails(self) -> None:
        raise LookupError("no such page")

    def number(self, which: str) -> Any:
        return {"nan": math.nan, "set": {1}, "bytes": b"hi", "page": Page(3)}[which]


@pytest.mark.parametrize(
    ("method", "parameters", "result"),
    [
        ("add", {"a": 1}, 1.5),
        ("add", {"a": 1, "b": 2}, 3.0),
        (
            "pages",
            {"pages": [{"number": 1}, {"number": 2, "text": "x"}]},
            [{"number": 1, "text": ""}, {"number": 2, "text": "x"}],
        ),
        ("pages", {"pages": [{"number": 1}], "mode": "first"}, [{"number": 1, "text": ""}]),
        ("day", {"at": "2030-01-31T12:00:00Z", "counts": {"7": 1}}, [True, "int"]),
        ("day", {"at": "2030-01-31T12:00:00Z", "counts": None}, [True, "NoneType"]),
        ("loose", {"anything": {"a": [1]}, "x": 1, "y": 2}, [{"a": [1]}, 0, {"x": 1, "y": 2}]),
        ("where", {}, False),
        ("where_async", {}, True),
        ("later", {}, "handed on"),
        ("number", {"which": "set"}, [1]),
        ("number", {"which": "page"}, {"number": 3, "text": ""}),
        ("number", {"which": "bytes"}, "aGk="),
    ],
)
async def test_a_method_gets_its_types_and_gives_json(method: str, parameters: dict[str, Any], result: Any) -> None:
    async with Plugins([Tools]) as plugins:
        assert await plugins.invoke("tools", method, parameters) == result


@pytest.mark.parametrize(
    ("method", "parameters", "says"),
    [
        ("add", {}, "tools.add(a: int, b: float = 0.5) -> float: parameter 'a' is missing"),
        ("add", [1], "expected parameters by name, got list"),
        ("add", {"a": "1"}, "parameter 'a': Expected `int`, got `str`"),
        ("add", {"a": 1.5}, "parameter 'a': Expected `int`, got `float`"),
        ("add", {"a": True}, "parameter 'a': Expected `int`, got `bool`"),
        ("add", {"a": None}, "parameter 'a': Expected `int`, got `null`"),
        (
            "add",
            {"b": "x", "c": 1},
            "'a' is missing; parameter 'b': Expected `float`, got `str`; there is no parameter 'c'",
        ),
        ("add", {"a": 1, "self": 2}, "there is no parameter 'self'"),
        ("pages", {"pages": [{"number": "1"}]}, "parameter 'pages': Expected `int`, got `str` - at `$[0].number`"),
        ("pages", {"pages": [{"nummer": 1}]}, "Object contains unknown field `nummer` - at `$[0]`"),
        ("pages", {"pages": [], "mode": "last"}, "parameter 'mode': Invalid enum value 'last'"),
        ("day", {"at": "tomorrow"}, "parameter 'at': Invalid RFC3339 encoded datetime"),
        ("least", {"n": 0}, "parameter 'n': Expected `int` >= 1"),
        ("loose", {"anything": 1, "x": "y"}, "parameter 'x': Expected `int`, got `str`"),
        ("context", {"subject": "x", "call": {}}, "there is no parameter 'call'"),
    ],
)
async def test_parameters_that_do_not_fit_are_named_with_the_signature(
    method: str, parameters: dict[str, Any], says: str
) -> None:
    async with Plugins([Tools]) as plugins:
        with pytest.raises(InvalidParameters) as caught:
            await plugins.invoke("tools", method, parameters)
        assert says in str(caught.value)
        assert f"tools.{method}(" in str(caught.value)
        assert isinstance(caught.value, PermanentError)


@pytest.mark.parametrize(
    ("method", "error", "says"),
    [
        ("lies", InvalidResult, "the result of tools.lies() -> int is not what it says: Expected `int`, got `str`"),
        ("opaque", InvalidResult, "to be JSON, got object"),
        ("huge", TooLargeError, "of at most 1,048,576 bytes as JSON, got 1,048,579"),
        ("fails", LookupError, "no such page"),
        ("nothing", MethodNotFound, "has no method 'nothing'; it has add(a: int"),
    ],
)
async def test_what_a_method_may_not_return_and_what_it_raises(method: str, error: type[Exception], says: str) -> None:
    async with Plugins([Tools]) as plugins:
        with pytest.raises(error, match=None) as caught:
            await plugins.invoke("tools", method)
        assert says in str(caught.value)


async def test_a_method_that_asks_for_the_call_gets_it() -> None:
    call = StepCall(
        "x-1", "docs", "load", plugin="tools", method="context", parameters={"subject": "s"}, effect_id="x-1-2-0",
        attempt=3, deadline_ns=12,
    )  # fmt: skip
    async with Plugins([Tools]) as plugins:
        assert await plugins.call(call) == {"effect": "x-1-2-0", "attempt": 3, "deadline": 12, "subject": "s"}
        assert plugins.find("tools", "context").signature == "context(subject: str) -> dict[str, typing.Any]"


async def test_a_plugin_that_is_not_there_is_named_with_those_that_are() -> None:
    async with Plugins([Tools]) as plugins:
        with pytest.raises(PluginNotFound, match=r"expected a registered plugin \(tools\), got 'tolls'"):
            await plugins.invoke("tolls", "add", {})
        assert isinstance(PluginNotFound(""), PermanentError)
