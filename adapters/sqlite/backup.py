"""A copy of a SQLite store, made while it is in use.

Invariants: the copy is the store as of one moment (one read transaction, which holds up nobody); it appears under its
name only when it is whole, on the disk, and SQLite finds no fault in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress

from statewright.adapters.sqlite import schema
from statewright.adapters.sqlite.datastore import connect
from statewright.engine.errors import InvalidError, UnavailableError

PAGES = 1_024
"""How many pages are copied between two looks at whether somebody wants to stop."""


def back_up(path: str, target: str, verify: Callable[[str], None]) -> int:
    """Copy the store at `path` to the new file `target`; its size in bytes. `verify` is called with the copy's path
    before it gets its name, and raises if it is not to be kept.

    Raises `InvalidError` (the target exists), `UnavailableError` (can't be read or written), what `verify` raises.
    """
    if os.path.lexists(target):
        raise InvalidError(f"expected a new file for the backup, but '{target}' exists")
    partial = f"{target}.partial"
    try:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        _copy(path, partial)
        verify(partial)
        _sync(partial)
        os.link(partial, target)  # Unlike a rename it never replaces a file.
        _sync(os.path.dirname(os.path.abspath(target)))
        return os.path.getsize(target)
    except FileExistsError as error:
        raise InvalidError(f"expected a new file for the backup, but '{target}' exists by now") from error
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(f"the store '{path}' can't be backed up to '{target}': {error}") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                os.unlink(f"{partial}{suffix}")


def _copy(path: str, partial: str) -> None:
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect(path, "ro")) as source, closing(connect(partial, "rw")) as copy:
        source.execute("BEGIN")
        schema.check_exists(source, path)  # It reads, so from here on this connection sees one moment.
        source.backup(copy, pages=PAGES, sleep=0)
        copy.execute("PRAGMA journal_mode = DELETE")  # One file; who owns it makes it a WAL again.
        found = [row[0] for row in copy.execute("PRAGMA integrity_check")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError(f"the copy is damaged, and so may be the store: {'; '.join(found[:3])}")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
