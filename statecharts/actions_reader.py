"""Reads actions, guards and values from their written form; the base of the chart's reader.

An action is a one-key mapping (`raise: reviewed`, `send: {event: remind, delay: 24h}`), a name alone (perform the
handler of that name), or its canonical form with its kind as `type`.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from statewright.statecharts import definition as d
from statewright.statecharts.context import require_json
from statewright.statecharts.places import Faults, Path

KINDS: dict[str, type[d.Action]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        d.Assign,
        d.Raise,
        d.Send,
        d.Cancel,
        d.Emit,
        d.Call,
        d.Perform,
        d.RunStep,
        d.Record,
        d.Log,
        d.If,
        d.Foreach,
        d.Script,
        d.Block,
    )
}
# What a text alone stands for: `raise: reviewed` is `raise: {event: reviewed}`.
SHORT_FIELDS = {
    "raise": "event",
    "send": "event",
    "cancel": "sendid",
    "emit": "subject",
    "call": "method",
    "perform": "name",
    "run_step": "step",
    "log": "expr",
    "script": "source",
}
# Of each of these, exactly one has to be given.
ONE_OF = {
    "raise": ("event",),
    "send": ("event", "eventexpr"),
    "cancel": ("sendid", "sendidexpr"),
    "emit": ("subject", "subjectexpr"),
    "perform": ("name",),
    "run_step": ("step",),
    "record": ("step",),
}


_NUMBER_MAX = 1e300


class ActionsReader:
    """Reading with faults: each method returns something usable and notes what was wrong."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.places = faults.places
        self.functions: dict[str, Callable[..., Any]] = {}
        self.state = ""

    def fault(self, path: Path, message: str) -> None:
        self.faults.at(path, self.state, message)

    def actions(self, tree: Any, path: Path) -> tuple[d.AnyAction, ...]:
        read = [self._action(item, place) for item, place in self.items(tree, path)]
        return tuple(action for action in read if action is not None)

    def guard(self, tree: Any, path: Path) -> d.Guard:
        if isinstance(tree, str):
            return tree
        if callable(tree) or (isinstance(tree, Mapping) and set(tree) == {"function"}):
            return d.FunctionRef(function=self.function(tree, path))
        self.fault(path, f"expected a guard, a CEL text or {{function: name}}, got {self.kind(tree)}")
        return "false"

    def function(self, tree: Any, path: Path) -> str:
        """The name of a function that is given as itself (then it is registered) or as `{function: name}`."""
        if isinstance(tree, Mapping):
            tree = tree["function"]
        if isinstance(tree, str):
            return tree
        name = getattr(tree, "__name__", "")
        if not callable(tree) or not name.isidentifier():
            self.fault(path, f"expected a function with a name of its own, got {name or self.kind(tree)}")
        elif self.functions.setdefault(name, tree) is not tree:
            self.fault(path, f"expected one function named {name!r}, got two different ones")
        return name or "function"

    def value(self, tree: Any, path: Path) -> Any:
        """A value to be evaluated: texts are CEL, the rest is itself, functions are replaced by references."""
        if callable(tree):
            return {"function": self.function(tree, path)}
        if isinstance(tree, Mapping) and set(tree) == {"function"}:
            return {"function": self.function(tree, path)}
        if isinstance(tree, Mapping):
            return {str(key): self.value(item, (*path, str(key))) for key, item in tree.items()}
        if isinstance(tree, list | tuple):
            return [self.value(item, (*path, index)) for index, item in enumerate(tree)]
        return self.json(tree, path)

    def json(self, tree: Any, path: Path) -> Any:
        try:
            return require_json(tree)
        except ValueError as error:
            self.fault(path, str(error))
            return None

    def delay(self, tree: Any, path: Path, instead: str = "0s") -> str:
        """A delay as a text; `instead` after a fault."""
        if isinstance(tree, int) and not isinstance(tree, bool) and tree >= 0:
            return f"{tree}ms"
        if isinstance(tree, str) and tree.strip():
            return f"{tree}ms" if tree.isdecimal() else tree
        self.fault(path, f"expected a delay such as 24h or a CEL expression, got {tree!r}")
        return instead

    def retry(self, tree: Any, path: Path) -> d.Retry | None:
        """How failed attempts are made again. Ranges are the compiler's business."""
        if not isinstance(tree, Mapping):
            self.fault(path, f"expected a mapping such as {{attempts: 5, initial: 1s}}, got {self.kind(tree)}")
            return None
        self.known(tree, set(d.Retry.__struct_fields__), path, "'retry'")
        read: dict[str, Any] = {}
        for key, value in tree.items():
            if key in ("initial", "maximum"):
                read[key] = self.delay(value, (*path, key), "60s")
            elif key == "final":
                read[key] = self.strings(value, (*path, key))
            elif key == "attempts" and (type(value) is int or (type(value) is float and value.is_integer())):
                read[key] = int(value)
            elif key in ("multiplier", "jitter") and type(value) in (int, float) and abs(value) <= _NUMBER_MAX:
                read[key] = float(value)
            elif key in d.Retry.__struct_fields__:
                what = "a whole number" if key == "attempts" else "a number"
                self.fault((*path, key), f"expected {what}, got {self.kind(value)}")
        return d.Retry(**read)

    def choice(self, value: Any, known: tuple[str, ...], path: Path) -> Any:
        if value in known:
            return value
        self.fault(path, f"expected {' or '.join(known)}, got {value!r}{suggest(str(value), known)}")
        return known[0]

    def text(self, tree: Mapping[str, Any], key: str, path: Path) -> str:
        value = tree.get(key, "")
        if isinstance(value, str):
            return value
        self.fault((*path, key), f"expected a text, got {self.kind(value)}")
        return ""

    def strings(self, tree: Any, path: Path) -> tuple[str, ...]:
        if tree is None:
            return ()
        if isinstance(tree, str):
            return (tree,)
        if isinstance(tree, list | tuple) and all(isinstance(item, str) for item in tree):
            return tuple(tree)
        inside = [item for item in tree if not isinstance(item, str)] if isinstance(tree, list | tuple) else []
        which = f" with {inside[0]!r} in it" if inside else ""
        self.fault(path, f"expected a text or a list of texts, got {self.kind(tree)}{which}")
        return ()

    def items(self, tree: Any, path: Path) -> Iterator[tuple[Any, Path]]:
        """One or several: a list's items with their places, anything else as itself, nothing for null."""
        if isinstance(tree, list | tuple):
            yield from ((item, (*path, index)) for index, item in enumerate(tree))
        elif tree is not None:
            yield tree, path

    def known(self, tree: Mapping[str, Any], keys: set[str], path: Path, what: str) -> None:
        for key in tree:
            if key not in keys:
                self.fault((*path, key), f"{what} has no {key!r}{suggest(key, keys)}")

    @staticmethod
    def kind(value: object) -> str:
        names = {dict: "a mapping", list: "a list", tuple: "a list", str: "a text", bool: "a bool", type(None): "null"}
        return names.get(type(value), f"{value!r}" if isinstance(value, int | float) else type(value).__name__)

    def _action(self, tree: Any, path: Path) -> d.AnyAction | None:
        if isinstance(tree, str):
            if not tree:
                self.fault(path, "expected an action, or the name of a handler, got an empty text")
            action: d.AnyAction = d.Perform(name=tree)
            self.places.put(action, path, self.state)
            return action
        if not isinstance(tree, Mapping) or not tree:
            self.fault(path, f"expected an action (one of {', '.join(KINDS)}), got {self.kind(tree)}")
            return None
        if "type" in tree:
            kind, fields, place = str(tree["type"]), {k: v for k, v in tree.items() if k != "type"}, path
        elif len(tree) == 1:
            kind, place = next(iter(tree)), (*path, next(iter(tree)))
            fields = self._fields(kind, tree[kind], place)
        else:
            self.fault(path, f"expected an action with one key, got {', '.join(map(str, tree))}")
            return None
        if kind not in KINDS:
            known = f"one of {', '.join(KINDS)}"
            self.fault(path, f"expected an action ({known}), got {kind!r}{suggest(kind, KINDS)}")
            return None
        return self._typed(kind, fields, place)

    def _fields(self, kind: str, tree: Any, path: Path) -> dict[str, Any]:
        """The fields that the short form of an action stands for."""
        if kind == "assign":
            is_function = callable(tree) or (isinstance(tree, Mapping) and set(tree) == {"function"})
            return {"function": self.function(tree, path)} if is_function else {"values": tree}
        if kind == "if" and isinstance(tree, Mapping):
            self.known(tree, {"guard", "then", "else"}, path, "the if")
            branch = {"guard": tree.get("guard"), "actions": tree.get("then")}
            return {"branches": [branch], "otherwise": tree.get("else")}
        if isinstance(tree, str) and kind in SHORT_FIELDS:
            if kind == "call":
                service, _, method = tree.rpartition(".")
                return {"service": service, "method": method}
            return {SHORT_FIELDS[kind]: tree}
        if isinstance(tree, Mapping):
            return dict(tree)
        if kind == "block":
            return {"actions": tree}
        if kind in KINDS:
            self.fault(path, f"expected a text or a mapping, got {self.kind(tree)}")
        return {}

    def _typed(self, kind: str, fields: Mapping[str, Any], path: Path) -> d.AnyAction | None:
        struct = KINDS[kind]
        self.known(fields, set(struct.__struct_fields__), path, repr(kind))
        read: dict[str, Any] = {}
        for key in struct.__struct_fields__:
            if key in fields:
                read[key] = self._field(key, fields, path)
            elif key in ("service", "method", "array", "item", "source"):
                read[key] = ""
        self._require(kind, fields, read, path)
        if kind == "raise" and "event" not in read:
            return None
        if kind == "perform" and "name" not in read:
            return None
        if kind in ("run_step", "record") and not read.get("step"):
            return None
        if kind == "record" and "status" not in read:
            self.fault(path, f"expected 'status' in 'record', one of {', '.join(typing.get_args(d.StepStatus))}")
            return None
        if kind == "if" and "branches" not in read:
            return None
        action: Any = struct(**read)
        self.places.put(action, path, self.state)
        return action  # type: ignore[no-any-return]

    def _field(self, key: str, fields: Mapping[str, Any], path: Path) -> Any:
        place = (*path, key)
        if key == "data":
            return self.value(fields[key], place)
        if key == "values":
            if isinstance(fields[key], Mapping):
                return {str(name): self.value(item, (*path, str(name))) for name, item in fields[key].items()}
            self.fault(path, f"expected a mapping of fields to values, got {self.kind(fields[key])}")
            return {}
        if key == "delay":
            return self.delay(fields[key], place)
        if key in ("timeout", "heartbeat"):
            return self.delay(fields[key], place, "1s" if key == "heartbeat" else "1h")
        if key == "retry":
            return self.retry(fields[key], place)
        if key == "status":
            return self.choice(fields[key], typing.get_args(d.StepStatus), place)
        if key == "cancel":
            return self.choice(fields[key], typing.get_args(d.CancelWhen), place)
        if key == "branches":
            return tuple(self._branches(fields[key], path))
        if key == "actions":
            return self.actions(fields[key], place)
        if key == "otherwise":
            return self.actions(fields[key], (*path, "else"))
        return self.text(fields, key, path)

    def _branches(self, tree: Any, path: Path) -> Iterator[d.Branch]:
        for item, _ in self.items(tree, path):
            if not isinstance(item, Mapping) or item.get("guard") is None:
                self.fault(path, "expected an if to have a guard, which is missing")
                continue
            self.known(item, {"guard", "actions"}, path, "the branch")
            branch = d.Branch(
                guard=self.guard(item["guard"], (*path, "guard")),
                actions=self.actions(item.get("actions"), (*path, "then")),
            )
            self.places.put(branch, path, self.state)
            yield branch

    def _require(self, kind: str, fields: Mapping[str, Any], read: Mapping[str, Any], path: Path) -> None:
        wanted = ONE_OF.get(kind, ())
        if wanted and sum(1 for key in wanted if read.get(key)) != 1:
            self.fault(
                path, f"expected {' or '.join(map(repr, wanted))} in {kind!r}" + " (one of them)" * (len(wanted) > 1)
            )
        if kind == "call" and not (read["service"] and read["method"]):
            self.fault(path, "expected 'service' and 'method' in 'call', or both as service.method")
        for key in ("array", "item", "source"):
            if read.get(key) == "":
                self.fault(path, f"expected {key!r} in {kind!r}, which is missing")
        if kind == "if" and not fields.get("branches"):
            self.fault(path, "expected 'branches' in 'if', at least one")
        if kind == "assign" and not (read.get("values") or read.get("function")):
            self.fault(path, "expected at least one field to assign")


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if something known is like `word`, else nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
