"""Where a PostgreSQL store is: its URL, read by libpq's rules, and what is said of a URL that is wrong."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict

from statewright.engine.errors import InvalidError
from statewright.engine.redaction import redacted

SCHEME = "postgresql://"

DEFAULTS = {
    "application_name": "statewright",
    "connect_timeout": "5",  # s; libpq would wait for ever
    # A server that has gone without a word is noticed within about 15 s.
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}
"""Of the connection, unless the URL says otherwise."""


def parameters_of(url: str) -> dict[str, str]:
    """The connection's parameters, for `psycopg.connect`. Raises `InvalidError` without showing a password."""
    expected = (
        "expected a store URL like postgresql://user:password@host:5432/database, with what is special in user or "
        f"password percent-encoded, got '{redacted(url)}'"
    )
    if not url.startswith(SCHEME):
        raise InvalidError(expected)
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except (psycopg.ProgrammingError, UnicodeError):
        # libpq's own message may quote a part of the password.
        raise InvalidError(expected) from None
    ports = found.get("port", "").split(",")
    if "@" in found.get("host", "") or not all(port == "" or port.isdecimal() for port in ports):
        raise InvalidError(expected)
    return {**DEFAULTS, **found}
