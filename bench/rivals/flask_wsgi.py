"""Flask-Session in a Flask application; the same Flask application without it is the base.

SQLite: `SESSION_TYPE="sqlalchemy"`; Flask-SQLAlchemy's pool keeps connections, synchronous=NORMAL is set on each.
Memory: `SESSION_TYPE="cachelib"` with cachelib's SimpleCache, with room for every session (by default it evicts).
By default every request writes the session, to extend its life. Tuned: `SESSION_REFRESH_EACH_REQUEST` is off.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import flask  # type: ignore[import-not-found]
from cachelib.simple import SimpleCache  # type: ignore[import-not-found]
from flask_session import Session  # type: ignore[import-not-found]
from flask_sqlalchemy import SQLAlchemy  # type: ignore[import-not-found]

from rivals.alchemy import set_synchronous
from rivals.common import PLAIN, Subject, answer, new_database


def _log_out(session: Any) -> None:
    session.clear()


def build(engine: str, tuned: bool, folder: Path) -> Subject:  # noqa: FBT001 (a plug's one form)
    """Make the application with and without sessions."""
    bare = flask.Flask("bare")

    @bare.route("/<path:name>")  # type: ignore[untyped-decorator]
    def without_session(name: str) -> bytes:
        return answer(f"/{name}", PLAIN, flask.request.environ["QUERY_STRING"])

    app = flask.Flask("app")
    app.config["SESSION_REFRESH_EACH_REQUEST"] = not tuned
    if engine == "sqlite":
        set_synchronous()
        app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{new_database(folder)}"
        app.config["SESSION_TYPE"] = "sqlalchemy"
        app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    else:
        app.config["SESSION_TYPE"] = "cachelib"
        app.config["SESSION_CACHELIB"] = SimpleCache(threshold=1_000_000)
    Session(app)

    @app.route("/<path:name>")  # type: ignore[untyped-decorator]
    def with_session(name: str) -> bytes:
        return answer(f"/{name}", flask.session, flask.request.environ["QUERY_STRING"], end=_log_out)

    names = ("Flask-Session", "Flask", "Flask-SQLAlchemy", "SQLAlchemy", "cachelib")
    return Subject(bare=bare.wsgi_app, app=app.wsgi_app, versions={name: version(name) for name in names})
