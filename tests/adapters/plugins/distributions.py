"""Distributions that are really installed: files and their metadata in a folder on the path, as an installer leaves
them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, name: str, version: str, points: Mapping[str, str], modules: Mapping[str, str]) -> None:
    """`points`: entry points of `statewright.plugins`, name to value; `modules`: name to source."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[statewright.plugins]", *lines, ""]))
