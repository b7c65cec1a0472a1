"""Durations as charts write them, in integer nanoseconds.

Two literal forms: units run together (`24h`, `50ms`, `1h30m`, `1.5s`; CSS2 times such as `1s` are among them)
and ISO 8601 (`PT24H`, `P1DT12H`). Calendar units (years, months) have no fixed length and are refused.
"""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from functools import lru_cache

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
DELAY_NS_MAX = 2**62
"""The longest delay, about 146 years: a due time of now plus this still fits a signed 64-bit integer."""

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|ms|s|m|h|d)", re.ASCII)
_ISO = re.compile(r"P(?=[\dT])(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII)
_ISO_UNITS = (7 * NANOSECONDS["d"], NANOSECONDS["d"], NANOSECONDS["h"], NANOSECONDS["m"], NANOSECONDS["s"])


@lru_cache(maxsize=1_024)
def parse_duration(text: str) -> int | None:
    """`text` in nanoseconds, or None if it is no duration literal (or one longer than `DELAY_NS_MAX`)."""
    text = text.strip()
    total = _parse_iso(text) if text.startswith("P") else _parse_units(text)
    return total if total is not None and total <= DELAY_NS_MAX else None


def delay_ns(value: object) -> int | None:
    """The delay that an evaluated expression means: a duration, a duration's text, or whole milliseconds."""
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, timedelta):
        ns = (value.days * 86_400_000_000 + value.seconds * 1_000_000 + value.microseconds) * 1_000
    elif isinstance(value, int) and not isinstance(value, bool):
        ns = value * NANOSECONDS["ms"]
    else:
        return None
    return ns if 0 <= ns <= DELAY_NS_MAX else None


def format_duration(ns: int) -> str:
    """`ns` in the largest units that hold it exactly: 5_400_000_000_000 is `1h30m`."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
        count, ns = divmod(ns, NANOSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _parse_units(text: str) -> int | None:
    total, position = Fraction(0), 0
    while match := _PART.match(text, position):
        total += Fraction(match[1] if not match[1].endswith(".") else match[1][:-1]) * NANOSECONDS[match[2]]
        position = match.end()
    return int(total) if position == len(text) and position else None


def _parse_iso(text: str) -> int | None:
    match = _ISO.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    return int(sum(Fraction(part) * unit for part, unit in zip(match.groups(), _ISO_UNITS, strict=True) if part))
