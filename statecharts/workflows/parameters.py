"""A step's parameters: written in its workflow as data with templates, resolved at each attempt from recorded facts.

`"${steps.load.rows}"` alone is that value, of whatever type; within a text, `"report-${input.id}.txt"`, it is put in as
text (strings as they are, all else as JSON). `$${` is a plain `${`. `{"cel": "size(steps.load.rows) > 0"}` is a CEL
expression. Keys are never templates. Expressions see

    input        the execution's input
    steps        the data of completed steps by id: `steps.load.rows`, `steps["load-all"].rows`
    previous     in a pipeline, the data of the step before; for the first step the input
    results      for the step that merges a parallel group, the data of the group's completed steps by id

Pure. A plain path (`steps.load.rows[0].name`) is followed here, so that what is large is not copied into CEL and back;
all else is CEL's. An expression is a function of these four: the same facts give the same parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from cel_expr_python import cel

from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.expressions import ExpressionError, compile_text, environment, evaluate_text, to_json
from statewright.statecharts.facts import Json

NAMES = ("input", "steps", "previous", "results")

_STEP = re.compile(r"""\bsteps\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(["'])([A-Za-z_][\w-]*)\2\s*\])""")
_NAME = re.compile(r"(?<![\w.])(input|steps|previous|results)\b")
_STRINGS = re.compile(r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_KEY = r"""(?:\s*\.\s*[A-Za-z_]\w*|\s*\[\s*(?:\d{1,9}|"[^"\\]*"|'[^'\\]*')\s*\])"""
_PATH = re.compile(rf"\s*(input|steps|previous|results)({_KEY}*)\s*")
_KEYS = re.compile(r"""\.\s*([A-Za-z_]\w*)|\[\s*(?:(\d+)|"([^"]*)"|'([^']*)')\s*\]""")
_encode = msgspec.json.Encoder().encode


class TemplateError(StatewrightError):
    """A template, or an expression in it, can't be compiled or resolved; the message says which, where and why."""


class NoData(TemplateError):
    """It needs the data of a step that has none: it was skipped, has failed, or has not run."""


class Facts(NamedTuple):
    """What expressions see. `steps` holds the data of completed steps, at least of those that are mentioned; `absent`
    says of others why they have none ("skipped", "running")."""

    input: Json = None
    steps: Mapping[str, Json] = {}
    previous: Json = None
    results: Mapping[str, Json] = {}
    absent: Mapping[str, str] = {}


class Parameters:
    """The compiled parameters of one step. `steps`: the ids of those whose data they need; `uses`: which of `NAMES`."""

    __slots__ = ("_resolve", "steps", "uses")

    def __init__(self, written: Mapping[str, Json]) -> None:
        """Raises `TemplateError` with the place and the reason of what can't be compiled."""
        self.steps: frozenset[str] = frozenset()
        self.uses: frozenset[str] = frozenset()
        self._resolve = self._compile(written, "parameters")

    def resolve(self, facts: Facts) -> dict[str, Json]:
        """Their values. Raises `TemplateError`, and `NoData` for a step without data."""
        found: dict[str, Json] = self._resolve(facts)
        return found

    def _compile(self, value: Json, place: str) -> Callable[[Facts], Any]:
        if isinstance(value, str):
            return self._template(value, place)
        if isinstance(value, Mapping):
            if len(value) == 1 and isinstance(value.get("cel"), str):
                return self._expression(value["cel"], place)
            inner = {key: self._compile(part, f"{place}.{key}") for key, part in value.items()}
            return lambda facts: {key: part(facts) for key, part in inner.items()}
        if isinstance(value, list | tuple):
            parts = [self._compile(part, f"{place}[{index}]") for index, part in enumerate(value)]
            return lambda facts: [part(facts) for part in parts]
        return lambda facts: value

    def _template(self, text: str, place: str) -> Callable[[Facts], Any]:
        if "${" not in text:
            return lambda facts: text
        parts = [
            part if is_text else self._expression(part, place)
            for is_text, part in _parts(text, place)
            if part or not is_text
        ]
        if len(parts) == 1:
            whole = parts[0]
            return (lambda facts: whole) if isinstance(whole, str) else whole
        return lambda facts: "".join(part if isinstance(part, str) else _as_text(part(facts)) for part in parts)

    def _expression(self, text: str, place: str) -> Callable[[Facts], Any]:
        if not text.strip():
            raise TemplateError(f"{place}: expected an expression, got {text!r}")
        bare = _STRINGS.sub(lambda string: string[0] if _is_key(text, string) else '""', text)
        uses = frozenset(_NAME.findall(bare))
        steps = frozenset(dotted or quoted for dotted, _, quoted in _STEP.findall(bare))
        if len(re.findall(r"(?<![\w.])steps\b", bare)) > len(_STEP.findall(bare)):
            raise TemplateError(f"{place}: expected each step by its id, as in steps.load, got {text!r}")
        self.uses |= uses
        self.steps |= steps
        if path := _PATH.fullmatch(text):
            return _Path(path[1], tuple(_keys(path[2])), text.strip(), place).follow
        return _Cel(text, steps, uses, place).evaluate


class _Path:
    """A plain path into what is there."""

    __slots__ = ("_keys", "_place", "_root", "_text")

    def __init__(self, root: str, keys: tuple[str | int, ...], text: str, place: str) -> None:
        self._root, self._keys, self._text, self._place = root, keys, text, place

    def follow(self, facts: Facts) -> Json:
        value: Any = getattr(facts, self._root)
        where = self._root
        for key in self._keys:
            # Texts lead into maps, numbers into lists.
            is_index = isinstance(key, int) and isinstance(value, list) and key < len(value)
            if not is_index and not (isinstance(value, Mapping) and key in value):
                raise self._missing(facts, key, value, where)
            value = value[key]
            where += f"[{key}]" if isinstance(key, int) else f".{key}"
        return value

    def _missing(self, facts: Facts, key: str | int, value: Json, where: str) -> TemplateError:
        said = f"{self._place}: ${{{self._text}}}"
        if where == "steps":
            return _no_data(said, str(key), facts)
        if isinstance(value, Mapping):
            return TemplateError(f"{said}: {where} has no {key!r}; it has {', '.join(sorted(value)) or 'nothing'}")
        if isinstance(value, list):
            return TemplateError(f"{said}: {where} has no {key!r}; it is a list of {len(value)}")
        return TemplateError(f"{said}: {where} has no {key!r}; it is {_encode(value).decode()[:60]}")


class _Cel:
    """An expression that CEL evaluates."""

    __slots__ = ("_compiled", "_place", "_steps", "_text", "_uses")

    def __init__(self, text: str, steps: frozenset[str], uses: frozenset[str], place: str) -> None:
        self._text, self._steps, self._uses, self._place = text, steps, uses, place
        try:
            self._compiled = compile_text(_environment(), text)
        except ExpressionError as error:
            seen = f"; it may use {', '.join(NAMES)}" if "undeclared" in str(error) else ""
            raise TemplateError(f"{place}: {text!r} is no CEL expression: {error}{seen}") from None

    def evaluate(self, facts: Facts) -> Json:
        try:
            return to_json(evaluate_text(self._compiled, {name: getattr(facts, name) for name in self._uses}))
        except ExpressionError as error:
            said = f"{self._place}: {self._text!r}"
            for step in sorted(self._steps):
                if step not in facts.steps and str(error).startswith("Key not found"):
                    raise _no_data(said, step, facts) from None
            raise TemplateError(f"{said} can't be evaluated: {error}") from None


def _no_data(said: str, step: str, facts: Facts) -> NoData:
    return NoData(f"{said}: step '{step}' has no data, it is {facts.absent.get(step, 'not completed')}")


_cel: list[cel.Env] = []


def _environment() -> cel.Env:
    if not _cel:
        named = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
        types = {"input": cel.Type.DYN, "steps": named, "previous": cel.Type.DYN, "results": named}
        _cel.append(environment(types))
    return _cel[0]


def _is_key(text: str, string: re.Match[str]) -> bool:
    """Whether a string stands in brackets: `steps["load-all"]`."""
    return text[: string.start()].rstrip().endswith("[") and text[string.end() :].lstrip().startswith("]")


def _keys(path: str) -> Iterator[str | int]:
    for name, index, double, single in _KEYS.findall(path):
        yield int(index) if index else name or double or single


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _parts(text: str, place: str) -> Iterator[tuple[bool, str]]:
    """(whether it is plain, the text or the expression), in order."""
    at, plain = 0, ""
    while (found := text.find("${", at)) >= 0:
        if found and text[found - 1] == "$":
            plain += text[at : found - 1] + "${"
            at = found + 2
            continue
        end = _closing(text, found + 2)
        if end is None:
            raise TemplateError(f"{place}: '${{' at column {found + 1} of {text!r} has no '}}' (write '$${{' for it)")
        yield True, plain + text[at:found]
        yield False, text[found + 2 : end]
        at, plain = end + 1, ""
    yield True, plain + text[at:]


def _closing(text: str, at: int) -> int | None:
    """Where the brace that was opened before `at` is closed; braces within strings don't count."""
    depth = 1
    while at < len(text):
        if string := _STRINGS.match(text, at):
            at = string.end()
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
        at += 1
    return None
