"""Secrets are not shown: URLs lose their passwords and tokens before they are printed or logged."""

from __future__ import annotations

import re

MASK = "***"
_CREDENTIALS = re.compile(r"\b(?!sqlite:)([A-Za-z][A-Za-z0-9+.-]*)://([^\s'\"]*)@")
"""Up to the last `@`, because a password may hold one that nobody has escaped. A SQLite URL is a path."""
_PARAMETERS = re.compile(r"([?&;](?:password|passfile|sslpassword|token|secret|key)=)[^&;\s'\"]+", re.IGNORECASE)
_NAMED = re.compile(r"password|token|secret|(^|_)key$", re.IGNORECASE)


def redacted(text: str) -> str:
    """`text` with the credentials in its URLs masked: the password of `user:password@`, all of `token@`."""
    return _PARAMETERS.sub(rf"\1{MASK}", _CREDENTIALS.sub(_mask, text))


def shown(name: str, value: object) -> object:
    """The value of the setting `name` as it may be shown."""
    if not isinstance(value, str):
        return value
    return MASK if value and _NAMED.search(name) else redacted(value)


def _mask(match: re.Match[str]) -> str:
    scheme, credentials = match.groups()
    user, separator, _ = credentials.partition(":")
    return f"{scheme}://{user}:{MASK}@" if separator else f"{scheme}://{MASK}@"
