"""The example, run as it is run by hand, and its images."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from statewright.engine import PermanentError
from statewright.engine.events import Macrostep
from statewright.engine.workflows import Orchestrator, StepCall
from statewright.examples.command import store_in
from statewright.examples.media_batch.main import DAMAGED, IMAGES, main, pattern, prepare
from statewright.examples.media_batch.png import Image, InvalidImage, read_png, write_png
from statewright.examples.media_batch.steps import archive, manifest, thumbnail
from statewright.examples.media_batch.workflow import AT_ONCE, LONGEST, batch_of
from tests.test_readme import ROOT, blocks, commands, run

FOLDER = ROOT / "examples" / "media_batch"
README = (FOLDER / "README.md").read_text("utf-8")
CALL = StepCall("e", "media_batch", "step", effect_id="e-1-0")
LEFT_OUT = f"image-{DAMAGED:02}.png"


async def test_all_images_but_the_damaged_one_are_packed(tmp_path: Path) -> None:
    found = await main(tmp_path, store_in(tmp_path))
    assert found["status"] == "completed"
    assert found["manifest"] == {"thumbnails": IMAGES - 1, "missing": [LEFT_OUT]}
    assert list(found["errors"]) == [f"thumbnail_{DAMAGED:02}"]
    with zipfile.ZipFile(tmp_path / "batch.zip") as packed:
        listed = json.loads(packed.read("manifest.json"))["thumbnails"]
        assert packed.testzip() is None
        for one in listed:
            image = read_png(packed.read(f"thumbnails/{one['image']}"))
            assert (image.width, image.height) == (one["width"], one["height"])
            assert max(image.width, image.height) == LONGEST
    assert len(listed) == IMAGES - 1
    assert await main(tmp_path, store_in(tmp_path)) == found, "started again, it finds what it has done"


async def test_never_more_run_at_once_than_it_says(tmp_path: Path) -> None:
    batch = batch_of(prepare(tmp_path))
    async with Orchestrator.open(store_in(tmp_path), workflows=[batch]) as orchestrator:
        await orchestrator.execute_and_wait(batch.id, {"folder": tmp_path}, id="batch", timeout=60)
        facts = await orchestrator.engine.history("batch")
    running: set[str] = set()
    most = 0
    for one in (one for fact in facts if isinstance(fact, Macrostep) for one in fact.steps):
        if one.status == "running":
            running.add(one.step)
            most = max(most, len(running))
        elif one.status != "pending":
            running.discard(one.step)
    assert most == AT_ONCE


def test_the_readmes_commands_work_and_print_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "example", ignore=shutil.ignore_patterns("__pycache__"))
    printed = [run(command, tmp_path / "example") for command in commands(README)]
    assert printed[1].startswith(blocks(README, "")[0])


def test_steps_may_run_twice(tmp_path: Path) -> None:
    write = tmp_path / "images" / "a.png"
    write.parent.mkdir()
    write.write_bytes(write_png(pattern(3)))
    results = [{"a": thumbnail(tmp_path, "a.png", LONGEST, CALL)} for _ in range(2)]
    assert results[0] == results[1]
    assert manifest(tmp_path, ["a.png", "b.png"], results[0], CALL) == {"thumbnails": 1, "missing": ["b.png"]}
    packed = [(archive(tmp_path, CALL), (tmp_path / "batch.zip").read_bytes()) for _ in range(2)]
    assert packed[0] == packed[1]


def filtered(image: Image, kind: int) -> bytes:
    """The image as another program might write it, with one of the filters of PNG."""
    above, packed = bytes(image.width * 3), b""
    for row in image.rows:
        line = bytearray()
        for index, value in enumerate(row):
            left = row[index - 3] if index >= 3 else 0
            corner = above[index - 3] if index >= 3 else 0
            up = above[index]
            guess = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
            line.append((value - (0, left, up, (left + up) // 2, guess)[kind]) % 256)
        packed += bytes([kind]) + line
        above = row
    plain = write_png(image)
    content = zlib.compress(packed)
    start, end = plain[:33], plain[-12:]
    check = struct.pack(">I", zlib.crc32(b"IDAT" + content))
    return start + struct.pack(">I", len(content)) + b"IDAT" + content + check + end


@pytest.mark.parametrize("kind", range(5))
def test_images_are_read_whatever_their_filter(kind: int) -> None:
    image = pattern(2)
    assert read_png(filtered(image, kind)) == image
    assert read_png(write_png(image)) == image


def test_a_thumbnail_has_the_means_of_its_pixels() -> None:
    image = Image(4, 2, (bytes([0] * 6 + [100] * 6), bytes([2] * 6 + [102] * 6)))
    assert image.thumbnail(2) == Image(2, 1, (bytes([1] * 3 + [101] * 3),))
    assert image.thumbnail(9) == image


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GIF89a", "no PNG file"),
        (write_png(pattern(1))[:-20], "damaged after 33 bytes"),
        (write_png(pattern(1))[:-12], "no header, or no end"),
        (write_png(Image(2, 2, (b"abcdef",))), "2 x 2 pixels"),
    ],
)
def test_what_is_no_image_fails_for_good(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match=said):
        read_png(data)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(data)
    with pytest.raises(PermanentError, match=rf"image 'a\.png': .*{said}"):
        thumbnail(tmp_path, "a.png", LONGEST, CALL)
