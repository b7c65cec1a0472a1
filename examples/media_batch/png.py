"""PNG images of eight-bit colours, read and written with the standard library: enough to make real thumbnails.

https://www.w3.org/TR/png-3/ is what it does, without interlacing, palettes and transparency.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL = 3
"""Bytes: red, green, blue."""
_COLOURS = (8, 2, 0, 0, 0)
"""Bits of a colour, RGB, and the only compression, filtering, and no interlacing."""


class InvalidImage(ValueError):
    """It is no PNG file, a damaged one, or of a kind that is not read here."""


@dataclass(frozen=True)
class Image:
    """`rows` from the top, each `width` pixels of three bytes."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    def thumbnail(self, longest: int) -> Image:
        """The image made smaller, so that its longer side has `longest` pixels, each the mean of those in its place."""
        scale = max(1.0, max(self.width, self.height) / longest)
        width, height = max(1, round(self.width / scale)), max(1, round(self.height / scale))
        columns = [_span(x, width, self.width) for x in range(width)]
        lines = (_span(y, height, self.height) for y in range(height))
        return Image(width, height, tuple(_mean_row(self.rows[top:bottom], columns) for top, bottom in lines))


def _span(index: int, count: int, of: int) -> tuple[int, int]:
    return index * of // count, max((index + 1) * of // count, index * of // count + 1)


def _mean_row(rows: tuple[bytes, ...], columns: list[tuple[int, int]]) -> bytes:
    row = bytearray()
    for left, right in columns:
        for colour in range(PIXEL):
            values = [value for line in rows for value in line[left * PIXEL + colour : right * PIXEL : PIXEL]]
            row.append(sum(values) // len(values))
    return bytes(row)


def write_png(image: Image) -> bytes:
    header = struct.pack(">II", image.width, image.height) + bytes(_COLOURS)
    pixels = zlib.compress(b"".join(b"\0" + row for row in image.rows))
    return SIGNATURE + b"".join(_chunk(*one) for one in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")))


def read_png(data: bytes) -> Image:
    """Raises `InvalidImage`."""
    if not data.startswith(SIGNATURE):
        raise InvalidImage("this is no PNG file")
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND":
        raise InvalidImage("the file has no header, or no end")
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[0][1])
    if tuple(kind) != _COLOURS:
        raise InvalidImage("only RGB of eight bits is read here, without interlacing")
    try:
        pixels = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    except zlib.error as error:
        raise InvalidImage(f"its pixels can't be unpacked: {error}") from error
    if len(pixels) != height * (width * PIXEL + 1):
        raise InvalidImage(f"{width} x {height} pixels were expected, it has others")
    return Image(width, height, tuple(_unfiltered(pixels, width * PIXEL)))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        name, content, check = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if len(check) < 4 or int.from_bytes(check) != zlib.crc32(name + content):
            raise InvalidImage(f"it is damaged after {at} bytes")
        yield name, content
        at += 12 + size


def _unfiltered(pixels: bytes, size: int) -> Iterator[bytes]:
    """The rows, of each of which the first byte says how it was filtered (chapter 9)."""
    above = bytes(size)
    for start in range(0, len(pixels), size + 1):
        kind, row = pixels[start], bytearray(pixels[start + 1 : start + 1 + size])
        if kind > 4:
            raise InvalidImage(f"there is no filter {kind}")
        for index in range(size) if kind else ():
            left = row[index - PIXEL] if index >= PIXEL else 0
            corner = above[index - PIXEL] if index >= PIXEL else 0
            guess = (0, left, above[index], (left + above[index]) // 2, _paeth(left, above[index], corner))[kind]
            row[index] = (row[index] + guess) & 0xFF
        above = bytes(row)
        yield above


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))
