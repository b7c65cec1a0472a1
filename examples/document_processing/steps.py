"""The steps: functions on a folder with an inbox, a desk, reports and an archive.

Steps are performed at least once. All of these may run again after a crash: files are written whole or not at all under
names that follow from the document's, moving what has been moved changes nothing, and removing what is gone neither.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

from statewright.engine import PermanentError
from statewright.engine.workflows import StepCall
from statewright.examples.files import note, write

PNG = b"\x89PNG\r\n\x1a\n"


def load(folder: Path, document: str, call: StepCall) -> str:
    """From the inbox to the desk; returns its name there."""
    note(folder, call.effect_id, call.step)
    return _move(folder / "inbox", folder / "desk", document)


def return_to_inbox(folder: Path, document: str, call: StepCall) -> str:
    note(folder, call.effect_id, call.step)
    return _move(folder / "desk", folder / "inbox", document)


def validate(folder: Path, document: str, call: StepCall) -> dict[str, str]:
    """The title and the language that its first lines say."""
    note(folder, call.effect_id, call.step)
    text = _text(folder, document)
    found = dict(re.findall(r"^(title|language): (.+)$", text, re.M))
    if missing := {"title", "language"} - found.keys():
        raise PermanentError(f"document '{document}' does not say its {' and '.join(sorted(missing))}")
    return found


def extract(folder: Path, document: str, call: StepCall) -> dict[str, list[str]]:
    """The headings of its sections, and the names of the images that it shows."""
    note(folder, call.effect_id, call.step)
    text = _text(folder, document)
    return {"sections": re.findall(r"^# (.+)$", text, re.M), "images": re.findall(r"!\[.*?\]\((.+?)\)", text)}


def check_spelling(folder: Path, document: str, language: str, call: StepCall) -> list[str]:
    """The words that the dictionary doesn't have; there is one for some languages only."""
    note(folder, call.effect_id, call.step)
    dictionary = folder / "dictionaries" / f"{language}.txt"
    if not dictionary.exists():
        raise PermanentError(f"there is no dictionary for '{language}'")
    return sorted(set(_words(folder, document)) - set(dictionary.read_text(encoding="utf-8").split()))


def analyse(folder: Path, document: str, call: StepCall) -> dict[str, int]:
    note(folder, call.effect_id, call.step)
    words = _words(folder, document)
    return {"words": len(words), "different": len(set(words))}


def describe(folder: Path, document: str, title: str, call: StepCall) -> dict[str, Any]:
    note(folder, call.effect_id, call.step)
    return {"title": title, "bytes": (folder / "desk" / document).stat().st_size}


def measure_images(folder: Path, images: list[str], call: StepCall) -> dict[str, list[int]]:
    """Width and height of each, from the first bytes of the files."""
    note(folder, call.effect_id, call.step)
    sizes = {}
    for name in images:
        start = (folder / "images" / name).read_bytes()[:24]
        if not start.startswith(PNG):
            raise PermanentError(f"image '{name}' is no PNG file")
        sizes[name] = list(struct.unpack(">II", start[16:24]))
    return sizes


def report(folder: Path, document: str, results: dict[str, Any], call: StepCall) -> str:
    """What the group has found, as a file; returns its name."""
    note(folder, call.effect_id, call.step)
    return write(_report(folder, document), json.dumps(results, indent=2, sort_keys=True)).name


def remove_report(folder: Path, document: str, call: StepCall) -> None:
    note(folder, call.effect_id, call.step)
    _report(folder, document).unlink(missing_ok=True)


def store(folder: Path, document: str, sections: list[str], room: int, call: StepCall) -> int:
    """Each section as a file of the archive; returns the bytes. When there is no more room it fails half way."""
    note(folder, call.effect_id, call.step)
    texts = re.split(r"^# .+$", _text(folder, document), flags=re.M)[1:]
    used = 0
    for number, (heading, text) in enumerate(zip(sections, texts, strict=True), 1):
        content = f"{heading}\n{text}".encode()
        if used + len(content) > room:
            raise PermanentError(f"no room for section {number} of {len(sections)}: {used} of {room} bytes are used")
        write(_stored(folder, document) / f"{number:02}.txt", content)
        used += len(content)
    return used


def remove_stored(folder: Path, document: str, call: StepCall) -> None:
    """Takes away what there is of the document in the archive, all or a part."""
    note(folder, call.effect_id, call.step)
    shutil.rmtree(_stored(folder, document), ignore_errors=True)


STEPS = {
    function.__name__: function
    for function in (
        load,
        return_to_inbox,
        validate,
        extract,
        check_spelling,
        analyse,
        describe,
        measure_images,
        report,
        remove_report,
        store,
        remove_stored,
    )
}
"""By the names that `workflow.yaml` calls them."""


def _move(source: Path, target: Path, document: str) -> str:
    target.mkdir(exist_ok=True)
    if (source / document).exists():
        (source / document).replace(target / document)
    elif not (target / document).exists():
        raise PermanentError(f"there is no document '{document}' in the {source.name}")
    return document


def _text(folder: Path, document: str) -> str:
    return (folder / "desk" / document).read_text(encoding="utf-8")


def _words(folder: Path, document: str) -> list[str]:
    """Of its sections, without the names of images."""
    text = _text(folder, document).partition("#")[2]
    return re.findall(r"[^\W\d_]+", re.sub(r"!\[.*?\]\(.+?\)", "", text).lower())


def _report(folder: Path, document: str) -> Path:
    return folder / "reports" / f"{document}.json"


def _stored(folder: Path, document: str) -> Path:
    return folder / "archive" / document
