"""Status as JSON: the columns of table `instances` by name, from the stored row or from a folded instance.

Invariant: both give the same object for the same instance, so `status` and `replay` have one shape.
"""

from __future__ import annotations

from typing import Any

import msgspec

from statewright.engine.instance import Instance
from statewright.engine.recorder import InstanceRow


def status_json(row: InstanceRow) -> dict[str, Any]:
    """The row with `configuration` as an array and `context` as an object; times are ns UTC."""
    columns = row._asdict()
    columns["configuration"] = _decoded(row.configuration)
    columns["context"] = _decoded(row.context)
    return columns


def instance_json(instance: Instance, *, as_of: int | None = None) -> dict[str, Any]:
    """A folded instance in the shape of `status_json`, with `as_of` (ns UTC) if it is given."""
    columns: dict[str, Any] = {
        "id": instance.id,
        "definition": instance.definition,
        "version": instance.version,
        "status": instance.status,
        "configuration": list(instance.configuration),
        "context": dict(instance.context),
        "sequence": instance.sequence,
        "started_at": instance.started_at,
        "updated_at": instance.updated_at,
        "ended_at": instance.ended_at,
        "digest": instance.digest,
        "failure": instance.error,
        "parent": instance.parent.instance_id if instance.parent is not None else None,
    }
    if as_of is not None:
        columns["as_of"] = as_of
    return columns


def _decoded(column: str | None) -> Any:
    """A column may be null where the store keeps it encrypted."""
    return None if column is None else msgspec.json.decode(column)
