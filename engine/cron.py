"""When a cron expression is due: five fields (minute hour day-of-month month day-of-week) in a time zone.

The rules are those of Debian's cron, as the library `cronsim` has them. Where clocks are put forward, a fixed time in
the hour that is left out is due right after it; where they are put back, a fixed time is due once, the first time. An
expression whose minute or hour begins with a star is due by the time that passes: in the hour left out never, in the
hour that comes twice in both. Invariant: `after` alone decides, so going on after a restart gives the same times as
never having stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import InvalidError

EXPRESSION_CHARS_MAX = 256
MINUTE_NS = 60 * SECOND_NS
"""Due times are whole minutes."""
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_EXAMPLE = "'0 9 * * MON' (minute hour day-of-month month day-of-week)"


class Cron:
    """A cron expression in a time zone. Times are ns UTC.

    Raises `InvalidError` that says which field is wrong, which zone doesn't exist, or that it is never due.
    """

    def __init__(self, expression: str, zone: str) -> None:
        self._zone = _zone(zone)
        self._expression = _checked(expression)

    def times(self, after: int) -> Iterator[int]:
        """The due times later than `after`, in order; for at least 50 years."""
        since = datetime.fromtimestamp(after // SECOND_NS, self._zone)
        for due in CronSim(self._expression, since):
            at = int(due.timestamp()) * SECOND_NS
            # A fixed time in an hour that comes twice is named in the second one, too, and was the first one's.
            if at > after:
                yield at
                after = at

    def after(self, at: int) -> int | None:
        """The first due time later than `at`; None if there is none within 50 years."""
        return next(self.times(at), None)

    def newest(self, first: int, last: int, count: int) -> int:
        """The earliest due time from which on there are at most `count` (> 0) up to and with `last`. `first` is a due
        time <= `last`, and the earliest that counts."""
        if self._are_at_most(count, first - 1, last):
            return first
        early, late = first, last  # From `early` on there are too many, after `late` there are not.
        while late - early >= MINUTE_NS:
            middle = (early + late) // 2
            if self._are_at_most(count, middle, last):
                late = middle
            else:
                early = middle
        found = self.after(late)
        assert found is not None, (self._expression, first, last)
        return found

    def _are_at_most(self, count: int, after: int, last: int) -> bool:
        beyond = next(islice(self.times(after), count, None), None)
        return beyond is None or beyond > last


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError, TypeError) as error:  # A path, a folder, no zone, no text.
        close = get_close_matches(str(name), available_timezones(), 1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        raise InvalidError(
            f"expected a time zone of the IANA database such as 'Europe/Zurich' or 'UTC', got {str(name)[:60]!r}{meant}"
        ) from error


def _checked(expression: str) -> str:
    """`expression` with single spaces, if it has five fields that can be met."""
    if not isinstance(expression, str) or len(expression) > EXPRESSION_CHARS_MAX:
        shown = f"{len(expression):,} characters" if isinstance(expression, str) else type(expression).__name__
        raise InvalidError(f"expected a cron expression such as {_EXAMPLE}, got {shown}")
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise InvalidError(
            f"expected a cron expression of five fields such as {_EXAMPLE}, got {len(fields)} in {expression!r}"
        )
    for position, (name, field) in enumerate(zip(_FIELDS, fields, strict=True)):
        alone = ["*"] * len(_FIELDS)
        alone[position] = field
        try:
            CronSim(" ".join(alone), datetime(2000, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError, AssertionError) as error:
            raise InvalidError(
                f"expected a cron expression such as {_EXAMPLE}, got {expression!r}, whose {name} field, {field!r}, "
                f"is not valid"
            ) from error
    try:
        due = next(CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC)), None)
    except CronSimError:
        due = None
    if due is None:
        raise InvalidError(f"expected a cron expression that comes due, but {expression!r} never does: no such day")
    return " ".join(fields)
