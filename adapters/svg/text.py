"""Text in a drawing: how wide it is, where it is broken, and how it is written into XML.

A viewer picks the first font that it has, so widths are those of DejaVu Sans, the widest of the common sans-serif
fonts: what fits by this table fits in Arial and Helvetica too. Lengths are in pixels.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape

FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
# Thousandths of the font's size, from the space to the tilde.
_NARROW = (
    "318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 636 337 337 "
    "838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787 695 635 611 732 684 989 "
    "685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278 579 278 974 634 612 635 635 411 521 "
    "392 634 592 818 592 592 525 636 337 636 838"
)
_BOLD = (
    "348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696 696 400 400 "
    "838 838 838 580 1000 774 762 734 830 683 683 821 837 372 372 775 637 995 837 850 733 850 770 720 682 812 774 1103 "
    "771 724 725 457 365 457 838 500 500 675 716 593 716 678 435 716 712 343 343 665 343 1042 712 687 716 716 493 595 "
    "478 712 652 924 645 652 582 712 365 712 838"
)
_WIDTHS = {
    bold: {chr(32 + index): int(width) for index, width in enumerate(table.split())}
    for bold, table in ((False, _NARROW), (True, _BOLD))
}
_OTHER, _WIDE = 1000, 1300
# What XML 1.0 has no way to write, not even as a reference.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A line may end after these, as after a space.
_SEAMS = re.compile(r"(?<=[ .,;:/_()\[\]{}=+\-|&])")


def width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide `text` is at most, in a font of `size`."""
    table = _WIDTHS[bold]
    return sum(table[char] if char in table else _other(char) for char in text) * size / 1000


def wrap(text: str, size: float, limit: float, *, bold: bool = False, lines_max: int = 6) -> list[str]:
    """`text` on lines of at most `limit` pixels, broken at a seam where there is one; the last of too many ends in an
    ellipsis. At least one line."""
    lines, line = [], ""
    for piece in _pieces(" ".join(text.split()), size, limit, bold):
        if line and width((line + piece).rstrip(), size, bold=bold) > limit:
            lines.append(line.rstrip())
            line = piece.lstrip()
        else:
            line += piece
    lines.append(line.rstrip())
    if len(lines) > lines_max:
        lines = lines[:lines_max]
        while lines[-1] and width(lines[-1] + "…", size, bold=bold) > limit:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return lines


def xml(text: str) -> str:
    """`text` for an XML document, as content or in double quotes; what XML can't hold is shown as U+FFFD."""
    return escape(_UNWRITABLE.sub("\ufffd", text), quote=True)


def number(value: float) -> str:
    """A length with at most one digit after the point."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _other(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return _WIDE if unicodedata.east_asian_width(char) in "WF" else _OTHER


def _pieces(text: str, size: float, limit: float, bold: bool) -> list[str]:
    """`text` cut at its seams, and anywhere within what is too wide for a line."""
    pieces = []
    for piece in _SEAMS.split(text):
        while width(piece.rstrip(), size, bold=bold) > limit and len(piece) > 1:
            cut = len(piece) - 1
            while cut > 1 and width(piece[:cut], size, bold=bold) > limit:
                cut -= 1
            pieces.append(piece[:cut])
            piece = piece[cut:]
        pieces.append(piece)
    return pieces
