"""Beaker's session middleware.

SQLite: `ext:database`, which is SQLAlchemy with its pool; synchronous=NORMAL is set on each new connection.
By default a read also records the time of access, which is a write. Tuned: `save_accessed_time` is off.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from beaker.middleware import SessionMiddleware  # type: ignore[import-not-found]

from rivals.alchemy import set_synchronous
from rivals.common import PLAIN, Subject, new_database, plain_wsgi


def build(engine: str, tuned: bool, folder: Path) -> Subject:  # noqa: FBT001 (a plug's one form)
    """Make the application with and without sessions."""
    options: dict[str, Any] = {"session.type": "memory", "session.save_accessed_time": not tuned}
    if engine == "sqlite":
        set_synchronous()
        options["session.type"] = "ext:database"
        options["session.url"] = f"sqlite:///{new_database(folder)}"
        options["session.lock_dir"] = str(folder / "locks")
    inner = plain_wsgi(
        lambda environ: environ["beaker.session"],
        save=lambda session: session.save(),
        end=lambda session: session.delete(),
    )
    return Subject(
        bare=plain_wsgi(lambda _environ: PLAIN),
        app=SessionMiddleware(inner, options),
        versions={name: version(name) for name in ("Beaker", "SQLAlchemy")},
    )
