"""Where the W3C's SCXML 1.0 implementation report plan tests are, transformed: CEL instead of ECMAScript.

They are third-party and not part of this repository. They are looked for in `../shared/statecharts/w3c-irp` beside it,
or where the environment variable `STATEWRIGHT_W3C_IRP` says, and are run in place; a test passes when its run ends in
the state `pass`. What they show is "passes N of 163 W3C IRP tests, transformed", no more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("STATEWRIGHT_W3C_IRP", ROOT.parent / "shared" / "statecharts" / "w3c-irp"))
ABSENT = not (FOLDER / "manifest.json").is_file()
TESTS: list[dict[str, Any]] = [] if ABSENT else json.loads((FOLDER / "manifest.json").read_text())
IDS: list[str] = [test["id"] for test in TESTS] or ["absent"]

skip_if_absent = pytest.mark.skipif(ABSENT, reason=f"the transformed W3C IRP tests are not at {FOLDER}")


def clause(test: str) -> str:
    """The clause of the Recommendation that a test is about."""
    return next(f"{entry['spec']}: {entry['desc']}" for entry in TESTS if entry["id"] == test)
