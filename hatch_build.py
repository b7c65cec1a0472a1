"""Build hook: an editable install sees the top folders as the namespace package `statewright`.

The wheel maps `engine/` to `statewright/engine/` by `sources`. An editable install can't map, it can only
put a directory on the path; so the hook links `.ns/statewright/<folder>` to `../../<folder>` and the
path entry is `.ns`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("statecharts", "engine", "projections", "adapters", "examples")


class NamespaceLinks(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            return
        namespace = Path(self.root, ".ns", "statewright")
        namespace.mkdir(parents=True, exist_ok=True)
        for room in ROOMS:
            link = namespace / room
            if not link.is_symlink():
                os.symlink(os.path.join("..", "..", room), link, target_is_directory=True)
