"""What commands are told: the options that all share, and how JSON, times and numbers are read from arguments."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Group, Parameter

STORE_DEFAULT = "sqlite:///statewright.db"
LIMIT_MAX = 10_000
_NANOSECOND_DIGITS_MIN = 16
"""So many have the nanoseconds since the epoch from 1970-01-12 on."""
GLOBAL = Group("Global options", sort_key=1_000)

Flag = Parameter(negative="")
Repeated = Parameter(negative="")


@Parameter(name="*", group=GLOBAL)
@dataclass(frozen=True)
class Options:
    """Accepted by every command, before or after its name."""

    store: Annotated[str, Parameter(env_var="STATEWRIGHT_STORE")] = STORE_DEFAULT
    "The store: sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user:password@host/database."

    nats: Annotated[str | None, Parameter(env_var="STATEWRIGHT_NATS_URL")] = None
    "The engine's NATS server. Without it `serve` starts one, and who writes finds that one; reading needs none."

    nats_creds: Annotated[str, Parameter(env_var="STATEWRIGHT_NATS_CREDS")] = ""
    "A creds file (JWT and seed). A user, password or token is given by STATEWRIGHT_NATS_USER, _PASSWORD, _TOKEN."

    nats_nkey: Annotated[str, Parameter(env_var="STATEWRIGHT_NATS_NKEY")] = ""
    "A file with an nkey's seed."

    nats_ca: Annotated[str, Parameter(env_var="STATEWRIGHT_NATS_CA")] = ""
    "A PEM file of whom to trust for TLS."

    nats_cert: Annotated[str, Parameter(env_var="STATEWRIGHT_NATS_CERT")] = ""
    "A PEM file of the client's own certificate."

    nats_key: Annotated[str, Parameter(env_var="STATEWRIGHT_NATS_KEY")] = ""
    "A PEM file of its key."

    json: Annotated[bool, Flag] = False
    "Print JSON, one object a line."


@Parameter(name="*")
@dataclass(frozen=True)
class ServeOptions:
    """What only `serve` is told, as text: `settings.py` checks it, with what the environment says."""

    worker: str | None = None
    "This engine's name among others; host and pid by default (STATEWRIGHT_WORKER)."

    log_level: str | None = None
    "debug, info, warning (the default) or error (STATEWRIGHT_LOG_LEVEL)."

    log_format: str | None = None
    "console (the default) or json, a line each on standard error (STATEWRIGHT_LOG_FORMAT)."

    shutdown_timeout: str | None = None
    "How long it may take to come to rest, 10s by default (STATEWRIGHT_SHUTDOWN_TIMEOUT)."

    signals_every: str | None = None
    "How often statewright.signals.WORKER is published, 5s by default, 0s for never (STATEWRIGHT_SIGNALS_EVERY)."

    ready_lag: str | None = None
    "How long what is due may wait in an engine that is ready, 1m by default (STATEWRIGHT_READY_LAG)."

    residents_max: str | None = None
    "How many instances are kept in memory (STATEWRIGHT_RESIDENTS_MAX)."


DEFAULTS = Options()
SERVE_DEFAULTS = ServeOptions()
VALUED = ("--store", "--nats", "--nats-creds", "--nats-nkey", "--nats-ca", "--nats-cert", "--nats-key")
"""The shared options that take a value."""


def invalid(message: str) -> Exception:
    """An `InvalidError`, imported when there is one: the engine takes longer to import than `--help` may last."""
    from statewright.engine.errors import InvalidError

    return InvalidError(message)


def options_last(arguments: list[str], groups: Container[str] = ()) -> list[str]:
    """Shared options that stand before the command, moved to right behind it; behind both words of one that is of a
    group, wherever before the second they stand."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("--"):
        name = arguments[position].partition("=")[0]
        if name not in (*VALUED, "--json"):
            return arguments
        position += 2 if arguments[position] in VALUED else 1
    if position >= len(arguments):
        return arguments
    command, rest = arguments[position], arguments[position + 1 :]
    if command in groups:
        return [command, *options_last([*arguments[:position], *rest])]
    return [command, *arguments[:position], *rest]


def parse_json(option: str, text: str | None) -> Any:
    """The value of an option that takes JSON; None without it. Raises `InvalidError` saying where it is broken."""
    if text is None:
        return None
    import msgspec

    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise invalid(f"expected {option} to be JSON, got {shortened(text)}: {error}") from error


def parse_object(option: str, text: str | None) -> dict[str, Any] | None:
    """Like `parse_json`, for an option that takes a JSON object."""
    value = parse_json(option, text)
    if (value is not None and not isinstance(value, dict)) or (text is not None and value is None):
        raise invalid(f"expected {option} to be a JSON object, got {shortened(text or '')}")
    return value


def parse_time(option: str, text: str) -> int:
    """ISO 8601 (without an offset it is UTC, a date its beginning), or integer nanoseconds since the epoch. Raises
    `InvalidError`."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        if len(text) < _NANOSECOND_DIGITS_MIN:  # A year, or seconds: read as nanoseconds it would be 1970.
            raise invalid(
                f"expected {option} to be a time like 2030-01-31 or 2030-01-31T12:00:00Z, or integer nanoseconds since "
                f"the epoch (at least {_NANOSECOND_DIGITS_MIN} digits), got {shortened(text)}"
            )
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(
            f"expected {option} to be a time like 2030-01-31T12:00:00Z or integer nanoseconds, got {shortened(text)}"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000


def parse_age(option: str, text: str) -> int:
    """A duration such as 90d or 12h, in nanoseconds. Raises `InvalidError`."""
    from statewright.statecharts.durations import parse_duration

    ns = parse_duration(text)
    if ns is None:
        raise invalid(f"expected {option} to be a duration such as 90d, 12h or P90D, got {shortened(text)}")
    return ns


def check_range(option: str, value: int, low: int, high: int) -> int:
    """`value` if low <= value <= high. Raises `InvalidError` otherwise."""
    if not low <= value <= high:
        raise invalid(f"expected {option} to be from {low} to {high}, got {value}")
    return value


def shortened(text: str) -> str:
    """`text` as a Python string literal of at most 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
