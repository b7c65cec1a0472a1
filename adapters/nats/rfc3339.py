"""RFC 3339 timestamps to integer nanoseconds UTC and back (the time format of CloudEvents 1.0, section 2.4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from statewright.engine.errors import InvalidError

_SECOND_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse_time(what: str, text: str) -> int:
    """Nanoseconds since the epoch, UTC; finer digits are cut off, a leap second is the second after :59.
    Raises `InvalidError` naming `what`."""
    match = _FORM.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
        offset_hours, offset_minutes = int(match[10] or 0), int(match[11] or 0)
        if second <= 60 and offset_hours <= 23 and offset_minutes <= 59:
            offset = timedelta(hours=offset_hours, minutes=offset_minutes) * (-1 if match[9] == "-" else 1)
            try:
                moment = datetime(year, month, day, hour, minute, tzinfo=timezone(offset))
            except ValueError:
                pass
            else:
                since = moment - _EPOCH
                seconds = since.days * 86_400 + since.seconds + second
                return seconds * _SECOND_NS + int((match[7] or "").ljust(9, "0")[:9])
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise InvalidError(f"expected {what} to be an RFC 3339 time such as 2026-05-17T09:30:00Z, got {shown!r}")


def format_time(time: int) -> str:
    """`time` (ns UTC) in RFC 3339, always with nine digits of fraction."""
    seconds, fraction = divmod(time, _SECOND_NS)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
