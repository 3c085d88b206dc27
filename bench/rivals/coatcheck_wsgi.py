"""coatcheck, with its default policy.

SQLite: it sets WAL and synchronous=NORMAL itself and keeps a connection for each thread.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from coatcheck import Session
from coatcheck.wsgi import SessionMiddleware
from rivals.common import PLAIN, Subject, new_database, plain_wsgi


def build(engine: str, tuned: bool, folder: Path) -> Subject:  # noqa: FBT001 (a plug's one form)
    """Make the application with and without sessions."""
    assert not tuned, "there is nothing to tune"
    url = "memory:" if engine == "memory" else f"sqlite:///{new_database(folder)}"
    inner = plain_wsgi(lambda environ: environ["coatcheck.session"], end=Session.logout)
    return Subject(
        bare=plain_wsgi(lambda _environ: PLAIN),
        app=SessionMiddleware(inner, url),
        versions={"coatcheck": version("coatcheck")},
    )
