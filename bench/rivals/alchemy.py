"""The SQLite settings of this benchmark for the libraries that use SQLAlchemy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event  # type: ignore[import-not-found]
from sqlalchemy.engine import Engine  # type: ignore[import-not-found]


def set_synchronous() -> None:
    """Have synchronous=NORMAL set on each connection that SQLAlchemy opens; its pool keeps them open."""
    event.listen(Engine, "connect", _configure)


def _configure(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL").close()
