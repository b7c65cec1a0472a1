"""Where things are written: paths, states and lines, and the faults that name them.

A path is a tuple of keys and indexes from the top of the source (`("states", "draft", "on", "submit", 0)`), shown as
`states.draft.on.submit[0]`. Every part of a definition has the path that it was read from.
"""

from __future__ import annotations

from collections.abc import Mapping

from statewright.statecharts.definition import Definition, Node, State
from statewright.statecharts.errors import Fault, Severity

Path = tuple[str | int, ...]
FAULTS_MAX = 100


def show(path: Path) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


class Places:
    """The path and nearest state of every node of one definition, and the line of every path (empty without a file)."""

    def __init__(self, lines: Mapping[Path, int] | None = None) -> None:
        self._lines = dict(lines or {})
        self._of: dict[int, tuple[Path, str]] = {}
        self._unread: Definition | None = None

    @classmethod
    def canonical(cls, definition: Definition) -> Places:
        """The places of a definition that was read from no source: those in its canonical JSON."""
        places = cls()
        places._unread = definition  # mostly nobody asks
        return places

    @property
    def has_lines(self) -> bool:
        return bool(self._lines)

    @property
    def lines(self) -> Mapping[Path, int]:
        return self._lines

    def know(self, path: Path, line: int) -> None:
        """Learn the line of a path."""
        self._lines[path] = line

    def put(self, node: Node, path: Path, state: str) -> None:
        self._of[id(node)] = (path, state)

    def of(self, node: Node) -> tuple[Path, str]:
        if self._unread is not None:
            definition, self._unread = self._unread, None
            self._walk(definition, (), "")
        return self._of.get(id(node), ((), ""))

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest part around it that has one."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def fault(
        self,
        node: Node,
        message: str,
        *suffix: str | int,
        severity: Severity = "error",
    ) -> Fault:
        """A fault of `node`, or of the part of it that `suffix` leads to."""
        path, state = self.of(node)
        return self.fault_at((*path, *suffix), state, message, severity=severity)

    def fault_at(self, path: Path, state: str, message: str, *, severity: Severity = "error") -> Fault:
        return Fault(path=show(path), message=message, state=state, line=self.line(path), severity=severity)

    def _walk(self, node: Node, path: Path, state: str) -> None:
        if isinstance(node, State):
            state = node.id
        self.put(node, path, state)
        for field in node.__struct_fields__:
            value = getattr(node, field)
            if isinstance(value, Node):
                self._walk(value, (*path, field), state)
            elif isinstance(value, tuple):
                for index, item in enumerate(value):
                    if isinstance(item, State):
                        self._walk(item, (*path, field, item.id), state)
                    elif isinstance(item, Node):
                        self._walk(item, (*path, field, index), state)


class Faults:
    """Collects faults; keeps the first `FAULTS_MAX`, in the order of their lines where there are lines."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._faults: list[Fault] = []

    def add(self, node: Node, message: str, *suffix: str | int) -> None:
        self._faults.append(self.places.fault(node, message, *suffix))

    def at(self, path: Path, state: str, message: str) -> None:
        self._faults.append(self.places.fault_at(path, state, message))

    def __bool__(self) -> bool:
        return bool(self._faults)

    def sorted(self) -> tuple[Fault, ...]:
        unique = list(dict.fromkeys(self._faults))
        return tuple(sorted(unique, key=lambda fault: fault.line or 0)[:FAULTS_MAX])
