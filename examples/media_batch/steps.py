"""The steps: a thumbnail of each image, a manifest of all, an archive.

A step may be performed twice: the same bytes are written to the same place, whole or not at all, and the archive has no
times in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from statewright.engine import PermanentError
from statewright.engine.workflows import StepCall
from statewright.examples.files import note, write
from statewright.examples.media_batch.png import InvalidImage, read_png, write_png

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip file knows."""


def thumbnail(folder: Path, image: str, longest: int, call: StepCall) -> dict[str, Any]:
    """Makes it and says what it is like. What is no image now will be none in a second, so that is final."""
    note(folder, call.effect_id, call.step)
    try:
        small = read_png((folder / "images" / image).read_bytes()).thumbnail(longest)
    except InvalidImage as error:
        raise PermanentError(f"image '{image}': {error}") from error
    data = write_png(small)
    write(folder / "thumbnails" / image, data)
    return {
        "image": image,
        "width": small.width,
        "height": small.height,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def manifest(folder: Path, images: list[str], results: dict[str, dict[str, Any]], call: StepCall) -> dict[str, Any]:
    """A list of the thumbnails, and of the images that there are none of."""
    note(folder, call.effect_id, call.step)
    made = sorted(results.values(), key=lambda one: str(one["image"]))
    missing = sorted(set(images) - {one["image"] for one in made})
    write(folder / "manifest.json", json.dumps({"thumbnails": made, "missing": missing}, indent=2))
    return {"thumbnails": len(made), "missing": missing}


def archive(folder: Path, call: StepCall) -> dict[str, Any]:
    """The manifest and what it lists in one file."""
    note(folder, call.effect_id, call.step)
    listed = [one["image"] for one in json.loads((folder / "manifest.json").read_text())["thumbnails"]]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ["manifest.json", *(f"thumbnails/{image}" for image in listed)]:
            file.writestr(zipfile.ZipInfo(name, LONG_AGO), (folder / name).read_bytes())
    write(folder / "batch.zip", packed.getvalue())
    return {"file": "batch.zip", "entries": len(listed) + 1, "bytes": len(packed.getvalue())}
