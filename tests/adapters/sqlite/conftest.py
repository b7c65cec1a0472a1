"""Disks that are small or can't be written, and a store that is open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from statewright.adapters.sqlite.factory import Factory


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    """A fresh store's factory; `factory.application_recorder()` makes its tables."""
    factory = Factory({"SQLITE_DBNAME": str(tmp_path / "store.db")})
    yield factory
    factory.close()


class Mounts:
    """File systems that a test mounts, which root alone may do; all are gone when it ends."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def small(self, folder: Path, kib: int) -> None:
        self._mount(folder, "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))

    def read_only(self, source: Path, at: Path) -> None:
        """`source`, a file or folder, seen read-only at `at`, which exists."""
        self._mount(at, "--bind", str(source), str(at))
        subprocess.run(["mount", "-o", "remount,ro,bind", str(at)], check=True, capture_output=True)

    def clear(self) -> None:
        while self._mounted:
            subprocess.run(["umount", str(self._mounted.pop())], check=True, capture_output=True)

    def _mount(self, at: Path, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"can't mount a file system here: {done.stderr.strip()}")
        self._mounted.append(at)


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mounts = Mounts()
    yield mounts
    mounts.clear()
