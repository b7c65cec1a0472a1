"""An archive of pruned instances: gzip of JSON lines, each instance with all that the store had of it.

    {"type": "archive", "format": 1, ...}                        first
    {"type": "definition", "name", "version", "digest", "json"}  before the first instance that runs it
    {"type": "instance", "row", "facts", "inbox", "effects"}     a fact is [position, sequence, topic, state]

Invariants: `add` returns when its lines are on the disk, in a gzip member of their own; so whatever happens later, all
that was added can be read. States are kept to the byte: as the JSON that they are, or in base64 (a cipher is set).
"""

from __future__ import annotations

import base64
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec
from eventsourcing.persistence import Notification

from statewright.engine.errors import InvalidError
from statewright.engine.recorder import DefinitionRow, EffectRow, InboxRow, InstanceRow

FORMAT = 1
SUFFIX = ".jsonl.gz"
_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True, tag_field="type", tag="archive"):
    format: int
    store: str
    created_at: int
    """ns UTC."""


class Definition(msgspec.Struct, frozen=True, tag_field="type", tag="definition"):
    name: str
    version: str
    digest: str
    json: str

    @property
    def row(self) -> DefinitionRow:
        return DefinitionRow(self.name, self.version, self.digest, self.json)


class ArchivedFact(msgspec.Struct, frozen=True, array_like=True):
    position: int
    sequence: int
    topic: str
    state: msgspec.Raw = msgspec.Raw(b"null")
    state_base64: str = ""

    @classmethod
    def of(cls, event: Notification) -> ArchivedFact:
        place = (event.id, event.originator_version, event.topic)
        try:
            return cls(*place, msgspec.Raw(_checked(event.state)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return cls(*place, state_base64=base64.b64encode(event.state).decode())

    def event(self, instance_id: str) -> Notification:
        state = base64.b64decode(self.state_base64) if self.state_base64 else bytes(self.state)
        return Notification(instance_id, self.sequence, self.topic, state, self.position)


class ArchivedInstance(msgspec.Struct, frozen=True, tag_field="type", tag="instance"):
    row: dict[str, Any]
    facts: list[ArchivedFact]
    inbox: list[tuple[str, str, int, str]]
    """source, event id, sequence, digest in hexadecimal."""
    effects: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        row: InstanceRow,
        events: Sequence[Notification],
        inbox: Sequence[InboxRow],
        effects: Sequence[EffectRow],
    ) -> ArchivedInstance:
        return cls(
            row._asdict(),
            [ArchivedFact.of(event) for event in events],
            [(one.source, one.event_id, one.sequence, one.digest.hex()) for one in inbox],
            [effect._asdict() for effect in effects],
        )

    @property
    def instance_row(self) -> InstanceRow:
        return InstanceRow(**self.row)

    @property
    def events(self) -> list[Notification]:
        return [fact.event(self.row["id"]) for fact in self.facts]

    @property
    def inbox_rows(self) -> list[InboxRow]:
        return [InboxRow(self.row["id"], *one[:3], bytes.fromhex(one[3])) for one in self.inbox]

    @property
    def effect_rows(self) -> list[EffectRow]:
        return [EffectRow(**effect) for effect in self.effects]


class Torn(msgspec.Struct, frozen=True):
    """The archive ends in the middle, after so many whole lines. Only `read_archive` makes it."""

    lines: int


Line = Head | Definition | ArchivedInstance
_decode = msgspec.json.Decoder(Line).decode


class ArchiveWriter:
    """A new archive at `path`. The file is made with the first lines: nothing to archive makes none.

    Raises `InvalidError` for another name than *.jsonl.gz, and for a file that exists; `OSError`.
    """

    def __init__(self, path: str, head: Head) -> None:
        if not path.endswith(SUFFIX):
            raise InvalidError(f"expected the archive's file to be called *{SUFFIX}, got '{path}'")
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise InvalidError(f"expected a folder to write the archive to, but there is none for '{path}'")
        if os.path.lexists(path):
            raise InvalidError(f"expected a new file for the archive, but '{path}' exists")
        self._path = path
        self._head: Head | None = head
        self._file: BinaryIO | None = None

    def add(self, lines: Sequence[Line]) -> None:
        """Returns when they are on the disk."""
        if self._file is None:
            # Only its user may read it, as a backup: it holds the facts, whatever the umask lets others read.
            self._file = open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
            _sync_folder(self._path)
        given = [self._head, *lines] if self._head is not None else lines
        self._head = None
        self._file.write(gzip.compress(b"".join(_encode(line) + b"\n" for line in given), compresslevel=6, mtime=0))
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Remove the file."""
        if self._file is not None:
            os.unlink(self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_archive(path: str) -> Iterator[Line | Torn]:
    """The lines, one after another. An archive may end in the middle, where a prune was killed: nothing was pruned then
    of what is missing. `Torn` is the last then. Raises `InvalidError` for what is no archive, `OSError`."""
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            for raw in file:
                number += 1
                line = _decode(raw)
                if number == 1 and (not isinstance(line, Head) or line.format != FORMAT):
                    raise InvalidError(f"expected an archive of format {FORMAT}, but '{path}' begins with {raw[:60]!r}")
                yield line
        if number == 0:
            yield Torn(0)
    except EOFError:
        yield Torn(number)
    except (msgspec.DecodeError, UnicodeDecodeError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidError(f"expected an archive of pruned instances, '{path}' line {number}: {error}") from error


def _checked(state: bytes) -> bytes:
    """`state` if it is JSON that comes back to the byte. Raises `msgspec.DecodeError`, `UnicodeDecodeError`."""
    state.decode()
    if msgspec.json.decode(state, type=msgspec.Raw) != state or b"\n" in state:
        raise msgspec.DecodeError("it has blanks around it")
    msgspec.json.decode(state)
    return state


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
