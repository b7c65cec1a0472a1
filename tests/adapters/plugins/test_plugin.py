"""What is read from a class, a module or an object, and what is refused."""

from __future__ import annotations

import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from statewright.adapters.plugins import InvalidPlugin, MethodNotFound, Plugin
from statewright.statecharts.errors import StatewrightError


class Base:
    def inherited(self) -> int:
        return 1

    def clean_up(self) -> None: ...


class Parser(Base):
    """Reads documents.

    More of it."""

    name = "document-parser"
    version = "1.4"
    dependencies = ("store >= 1, < 2",)
    optional_dependencies = ("ocr",)
    rmtree = shutil.rmtree
    limit = 10

    def initialise(self) -> None: ...

    def words(self, text: str, least: int = 1) -> int:
        return len(text.split()) + least

    @staticmethod
    def empty() -> None: ...

    @classmethod
    def kind(cls) -> str:
        return cls.__name__

    @property
    def secret(self) -> str:
        raise AssertionError("a property must not run")

    def _private(self) -> None: ...

    class Inner:
        def __call__(self) -> None: ...


def module(name: str, source: str) -> types.ModuleType:
    made = types.ModuleType(name)
    exec(source, made.__dict__)
    return made


def test_a_class_is_read() -> None:
    plugin = Plugin(Parser)
    assert (plugin.name, str(plugin.version), plugin.description) == ("document-parser", "1.4", "Reads documents.")
    assert [(need.text, need.optional) for need in plugin.dependencies] == [("store >= 1, < 2", False), ("ocr", True)]
    assert plugin.origin == f"{__name__}.Parser"


def test_only_public_functions_of_its_own_can_be_called() -> None:
    assert {name: method.signature for name, method in Plugin(Parser).methods.items()} == {
        "words": "words(text: str, least: int = 1) -> int",
        "empty": "empty() -> None",
        "kind": "kind() -> str",
    }


@pytest.mark.parametrize("name", ["initialise", "clean_up", "_private", "__init__", "rmtree", "secret", "Inner", ""])
def test_nothing_else_can_be_called(name: str) -> None:
    with pytest.raises(MethodNotFound, match=r"'document-parser' 1\.4 has no method .*; it has words\(text: str"):
        Plugin(Parser).method(name)


def test_methods_lists_what_can_be_called_inherited_ones_too() -> None:
    class Listed(Parser):
        methods = ("inherited", "words")

    assert list(Plugin(Listed).methods) == ["inherited", "words"]


def test_a_module_is_read() -> None:
    source = """
from shutil import rmtree
from textwrap import dedent
name = "texts"
version = "0.3"
def upper(text: str) -> str:
    return text.upper()
def activate() -> None: ...
def _helper() -> None: ...
"""
    plugin = Plugin(module("acme_texts", source))
    assert (plugin.name, list(plugin.methods)) == ("texts", ["upper"])


def test_an_object_is_a_plugin_with_its_settings() -> None:
    class Greeter:
        version = "1"

        def __init__(self, name: str) -> None:
            self.name = name

        def greet(self) -> str:
            return self.name

    made = Greeter("hello")
    assert Plugin(made).make() is made
    assert Plugin(made).name == "hello"


def a_plugin(**attributes: Any) -> type:
    return type("Made", (), {"name": "made", "version": "1", "__module__": __name__, **attributes})


def takes_one(self: Any, one: int) -> None: ...


def positional(self: Any, one: int, /) -> None: ...


def many(self: Any, *all_of_them: int) -> None: ...


def unreadable(self: Any, where: Path) -> None: ...


def unreadable_deep(self: Any, where: dict[str, list[Path]]) -> None: ...


def unwritable(self: Any) -> Callable[[], None]: ...  # type: ignore[empty-body]


def unresolved(self: Any, what: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def yields(self: Any) -> Iterator[int]:
    yield 1


def no_self() -> None: ...


BAD: list[tuple[Any, str]] = [
    ("greeter", r"expected a plugin \(a class, a module or an object of a class\), got 'greeter'"),
    (takes_one, "expected a plugin"),
    (a_plugin(name=""), "expected a name of 1 to 128 letters, digits, '-' and '_', got 'no name'"),
    (a_plugin(name="a.b"), r"got 'a\.b'"),
    (a_plugin(name=7), "got 7"),
    (a_plugin(version=""), "plugin 'made' .*: expected a version such as '1.2.0', got 'no version'"),
    (a_plugin(version="one"), "got 'one'"),
    (a_plugin(version=1.2), r"got 1\.2"),
    (a_plugin(dependencies="store"), "expected dependencies to be a list of strings, got 'store'"),
    (a_plugin(dependencies=["store >= one"]), r"dependencies\[0\]: expected a dependency such as .*'store >= one'"),
    (a_plugin(dependencies=["a", 1]), r"dependencies\[1\]: expected a dependency such as .* got 1"),
    (a_plugin(dependencies=["a[x]"]), "only a name and versions are understood"),
    (a_plugin(dependencies=["a; python_version > '3'"]), "only a name and versions are understood"),
    (a_plugin(dependencies=["Made"]), "a plugin can't depend on itself"),
    (a_plugin(dependencies=["a_b"], optional_dependencies=["a-b > 1"]), r"optional_dependencies\[0\]: .* is there"),
    (a_plugin(methods="words"), "expected methods to be a list of names"),
    (a_plugin(methods=["_x"]), "'_x' is not for steps to call"),
    (a_plugin(methods=["activate"], activate=lambda self: None), "'activate' is not for steps to call"),
    (a_plugin(methods=["words"]), "there is no function 'words' of its own"),
    (a_plugin(methods=["rmtree"], rmtree=shutil.rmtree), "there is no function 'rmtree' of its own"),
    (a_plugin(initialize=no_self), "'initialize' is called 'initialise' here"),
    (a_plugin(activate=takes_one), "expected activate to take no parameters, it takes 1"),
    (a_plugin(activate=7), "expected activate to be a function of its own"),
    (a_plugin(__init__=takes_one), "can be called without arguments, it needs one"),
    (a_plugin(words=positional), "method 'words': expected parameters that can be given by name, got 'one: int'"),
    (a_plugin(words=many), r"got '\*all_of_them: int'"),
    (a_plugin(words=unreadable), "parameter 'where': expected a type that JSON can be read as, got pathlib.Path"),
    (a_plugin(words=unreadable_deep), "parameter 'where': expected a type that JSON can be read as, got dict"),
    (a_plugin(words=unwritable), "its result: expected a type that JSON can be read as"),
    (a_plugin(words=unresolved), "an annotation can't be resolved: name 'Missing' is not defined"),
    (a_plugin(words=yields), "got one that yields"),
    (a_plugin(words=no_self), "expected self as its first parameter"),
]


@pytest.mark.parametrize(("source", "says"), BAD, ids=[says[:40] for _, says in BAD])
def test_what_is_no_plugin_is_refused_with_the_place(source: Any, says: str) -> None:
    with pytest.raises(InvalidPlugin, match=says) as caught:
        Plugin(source)
    assert isinstance(caught.value, StatewrightError)
