"""What is kept of an error that other people's code has raised.

Invariant: whatever the error, its text can be written to every store and sent as JSON: UTF-8 (a name of a file may hold
bytes that aren't), no NUL, of bounded length. An attempt whose error can't be told would never end.
"""

from __future__ import annotations

ERROR_CHARS_MAX = 10_000
"""The longest message of an error that is kept; what is longer ends by saying how long it was."""


def said_by(error: BaseException) -> str:
    """The message of an error, "" if it has none or can't say it."""
    try:
        said = str(error)
    except Exception as failure:
        return f"(its message can't be had: its __str__ raised {type(failure).__name__})"
    said = said.replace("\0", "").encode(errors="backslashreplace").decode()
    if len(said) > ERROR_CHARS_MAX:
        return f"{said[:ERROR_CHARS_MAX]}... ({len(said):,} characters)"
    return said


def told(error: BaseException) -> str:
    """An error with its type, in one text."""
    said = said_by(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
