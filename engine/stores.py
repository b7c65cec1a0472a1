"""Finding things by name through entry points, so that the engine imports no adapter."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from statewright.engine.errors import InvalidError, UnavailableError
from statewright.engine.recorder import Store
from statewright.engine.redaction import redacted

STORES = "statewright.stores"
BUSES = "statewright.buses"


def open_store(url: str, *, read_only: bool = False) -> Store:
    """The store behind `url`, by its scheme. Raises `InvalidError` for an unknown scheme, and what the store raises."""
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise InvalidError(f"expected a store URL such as sqlite:///app.db, got {redacted(url)!r}")
    store: Store = _load(STORES, scheme, f"store URL {redacted(url)!r}")(url, read_only=read_only)
    return store


def bus_opener(name: str) -> Any:
    """The coroutine that opens the doors of bus `name` for an engine."""
    return _load(BUSES, name, f"bus {name!r}")


def _load(group: str, name: str, what: str) -> Any:
    found = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise InvalidError(f"expected one of the installed {group} ({known}), got {what}")
    try:
        return found[name].load()
    except ImportError as error:
        raise UnavailableError(f"{what} needs a library that is not installed: {error}") from error
