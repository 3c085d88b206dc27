"""Commits that the database refuses."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

Request = Any


def fail_commits(request: Request, times: int = 1) -> None:
    """Let the database refuse the next commits: a foreign key is checked at the commit, and there is no such row."""
    request.connection.cursor().execute("INSERT INTO child VALUES (77)")
    for _ in range(times):
        with pytest.raises(sqlite3.IntegrityError):
            request.connection.commit()


def repair(request: Request) -> None:
    request.connection.cursor().execute("DELETE FROM child")
