"""A workflow for a batch: as many steps as it has images, four of them at once, then the manifest, then the archive."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from statewright.examples.media_batch import steps
from statewright.statecharts.workflows import Workflow

AT_ONCE = 4
LONGEST = 32


def batch_of(images: Sequence[str]) -> Workflow:
    """The steps depend on which images there are, so each list of them is a version of its own."""
    version = hashlib.sha256("\n".join(images).encode()).hexdigest()[:12]
    workflow = Workflow("media_batch", mode="parallel", concurrency=AT_ONCE, timeout="10m", version=version)
    where = {"folder": "${input.folder}"}
    members = {f"thumbnail_{number:02}": image for number, image in enumerate(images, 1)}
    for step, image in members.items():
        parameters = {**where, "image": image, "longest": LONGEST}
        workflow.add_step(id=step, name=image, function=steps.thumbnail, parameters=parameters)
    return (
        workflow.add_step(id="manifest", function=steps.manifest, parameters={**where, "images": list(images)})
        .add_step(id="archive", function=steps.archive, parameters=where, dependencies=["manifest"])
        # An image that can't be read is left out; the manifest says so.
        .add_parallel_group("thumbnails", steps=list(members), merge="manifest", on_failure="partial")
    )


example = batch_of(["a.png", "b.png", "c.png"])
"""For looking at: `statewright render workflow.py:example`."""
