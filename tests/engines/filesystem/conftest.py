"""A folder for sessions, and a driver on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from coatcheck.drivers.filesystem import FilesystemDriver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def driver(root: Path) -> FilesystemDriver:
    return FilesystemDriver(root, timeout=120)
