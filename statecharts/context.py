"""The declared context: types, defaults and checks.

A type is written in CEL's vocabulary: `int double string bool dyn list(T) map(string, T)`, `?` after a type makes it
nullable. Every value that enters the context passes `ContextType`, so a context always fits its
declaration and is always JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import msgspec
from cel_expr_python import cel

from statewright.statecharts.definition import Declaration, Json
from statewright.statecharts.errors import ContextError

TYPE_DEPTH_MAX = 16
JSON_DEPTH_MAX = 64
"""How deep a value of a context or an effect may nest."""
INT_MIN, INT_MAX = -(2**63), 2**63 - 1

_Int = Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
_SCALARS: dict[str, tuple[Any, cel.Type]] = {
    "int": (_Int, cel.Type.INT),
    "double": (float, cel.Type.DOUBLE),
    "string": (str, cel.Type.STRING),
    "bool": (bool, cel.Type.BOOL),
    "dyn": (Any, cel.Type.DYN),
}
_WRAPPERS = {
    "int": "google.protobuf.Int64Value",
    "double": "google.protobuf.DoubleValue",
    "string": "google.protobuf.StringValue",
    "bool": "google.protobuf.BoolValue",
}
_TYPES = "int, double, string, bool, dyn, list(T), map(string, T), each with an optional '?'"


class Context(dict[str, Any]):
    """A context as functions see it: a read-only dict with its fields also as attributes (`context.amount`).

    An action's function returns the fields to change; it cannot change the context in place.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the context has no field {name!r}; it has {', '.join(self)}") from None

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the context is read-only; change it with an assign action")

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return Context, (dict(self),)


class FieldType(msgspec.Struct, frozen=True):
    """A parsed type. `text` is its normal form, `python` what msgspec checks values against, `checked` what
    expressions are checked against, `evaluated` what they are evaluated with: CEL has wrapper types for nullable
    scalars, but its Python binding accepts no None for them, so those are `dyn` at run time."""

    text: str
    python: Any
    checked: cel.Type
    evaluated: cel.Type
    nullable: bool = False


def parse_type(text: str) -> FieldType:
    """Parse a declared type. Raises ValueError that says what was expected."""
    parsed, rest = _parse(text.strip(), 0)
    if rest.strip():
        raise ValueError(f"expected one of {_TYPES}, got {text!r}")
    return parsed


def _parse(text: str, depth: int) -> tuple[FieldType, str]:
    if depth > TYPE_DEPTH_MAX:
        raise ValueError(f"a type may be nested {TYPE_DEPTH_MAX} deep, this one is deeper")
    match = re.match(r"[a-z]+", text)
    name, rest = (match[0], text[match.end() :].lstrip()) if match else ("", text)
    if name in _SCALARS:
        python, cel_type = _SCALARS[name]
        parsed = FieldType(name, python, cel_type, cel_type)
    elif name == "list" and rest.startswith("("):
        item, rest = _parse(rest[1:].lstrip(), depth + 1)
        cel_type = cel.Type.List(item.evaluated)
        parsed = FieldType(f"list({item.text})", list.__class_getitem__(item.python), cel_type, cel_type)
        rest = _expect(")", rest, text)
    elif name == "map" and (key := re.match(r"\(\s*string\s*,\s*", rest)):
        item, rest = _parse(rest[key.end() :], depth + 1)
        cel_type = cel.Type.Map(cel.Type.STRING, item.evaluated)
        parsed = FieldType(f"map(string, {item.text})", dict.__class_getitem__((str, item.python)), cel_type, cel_type)
        rest = _expect(")", rest, text)
    else:
        raise ValueError(f"expected one of {_TYPES}, got {text!r}")
    if rest.lstrip().startswith("?"):
        return _nullable(parsed), rest.lstrip()[1:]
    return parsed, rest


def _expect(mark: str, rest: str, text: str) -> str:
    if not rest.lstrip().startswith(mark):
        raise ValueError(f"expected {mark!r} at {rest!r} in type {text!r}")
    return rest.lstrip()[len(mark) :]


def _nullable(inner: FieldType) -> FieldType:
    wrapper = _WRAPPERS.get(inner.text)
    checked = cel.Type(wrapper) if wrapper else cel.Type.DYN
    python = inner.python if inner.python is Any else inner.python | None
    return FieldType(f"{inner.text}?", python, checked, cel.Type.DYN, True)


class ContextType:
    """The declared context of one chart. Immutable; `fields` keeps the declared order."""

    __slots__ = ("_defaults", "_dynamic", "_plain", "_python", "_required", "fields")

    def __init__(self, fields: Mapping[str, tuple[FieldType, Declaration]], *, dynamic: bool = False) -> None:
        """`dynamic`: undeclared fields are allowed and unchecked (SCXML documents)."""
        self.fields = {name: field for name, (field, _) in fields.items()}
        self._python = {name: field.python for name, (field, _) in fields.items()}
        self._plain = {name: _PLAIN_OF[field.text] for name, field in self.fields.items() if field.text in _PLAIN_OF}
        self._dynamic = dynamic
        self._defaults: dict[str, Json] = {}
        required = []
        for name, (field, declaration) in fields.items():
            if declaration.default is not msgspec.UNSET:
                self._defaults[name] = self.check(name, declaration.default)
            elif field.nullable or dynamic:
                self._defaults[name] = None
            else:
                required.append(name)
        self._required = tuple(required)

    def start(self, given: Mapping[str, Json]) -> Context:
        """The context of a new instance: `given`, checked, plus the defaults, in declared order.

        Raises ContextError naming every field that is missing, undeclared or of the wrong type.
        """
        problems = [
            f"field {name!r} ({self.fields[name].text}) is missing" for name in self._required if name not in given
        ]
        checked: dict[str, Json] = {}
        for name, value in given.items():
            try:
                checked[name] = self.check(name, value)
            except ContextError as error:
                problems.append(str(error))
        if problems:
            raise ContextError("context: " + "; ".join(problems))
        full = {name: checked[name] if name in checked else _copy(self._defaults[name]) for name in self.fields}
        return Context(full | checked)

    def check(self, name: str, value: Json) -> Json:
        """`value` as field `name` holds it (a copy where it is a container). Raises ContextError."""
        kind = type(value)
        if kind is self._plain.get(name) and (kind is not int or INT_MIN <= value <= INT_MAX):
            return value  # As it nearly always is.
        python = self._python.get(name, msgspec.UNSET)
        if python is msgspec.UNSET:
            if not self._dynamic:
                raise ContextError(f"there is no field {name!r}; the chart declares {', '.join(self.fields) or 'none'}")
            python = Any
        try:
            checked = msgspec.convert(value, python)
            return checked if type(checked) in _SAFE else require_json(checked)
        except msgspec.ValidationError as error:
            where = str(error).partition(" - at ")[2].strip("`")[1:]
            text = self.fields[name].text
            raise ContextError(
                f"field {name!r} expected {text}, got {json_type(value)}"
                + (f" (at {name}{where}: {str(error).partition(' - at ')[0]})" if where else "")
            ) from None
        except ValueError as error:
            raise ContextError(f"field {name!r}: {error}") from None


_PLAIN_OF = {"int": int, "string": str, "bool": bool}
_SAFE = frozenset((bool, str, type(None)))
_PLAIN = _SAFE | {int}


def json_type(value: object) -> str:
    """What `value` is, in the declarations' words, for messages."""
    if value is None:
        return "null"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "double"), (str, "string"), (list, "list")):
        if isinstance(value, kind):
            shown = repr(value)
            shown = shown if len(shown) <= 40 else shown[:37] + "..."
            wide = " (more than 64 bits)" if name == "int" and not _fits(value) else ""
            return f"{name} {shown}{wide}"
    return "map" if isinstance(value, Mapping) else type(value).__name__


def _fits(value: Any) -> bool:
    return INT_MIN <= int(value) <= INT_MAX


def require_json(value: Json, depth: int = 0) -> Json:
    """`value` if it is JSON all through, containers copied. Raises ValueError that says what is not."""
    kind = type(value)
    if kind in _PLAIN:
        if kind is int and not _fits(value):
            raise ValueError(f"expected an int of 64 bits, got {value}")
        return value
    if depth > JSON_DEPTH_MAX:
        raise ValueError(f"expected JSON at most {JSON_DEPTH_MAX} deep, got something deeper")
    if kind is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"expected JSON, got {value}, which JSON cannot hold")
        return value
    if kind is list or isinstance(value, (list, tuple)):
        return [item if type(item) in _SAFE else require_json(item, depth + 1) for item in value]
    if kind is dict or isinstance(value, Mapping):
        if bad := next((key for key in value if not isinstance(key, str)), None):
            raise ValueError(f"expected JSON, got a mapping with the key {bad!r}, which is no string")
        return {key: require_json(item, depth + 1) for key, item in value.items()}
    raise ValueError(f"expected JSON, got {kind.__name__}")


def _copy(value: Json) -> Json:
    return value if type(value) in _PLAIN else require_json(value)
