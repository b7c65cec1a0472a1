"""What a command line names in Python: charts and handlers, by file or by module.

Handlers, and the functions that steps of workflows name, are given as `module:attribute` or `file.py:attribute`. The
attribute is either a mapping from effect names to functions, or a function that takes the engine and registers them:

    HANDLERS = {"notify": notify, "archive": archive}     # async def notify(call: EffectCall) -> result

    def register(engine: Engine) -> None:
        engine.handler("notify")(notify)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from statewright.engine.errors import InvalidError, NotFoundError
from statewright.statecharts import Chart, load_chart
from statewright.statecharts.chart import load_attribute
from statewright.statecharts.errors import ChartNotFound, StatewrightError

if TYPE_CHECKING:
    from statewright.engine import Engine


def load(source: str) -> Chart:
    """The chart that `source` names (see `load_chart`); modules are looked for in the working directory first."""
    _look_here_first()
    with _running(source):
        return load_chart(source)


def load_handlers(source: str) -> Callable[[Engine], None]:
    """A function that registers the handlers that `source` names. Raises `InvalidError`, `NotFoundError`."""
    found = _load_named(source)
    if isinstance(found, Mapping):
        return lambda engine: _register(engine, found)
    return lambda engine: _let_register(source, found, engine)


def load_functions(source: str) -> Mapping[str, Callable[..., Any]]:
    """The functions that steps of workflows may name: those of a mapping. Raises as `load_handlers`."""
    found = _load_named(source)
    return found if isinstance(found, Mapping) else {}


def _load_named(source: str) -> Any:
    """A mapping of names to functions, or a function."""
    _look_here_first()
    if ":" not in source:
        raise InvalidError(f"expected --handlers module:attribute or file.py:attribute, got {source!r}")
    try:
        with _running(source):
            found = load_attribute(source)
    except ChartNotFound as error:
        raise NotFoundError(f"no handlers{str(error).removeprefix('no chart')}") from error
    if isinstance(found, Mapping):
        _check_names(source, found)
    elif not callable(found):
        raise InvalidError(f"expected a mapping or a function at {source!r}, got {type(found).__name__}")
    return found


def _check_names(source: str, handlers: Mapping[Any, Any]) -> None:
    for name, function in handlers.items():
        if not isinstance(name, str) or not callable(function):
            raise InvalidError(f"expected names and functions in {source!r}, got {name!r}: {type(function).__name__}")


def _register(engine: Engine, handlers: Mapping[str, Any]) -> None:
    for name, function in handlers.items():
        engine.handler(name)(function)


def _let_register(source: str, register: Callable[[Engine], Any], engine: Engine) -> None:
    with _running(source):
        result = register(engine)
    if iscoroutine(result):
        result.close()
        raise InvalidError(f"expected a function at {source!r} that registers handlers with an engine, got a coroutine")


@contextmanager
def _running(source: str) -> Iterator[None]:
    """What the user's file does is the file's fault, be it to end the process. Raises `InvalidError`."""
    try:
        yield
    except StatewrightError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidError(f"{source!r} can't be loaded: {type(error).__name__}: {error}") from error


def _look_here_first() -> None:
    """As `python -m` does: a console script has its own folder there instead."""
    if "" not in sys.path:
        sys.path.insert(0, "")
