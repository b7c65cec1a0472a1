"""Three documents on their way at once: one with images, one without, and one that the archive has no room for."""

from __future__ import annotations

import asyncio
import struct
import zlib
from pathlib import Path
from typing import Any

from statewright.engine.workflows import Orchestrator
from statewright.examples.command import run
from statewright.examples.document_processing.steps import PNG, STEPS
from statewright.examples.files import write
from statewright.statecharts.workflows import load_workflow

WORKFLOW = load_workflow(Path(__file__).with_name("workflow.yaml"))
ROOM = 4_000
"""Bytes that the archive has for a document."""

LAKES = """\
title: Lakes
language: en
# Depths
Some lakes are deep. ![depths](depths.png)
# Shores
![shores](shores.png)
"""
LETTER = """\
title: Brief
language: de
# Anrede
Sehr geehrte Damen und Herren
# Anliegen
Bitte senden Sie uns Papier.
"""
ATLAS = "title: Atlas\nlanguage: en\n" + "".join(f"# Map {n}\n{'Rivers and lakes. ' * 60}\n" for n in range(1, 10))
DOCUMENTS = {"lakes.md": LAKES, "letter.md": LETTER, "atlas.md": ATLAS}


async def main(folder: Path, store: str) -> dict[str, Any]:
    prepare(folder)
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=STEPS) as orchestrator:
        # Under ids of our own: started again after a crash, these are the executions that there are already.
        inputs = {name.removesuffix(".md"): {"folder": folder, "document": name, "room": ROOM} for name in DOCUMENTS}
        for execution, one in inputs.items():
            await orchestrator.execute("document_processing", one, id=execution)
        await asyncio.gather(*(orchestrator.wait(execution) for execution in inputs))
        return {execution: await show(orchestrator, execution) for execution in inputs}


async def show(orchestrator: Orchestrator, execution: str) -> dict[str, Any]:
    """Prints what has become of a document; returns it, without the times."""
    status = await orchestrator.status(execution)
    results = await orchestrator.step_results(execution)
    print(f"{execution}: {status.status}{f', {status.error}' if status.error else ''}")
    for step, result in results.items():
        print(f"  {step:<16} {result.status:<12} {result.error or result.data}")
    return {
        "status": status.status,
        "error": status.error,
        "steps": {step: [result.status, result.data, result.error] for step, result in results.items()},
    }


def prepare(folder: Path) -> None:
    """The documents in the inbox, unless they are on their way already, and what they need."""
    for name, text in DOCUMENTS.items():
        if not (folder / "desk" / name).exists():
            write(folder / "inbox" / name, text)
    write(folder / "images" / "depths.png", png(320, 200))
    write(folder / "images" / "shores.png", png(64, 48))
    write(folder / "dictionaries" / "en.txt", "and are deep depths lakes map rivers some")


def png(width: int, height: int) -> bytes:
    """A grey image."""
    rows = (b"\0" + b"\x80" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return PNG + b"".join(packed)


if __name__ == "__main__":
    run(main, "Documents from an inbox into an archive.")
