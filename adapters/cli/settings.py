"""Settings of `serve`: by flag or by environment, all checked before anything is opened.

Invariants: a flag goes before the environment, the environment before the default; an empty variable is one that is
not set. All faults are told at once. What is shown of a secret is that it is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any, NamedTuple, get_type_hints

from cyclopts import Parameter

from statewright.adapters.cli.logs import FORMATS, LEVELS
from statewright.adapters.cli.options import Options, shortened
from statewright.adapters.cli.wiring import VARIABLE_CHECKS, check_nats, default_worker
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import InvalidError
from statewright.engine.ids import check_id
from statewright.engine.redaction import redacted
from statewright.engine.residents import RESIDENTS_MAX
from statewright.engine.stores import STORES
from statewright.statecharts.durations import format_duration, parse_duration

RESIDENTS_LIMIT = 10_000_000
PREFIX = "STATEWRIGHT_"
MASK = "***"
_SECRET = re.compile(r"password|token|secret|(?<!nats)(^|_)key$", re.IGNORECASE)
"""Names of settings that are secrets themselves; `nats_key` is a file."""


class Setting(NamedTuple):
    """One setting of `serve`. `read` makes the value of a text, or raises `InvalidError` with what was expected."""

    name: str
    default: str
    read: Callable[[str], Any]

    singular: str = ""
    """The flag's name when it is given once for each."""

    @property
    def flag(self) -> str:
        return f"--{(self.singular or self.name).replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.name.upper()}"


class Shown(NamedTuple):
    """One line of `serve --print-settings`. origin: "flag", "environment" or "default"."""

    setting: str
    value: Any
    origin: str
    flag: str
    variable: str

    @property
    def where(self) -> str:
        """What set it."""
        return self.variable if self.origin == "environment" else self.flag


@dataclass(frozen=True)
class Settings:
    """What `serve` runs with; times in seconds."""

    options: Options
    charts: list[str]
    handlers: list[str]
    plugins: list[str]
    log_level: str
    log_format: str
    shutdown_timeout: float
    signals_every: float
    ready_lag: float
    worker: str
    residents_max: int


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise InvalidError(f"expected one of {', '.join(choices)}")
        return text

    return read


def _seconds(low: float, high: float, *, zero: bool = False) -> Callable[[str], float]:
    def read(text: str) -> float:
        ns = parse_duration(text)
        if ns is None or not (low * SECOND_NS <= ns <= high * SECOND_NS or (zero and ns == 0)):
            least, most = (format_duration(round(bound * SECOND_NS)) for bound in (low, high))
            off = "0s for none, or " if zero else ""
            raise InvalidError(f"expected {off}a duration from {least} to {most}, such as 30s")
        return ns / SECOND_NS

    return read


def _count(high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) <= high):
            raise InvalidError(f"expected a whole number from 0 to {high:,}")
        return int(text)

    return read


def _sources(text: str) -> list[str]:
    return [source.strip() for source in text.split(",") if source.strip()]


SETTINGS = (
    Setting("charts", "", _sources, "chart"),
    Setting("handlers", "", _sources),
    Setting("plugins", "", _sources, "plugin"),
    Setting("worker", "", lambda text: check_id("a worker name", text) if text else default_worker()),
    Setting("log_level", "warning", _one_of(LEVELS)),
    Setting("log_format", "console", _one_of(FORMATS)),
    Setting("shutdown_timeout", "10s", _seconds(0, 3600)),
    Setting("signals_every", "5s", _seconds(0.1, 3600, zero=True)),
    Setting("ready_lag", "1m", _seconds(0.1, 86_400)),
    Setting("residents_max", str(RESIDENTS_MAX), _count(RESIDENTS_LIMIT)),
)
OTHER_VARIABLES = (
    "STATEWRIGHT_NATS_USER",
    "STATEWRIGHT_NATS_PASSWORD",
    "STATEWRIGHT_NATS_TOKEN",
    "STATEWRIGHT_NATS_REPLICAS",
    "STATEWRIGHT_NATS_MONITOR",
    "STATEWRIGHT_CIPHER_KEY",
    "STATEWRIGHT_CIPHER_KEY_FILE",
    "STATEWRIGHT_COMPRESSOR",
    "STATEWRIGHT_ACTORS",
    "STATEWRIGHT_RATE_ACTOR",
    "STATEWRIGHT_RATE_SOURCE",
    "STATEWRIGHT_RATE_INSTANCE",
    "STATEWRIGHT_DEBUG",
)
"""What has no flag."""


def read_settings(
    options: Options, given: Mapping[str, str | list[str] | None], environment: Mapping[str, str] = os.environ
) -> tuple[Settings, list[Shown]]:
    """The settings, and how they are shown. `given` are the flags, None for those that are not there. Raises
    `InvalidError` with all faults."""
    faults: list[str] = []
    values: dict[str, Any] = {}
    lines = [*_globals(options, environment, faults)]
    for setting in SETTINGS:
        flag = given.get(setting.name)
        text = environment.get(setting.variable, "")
        origin = "flag" if flag else "environment" if text else "default"
        where = setting.variable if origin == "environment" else setting.flag
        said = flag or text or setting.default
        try:
            value = said if isinstance(said, list) else setting.read(said)
        except InvalidError as error:
            got = "" if ", got " in str(error) else f", got {shortened(redacted(str(said)))}"
            faults.append(f"{where}: {error}{got}")
            continue
        values[setting.name] = value
        printed = value if isinstance(value, list) else said or value
        lines.append(Shown(setting.name, shown(setting.name, printed), origin, setting.flag, setting.variable))
    for name in OTHER_VARIABLES:
        text = environment.get(name, "")
        if text:
            short = name.removeprefix(PREFIX).lower()
            lines.append(Shown(short, shown(short, text), "environment", "", name))
    for check_variables in VARIABLE_CHECKS:
        try:
            check_variables(environment)
        except InvalidError as error:
            faults.append(str(error))
    if faults:
        many = f"{len(faults)} settings are wrong: " if len(faults) > 1 else ""
        raise InvalidError(many + "; ".join(faults))
    return Settings(options, **values), lines


def shown(name: str, value: object) -> object:
    """The value of the setting `name` as it may be shown."""
    if not isinstance(value, str):
        return value
    return MASK if value and _SECRET.search(name) else redacted(value)


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Complaints about variables that look like settings and are none. Others are left alone: a container platform puts
    variables of its own under the name of a service."""
    known = known_variables()
    strange = [name for name in sorted(environment) if name.startswith(PREFIX) and name not in known]
    return [
        f"{name} is no setting and is passed over; did you mean {close[0]}?"
        for name in strange
        if (close := get_close_matches(name, known, 1, 0.85))
    ]


def known_variables() -> list[str]:
    """Every variable that is read."""
    return [*(setting.variable for setting in SETTINGS), *_variables().values(), *OTHER_VARIABLES]


def _variables() -> dict[str, str]:
    """By option that all commands share, its variable."""
    hints = get_type_hints(Options, include_extras=True)
    found = {}
    for field in fields(Options):
        for parameter in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(parameter, Parameter) and parameter.env_var:
                found[field.name] = str(next(iter(parameter.env_var)))
    return found


def _globals(options: Options, environment: Mapping[str, str], faults: list[str]) -> list[Shown]:
    variables = _variables()
    lines = []
    for field in fields(Options):
        if field.name not in variables:
            continue
        value, variable = getattr(options, field.name), variables[field.name]
        set_there = bool(environment.get(variable)) and str(value) == environment.get(variable)
        origin = "environment" if set_there else "default" if value == field.default else "flag"
        flag = f"--{field.name.replace('_', '-')}"
        line = Shown(field.name, shown(field.name, value), origin, flag, variable)
        lines.append(line)
        check = _CHECKS.get(field.name)
        try:
            if check is not None and value is not None:
                check(str(value))
        except InvalidError as error:
            faults.append(f"{line.where}: {error}")
    if options.nats in (None, "embedded"):
        # Who names a login, or an authority, means a server; our own has a password of its own.
        astray = [line for line in lines if line.setting.startswith("nats_") and line.value]
        said = "expected --nats with the URL of the server that it is for, got none"
        faults += (f"{line.where}: {said}" for line in astray)
    return lines


def _check_store(url: str) -> None:
    known = sorted({entry.name for entry in entry_points(group=STORES)})
    if url.partition(":")[0] not in known or ":" not in url:
        raise InvalidError(
            f"expected a store URL with one of the schemes {', '.join(known)}, such as sqlite:///app.db, "
            f"got {shortened(redacted(url))}"
        )


_CHECKS: dict[str, Callable[[str], None]] = {"store": _check_store, "nats": check_nats}
