"""Columns of rows as PostgreSQL arrays, in the binary format.

psycopg dumps any list, but looks at each element for its type (twice the time), and takes the smallest integer type
that fits, so that one statement would be prepared several times. Here the type is said: text[], bigint[], bytea[].
NULLs pass.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, get_type_hints

from psycopg import DataError
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_HEADER = struct.Struct("!iiIii").pack
"""Dimensions, whether there may be NULLs, the element's type, its count, the first index."""
_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)


class Column(tuple[Any, ...]):
    """A parameter of one statement: the same column of many rows."""

    __slots__ = ()


class Texts(Column):
    __slots__ = ()


class Integers(Column):
    __slots__ = ()


class Blobs(Column):
    __slots__ = ()


def columns_of(row: type[Any], rows: Sequence[tuple[Any, ...]]) -> list[Column]:
    """The columns of `rows`, which are `row`s (NamedTuples, whose annotations say what a column holds)."""
    return [kind(values) for kind, values in zip(kinds_of(row), zip(*rows, strict=True), strict=True)]


_KINDS: dict[type[Any], tuple[type[Column], ...]] = {}


def kinds_of(row: type[Any]) -> tuple[type[Column], ...]:
    """What the columns of a NamedTuple hold."""
    if row not in _KINDS:
        hints = get_type_hints(row)
        _KINDS[row] = tuple(_KIND_OF[hints[name]] for name in row._fields)
    return _KINDS[row]


_KIND_OF: dict[Any, type[Column]] = {
    str: Texts,
    str | None: Texts,
    int: Integers,
    int | None: Integers,
    bytes: Blobs,
}


def register(adapters: AdaptersMap) -> None:
    """Have a connection take these columns."""
    for kind, dumper in ((Texts, _TextsDumper), (Integers, _IntegersDumper), (Blobs, _BlobsDumper)):
        adapters.register_dumper(kind, dumper)


class _ColumnDumper(Dumper):
    format = Format.BINARY
    element: ClassVar[int]

    def dump(self, obj: Any) -> bytes:
        parts = [_HEADER(1, 1, self.element, len(obj), 1)]
        for value in self.encoded(obj):
            if value is None:
                parts.append(_NULL)
            else:
                parts.append(_LENGTH(len(value)))
                parts.append(value)
        return b"".join(parts)

    def encoded(self, values: Iterable[Any]) -> Iterable[bytes | None]:
        raise NotImplementedError


class _TextsDumper(_ColumnDumper):
    oid = 1009
    element = 25

    def dump(self, obj: Any) -> bytes:
        # The server would refuse it too, but in the words of an encoding.
        for value in obj:
            if value is not None and "\0" in value:
                raise DataError(f"expected text without NUL characters, got {value[:100]!r}")
        return super().dump(obj)

    def encoded(self, values: Iterable[str | None]) -> Iterable[bytes | None]:
        return [None if value is None else value.encode() for value in values]


class _BlobsDumper(_ColumnDumper):
    oid = 1001
    element = 17

    def encoded(self, values: Iterable[bytes]) -> Iterable[bytes | None]:
        return values


class _IntegersDumper(_ColumnDumper):
    oid = 1016
    element = 20

    def dump(self, obj: Any) -> bytes:
        if None in obj:
            return super().dump(obj)
        count = len(obj)
        cells = [8] * (2 * count)
        cells[1::2] = obj
        return _HEADER(1, 0, 20, count, 1) + struct.pack(f"!{'iq' * count}", *cells)

    def encoded(self, values: Iterable[int | None]) -> Iterable[bytes | None]:
        return [None if value is None else value.to_bytes(8, signed=True) for value in values]
