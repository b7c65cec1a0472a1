"""Schedules as JSON: the columns of table `schedules` by name."""

from __future__ import annotations

from typing import Any

import msgspec

from statewright.engine.recorder import ScheduleRow


def schedule_json(row: ScheduleRow) -> dict[str, Any]:
    """The row with `context` as an object; times are ns UTC."""
    return row._asdict() | {"context": msgspec.json.decode(row.context)}
