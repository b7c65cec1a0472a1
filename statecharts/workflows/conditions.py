"""Conditions of workflows: CEL over `input` and `steps.<id>`, checked and put into the terms of the compiled chart.

In the chart the data of a step that a condition mentions is a context field of its own, so that a condition costs what
it mentions and not what there is. `has(steps.load)` asks whether the step has data.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from cel_expr_python import cel

from statewright.statecharts.expressions import ExpressionError, compile_text, environment

_STRING = r"""(?P<string>\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_ID = (
    r"""(?:\.\s*(?P<{0}dotted>[A-Za-z_]\w*)|\[\s*(?P<{0}quote>["'])(?P<{0}quoted>[A-Za-z_][\w-]*)(?P={0}quote)\s*\])"""
)
_HAS = rf"(?<![\w.])has\s*\(\s*steps\s*{_ID.format('h')}\s*\)"
_STEP = rf"(?<![\w.])steps\b(?:\s*{_ID.format('s')})?"
_INPUT = r"(?<![\w.])(?P<input>input)\b"
_TOKEN = re.compile("|".join((_STRING, f"(?P<has>{_HAS})", f"(?P<step>{_STEP})", _INPUT)))

_environments: list[cel.Env] = []


def mentioned(text: str) -> tuple[frozenset[str], bool]:
    """(the steps whose data an expression asks for, whether it uses `steps` in another way, too)."""
    found, otherwise = set(), False
    for match in _TOKEN.finditer(text):
        if match["has"] or match["step"]:
            step = _step_of(match)
            if step:
                found.add(step)
            otherwise |= not step
    return frozenset(found), otherwise


def check_condition(text: str) -> str:
    """What is wrong with a condition, "" if nothing is."""
    if not _environments:
        data = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
        _environments.append(environment({"input": data, "steps": data}))
    try:
        kind = compile_text(_environments[0], text).return_type().name().lower()
    except ExpressionError as error:
        known = "; a condition sees input and steps" if "undeclared" in str(error) else ""
        return f"bad condition {text!r}: {error}{known}"
    if kind not in ("bool", "dyn"):
        return f"expected a condition of type bool, got {kind} from {text!r}"
    if mentioned(text)[1]:
        return f"expected each step by its id, as in steps.load or steps['load-all'], got {text!r}"
    return ""


def in_chart(text: str, fields: Mapping[str, str]) -> str:
    """The condition in the chart's terms; `fields`: the context field of each mentioned step."""

    def replaced(match: re.Match[str]) -> str:
        if match["has"]:
            return f"(context.{fields[_step_of(match)]} != null)"
        if match["step"]:
            return f"context.{fields[_step_of(match)]}"
        return f"context.{match[0]}" if match["input"] else match[0]

    return _TOKEN.sub(replaced, text)


def result_fields(steps: Collection[str]) -> dict[str, str]:
    """The context field for the data of each step: `steps_<id>`, made unique where ids differ by `-` and `_` alone."""
    fields: dict[str, str] = {}
    for step in steps:
        name = f"steps_{step.replace('-', '_')}"
        while name in fields.values():
            name += "_"
        fields[step] = name
    return fields


def _step_of(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return groups["hdotted"] or groups["hquoted"] or groups["sdotted"] or groups["squoted"] or ""
