"""Makes thumbnails of 24 images, of which one is damaged, and packs them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from statewright.engine.workflows import Orchestrator
from statewright.examples.command import run
from statewright.examples.files import write
from statewright.examples.media_batch.png import Image, write_png
from statewright.examples.media_batch.workflow import batch_of

IMAGES = 24
DAMAGED = 7


async def main(folder: Path, store: str) -> dict[str, Any]:
    images = prepare(folder)
    batch = batch_of(images)
    async with Orchestrator.open(store, workflows=[batch]) as orchestrator:
        # The same id and input again is the same execution: started again after a crash, this goes on with it.
        execution = await orchestrator.execute(batch.id, {"folder": folder}, id="batch")
        status = await orchestrator.wait(execution)
        results = await orchestrator.step_results(execution)
        metrics = await orchestrator.metrics(execution)
    for image in results["manifest"].data["missing"]:
        print(f"left out: {image}")
    print(f"{status.status}: {metrics.completed_steps} of {metrics.total_steps} steps, {results['archive'].data}")
    return {
        "status": status.status,
        "errors": metrics.errors,
        "manifest": results["manifest"].data,
        "archive": results["archive"].data,
    }


def prepare(folder: Path) -> list[str]:
    """The images, each time the same; of one the second half is missing."""
    names = [f"image-{number:02}.png" for number in range(1, IMAGES + 1)]
    for number, name in enumerate(names, 1):
        data = write_png(pattern(number))
        write(folder / "images" / name, data[: len(data) // 2] if number == DAMAGED else data)
    return names


def pattern(number: int) -> Image:
    """Coloured stripes."""
    width, height = 96 + 4 * number, 64 + 3 * number
    rows = (
        bytes(value for x in range(width) for value in ((x * number) % 256, (y * 5) % 256, (x + y) % 256))
        for y in range(height)
    )
    return Image(width, height, tuple(rows))


if __name__ == "__main__":
    run(main, "Thumbnails of a batch of images, a manifest and an archive.")
