"""Redaction: URLs as they may be shown."""

from __future__ import annotations

import re

# As far as it goes: a password that should have been escaped may hold anything. After a third slash comes a path.
_LOGIN = re.compile(r"(?<=://)(?!/)[^\s'\"]*@")
_PARAMETER = re.compile(r"(?i)(?<=[?&\s])(password|passwd|sslpassword|secret|token|key)=[^&\s'\"]*")


def redacted(text: str) -> str:
    """`text` with `***` for the login in each URL in it (user, password or token before the @), and for passwords
    among its parameters."""
    if "@" not in text and "=" not in text:
        return text
    return _PARAMETER.sub(r"\1=***", _LOGIN.sub("***@", text))
