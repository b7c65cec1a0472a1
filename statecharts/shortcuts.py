"""The plainest CEL expressions, answered without CEL: an evaluation there takes 4 to 9 us, here less than one.

Covered are literals, paths (`event.data.by`), `has()` and `size()` of paths, comparisons, `!`, `&&`, `||`, `? :`, and
`+`, `-`, `*`. Texts are compiled here only after CEL has compiled and type-checked them.

Law: what a shortcut answers is what CEL answers. It answers nothing (`UNKNOWN`) where it is not sure: a key that is
not there, null, containers, types that differ, an integer that overflows, a text with a NUL (where it ends, for CEL).
Then CEL is asked, and its message is shown.
(One thing only is let pass: data that CEL can't take, as an integer of more than 64 bits is, where it isn't asked for.)
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from statewright.statecharts.definition import Json
from statewright.statecharts.facts import Event

Shortcut = Callable[[Mapping[str, Json], Event], Any]
"""(context, event) -> what CEL would answer, or `UNKNOWN`."""

UNKNOWN = object()
CHARS_MAX = 300
"""Longer texts are left to CEL, so that none nests too deep for the parser."""
INT_MAX = 2**63 - 1

_TOKENS = re.compile(
    r"""\s*(?: (?P<number>\d+(?:\.\d+)?(?![\w.])) | (?P<text>"[^"\\\n]*"|'[^'\\\n]*') | (?P<name>[A-Za-z_]\w*)
    | (?P<mark>&&|\|\||==|!=|<=|>=|[-<>+*!?:().]) )""",
    re.ASCII | re.VERBOSE,
)
_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SUMS: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub}
_PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {"*": operator.mul}
_LITERALS = {"true": True, "false": False}
_EQUATED = frozenset({str, bool, int, float})
_ORDERED = frozenset({str, int, float})


def shortcut(text: str) -> Shortcut | None:
    """What answers `text`, a valid CEL expression, without CEL; None if it isn't plain enough."""
    if len(text) > CHARS_MAX:
        return None
    try:
        return _Parser(text).whole()
    except _NotPlainError:
        return None


class _NotPlainError(Exception):
    """CEL's grammar has more than this one."""


class _Parser:
    """Recursive descent over CEL's grammar, as far as it is plain: one method for each level of precedence."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._kind, self._token = next(self._tokens)

    def whole(self) -> Shortcut:
        found = self._choice()
        if self._kind != "end":
            self._give_up()
        return found

    def _choice(self) -> Shortcut:
        condition = self._either()
        if not self._accept("?"):
            return condition
        then = self._either()
        self._expect(":")
        return _choice(condition, then, self._choice())

    def _either(self) -> Shortcut:
        found = self._both()
        while self._accept("||"):
            found = _junction(found, self._both(), decisive=True)
        return found

    def _both(self) -> Shortcut:
        found = self._relation()
        while self._accept("&&"):
            found = _junction(found, self._relation(), decisive=False)
        return found

    def _relation(self) -> Shortcut:
        found = self._sum()
        while self._token in _RELATIONS and self._kind == "mark":
            sign = self._next()
            kinds = _EQUATED if sign in ("==", "!=") else _ORDERED
            found = _relation(_RELATIONS[sign], kinds, found, self._sum())
        return found

    def _sum(self) -> Shortcut:
        found = self._product()
        while self._token in _SUMS and self._kind == "mark":
            sign = self._next()
            found = _arithmetic(_SUMS[sign], found, self._product(), texts=sign == "+")
        return found

    def _product(self) -> Shortcut:
        found = self._unary()
        while self._token in _PRODUCTS and self._kind == "mark":
            found = _arithmetic(_PRODUCTS[self._next()], found, self._unary(), texts=False)
        return found

    def _unary(self) -> Shortcut:
        if self._accept("!"):
            return _negation(self._unary())
        if self._accept("-"):
            if self._kind != "number":
                self._give_up()
            return _literal(-_number(self._next()))
        return self._primary()

    def _primary(self) -> Shortcut:
        kind, token = self._kind, self._next()
        if token == "(" and kind == "mark":
            found = self._choice()
            self._expect(")")
        elif kind == "number":
            found = _literal(_number(token))
        elif kind == "text":
            found = _literal(token[1:-1])
        elif kind != "name":
            self._give_up()
        elif token in _LITERALS:
            found = _literal(_LITERALS[token])
        elif token in ("has", "size"):
            self._expect("(")
            found = (_has if token == "has" else _size)(self._path(self._next()))
            self._expect(")")
        else:
            found = _scalar(_follow(self._path(token)))
        if self._token == ".":  # a method, or a field of what is in brackets
            self._give_up()
        return found

    def _path(self, name: str) -> tuple[str, ...]:
        path = [name]
        while self._accept("."):
            if self._kind != "name":
                self._give_up()
            path.append(self._next())
        known = {"context": len(path) > 1, "event": path[1:2] == ["data"] and len(path) > 2}
        if path != ["event", "name"] and not known.get(name, False):
            self._give_up()
        return tuple(path)

    def _next(self) -> str:
        token = self._token
        self._kind, self._token = next(self._tokens)
        return token

    def _accept(self, mark: str) -> bool:
        if self._kind != "mark" or self._token != mark:
            return False
        self._next()
        return True

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            self._give_up()

    def _give_up(self) -> NoReturn:
        raise _NotPlainError(self._token)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    text = text.rstrip()
    place = 0
    while place < len(text):
        match = _TOKENS.match(text, place)
        if match is None or match.lastgroup is None:
            raise _NotPlainError(text[place:])
        yield match.lastgroup, match[match.lastgroup]
        place = match.end()
    while True:
        yield "end", ""


def _number(token: str) -> int | float:
    value = float(token) if "." in token else int(token)
    if not -INT_MAX <= value <= INT_MAX:
        raise _NotPlainError(token)
    return value


def _literal(value: Any) -> Shortcut:
    return lambda context, event: value


def _follow(path: tuple[str, ...]) -> Shortcut:
    """Whatever is at the path, if it is there."""
    first, second, *rest = path
    if first == "context":
        if not rest:
            return lambda context, event: context.get(second, UNKNOWN)
        return lambda context, event: _descend(context.get(second), rest)
    if second == "name":
        return lambda context, event: event.name
    if len(rest) == 1:
        key = rest[0]

        def field(context: Mapping[str, Json], event: Event) -> Any:
            data = event.data
            return data.get(key, UNKNOWN) if type(data) is dict else UNKNOWN

        return field
    return lambda context, event: _descend(event.data, rest)


def _descend(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key, UNKNOWN) if type(value) is dict else UNKNOWN
    return value


def _scalar(found: Shortcut) -> Shortcut:
    def scalar(context: Mapping[str, Json], event: Event) -> Any:
        value = found(context, event)
        kind = type(value)
        if kind is str:
            return value if "\0" not in value else UNKNOWN
        if kind is bool or kind is float or (kind is int and -INT_MAX <= value <= INT_MAX):
            return value
        return UNKNOWN

    return scalar


def _has(path: tuple[str, ...]) -> Shortcut:
    if len(path) < 3:
        raise _NotPlainError(path)
    key = path[-1]
    holder = _follow(path[:-1]) if path[:-1] != ("event", "data") else _data

    def has(context: Mapping[str, Json], event: Event) -> Any:
        held = holder(context, event)
        return key in held if type(held) is dict else UNKNOWN

    return has


def _data(context: Mapping[str, Json], event: Event) -> Any:
    return event.data


def _size(path: tuple[str, ...]) -> Shortcut:
    found = _follow(path)

    def size(context: Mapping[str, Json], event: Event) -> Any:
        value = found(context, event)
        kind = type(value)
        return len(value) if kind is list or kind is dict or (kind is str and "\0" not in value) else UNKNOWN

    return size


def _relation(compare: Callable[[Any, Any], bool], kinds: frozenset[type], left: Shortcut, right: Shortcut) -> Shortcut:
    """Values of one type. (The order of texts by code point is that of their UTF-8.)"""

    def relation(context: Mapping[str, Json], event: Event) -> Any:
        a, b = left(context, event), right(context, event)
        kind = type(a)
        return compare(a, b) if kind is type(b) and kind in kinds else UNKNOWN

    return relation


def _arithmetic(operation: Callable[[Any, Any], Any], left: Shortcut, right: Shortcut, *, texts: bool) -> Shortcut:
    def arithmetic(context: Mapping[str, Json], event: Event) -> Any:
        a, b = left(context, event), right(context, event)
        kind = type(a)
        if kind is not type(b):
            return UNKNOWN
        if kind is float or (kind is str and texts):
            return operation(a, b)
        if kind is int:
            value = operation(a, b)
            if -INT_MAX <= value <= INT_MAX:
                return value
        return UNKNOWN

    return arithmetic


def _negation(found: Shortcut) -> Shortcut:
    def negation(context: Mapping[str, Json], event: Event) -> Any:
        value = found(context, event)
        return (not value) if type(value) is bool else UNKNOWN

    return negation


def _junction(left: Shortcut, right: Shortcut, *, decisive: bool) -> Shortcut:
    """`&&` or `||`: `decisive` is the value of the left side that decides, whatever the right one is."""

    def junction(context: Mapping[str, Json], event: Event) -> Any:
        value = left(context, event)
        if value is decisive:
            return value
        if type(value) is not bool:
            return UNKNOWN
        value = right(context, event)
        return value if type(value) is bool else UNKNOWN

    return junction


def _choice(condition: Shortcut, then: Shortcut, otherwise: Shortcut) -> Shortcut:
    def choice(context: Mapping[str, Json], event: Event) -> Any:
        value = condition(context, event)
        if value is True:
            return then(context, event)
        return otherwise(context, event) if value is False else UNKNOWN

    return choice
