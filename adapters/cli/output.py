"""How things are printed: JSON lines for programs; times, durations and values for people.

Invariant: what came from outside (names, data, errors) reaches a terminal without its control characters, and is
never taken for markup.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120
_MS, _S, _MIN, _H, _D = 10**6, 10**9, 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
_UNITS = ((_D, "d"), (_H, "h"), (_MIN, "min"), (_S, "s"))
_VALUE_LENGTH_MAX = 200


def print_json(value: Any) -> None:
    """One line on standard output."""
    print(msgspec.json.encode(value).decode())


def console() -> Console:
    """Standard output for people: as wide as the terminal (or `COLUMNS`), plain without one or with `NO_COLOR`."""
    import os

    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(file=sys.stdout, width=wide, markup=False, highlight=False, emoji=False)


def clean(text: str) -> str:
    """`text` on one line, its control characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def value(data: Any) -> str:
    """`data` as JSON, cut when it is long."""
    text = clean(msgspec.json.encode(data).decode())
    return text if len(text) <= _VALUE_LENGTH_MAX else f"{text[:_VALUE_LENGTH_MAX]}… ({len(text):,} characters)"


def duration(ns: int | None) -> str:
    """`ns` in at most two units: 850 ms, 1.2 s, 3 min 20 s, 2 h, 3 d 4 h."""
    if ns is None:
        return "-"
    if ns < 10 * _S:
        return f"{ns / _MS:.0f} ms" if ns < _S else f"{ns / _S:.1f} s"
    for (size, unit), (smaller, small_unit) in pairwise(_UNITS):
        if ns >= size:
            rest = ns % size // smaller
            return f"{ns // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{ns // _S} s"


def relative(at: int, now: int) -> str:
    """When `at` is, seen from `now`: 3 min ago, to the largest unit alone; in 23 h 59 min, as a deadline is read."""
    distance = abs(now - at)
    if distance < _S:
        return "just now"
    if at > now:
        return f"in {duration(distance)}"
    size, unit = next(((size, unit) for size, unit in _UNITS if distance >= size), _UNITS[-1])
    return f"{distance // size} {unit} ago"


def moment(at: int) -> str:
    """`at` as ISO 8601 in UTC, to the millisecond."""
    seconds, ns = divmod(at, _S)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{ns // _MS:03d}Z"
    except (ValueError, OverflowError, OSError):
        return str(at)
