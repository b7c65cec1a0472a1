"""What steps of the examples do with files.

A step is performed at least once: after a crash it may run again, over what it has left half done. Hence a file is
written beside its place and then moved there, so that it is there whole or not at all, and writing it again changes
nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

JOURNAL = "journal.txt"


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, whole or not at all; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(beside, path)
    return path


def note(folder: Path, effect_id: str, step: str) -> None:
    """Note in the folder's journal that a step begins: `<ns UTC> <effect id> <step>`, in one write, whole whoever else
    writes. No example reads it; the kill test compares it with what is recorded."""
    journal = os.open(folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(journal, f"{time.time_ns()} {effect_id} {step}\n".encode())
    finally:
        os.close(journal)
