"""What is parked, as JSON. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from statewright.engine.recorder import ParkedRow

PAYLOAD_CHARS_MAX = 10_000
"""How much of a payload is shown."""


def parked_json(row: ParkedRow) -> dict[str, Any]:
    """The row by its columns: headers as an object; payload as text (what is not UTF-8 replaced by U+FFFD), cut when it
    is long, with its whole length in bytes."""
    return {
        "parked_id": row.parked_id,
        "received_at": row.received_at,
        "subject": row.subject,
        "reason": row.reason,
        "headers": msgspec.json.decode(row.headers),
        "payload": row.payload[: 4 * PAYLOAD_CHARS_MAX].decode(errors="replace")[:PAYLOAD_CHARS_MAX],
        "payload_bytes": len(row.payload),
    }
