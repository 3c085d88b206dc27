"""Django's sessions in Django's WSGI handler; the same handler without the middleware is the base.

SQLite: the database engine. By default Django opens a connection for each request that uses the database;
`init_command` sets synchronous=NORMAL on it. Tuned: `CONN_MAX_AGE` is None, so that the connection stays open.
Memory: the cache engine on the local-memory cache, with room for every session (by default it evicts past 300).
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import django  # type: ignore[import-not-found]
from django.conf import settings  # type: ignore[import-not-found]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-not-found]
from django.core.management import call_command  # type: ignore[import-not-found]
from django.http import HttpResponse  # type: ignore[import-not-found]
from django.urls import path  # type: ignore[import-not-found]

from rivals.common import PLAIN, Subject, answer, new_database


def view(request: Any, name: str) -> HttpResponse:
    """Answer a request of either application."""
    session = getattr(request, "session", PLAIN)
    return HttpResponse(answer(f"/{name}", session, request.META["QUERY_STRING"], end=_log_out))


def _log_out(session: Any) -> None:
    session.flush()


urlpatterns = [path("<path:name>", view)]


def build(engine: str, tuned: bool, folder: Path) -> Subject:  # noqa: FBT001 (a plug's one form)
    """Make the application with and without sessions."""
    room = {"MAX_ENTRIES": 1_000_000}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": room}},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(new_database(folder)),
                "OPTIONS": {"init_command": "PRAGMA synchronous=NORMAL"},
                "CONN_MAX_AGE": None if tuned else 0,
            }
        },
        INSTALLED_APPS=["django.contrib.sessions"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=sys.modules[__name__],
        SECRET_KEY="not a secret: nothing is served",  # noqa: S106
        SESSION_ENGINE=f"django.contrib.sessions.backends.{'db' if engine == 'sqlite' else 'cache'}",
        USE_TZ=True,
    )
    django.setup()
    if engine == "sqlite":
        call_command("migrate", verbosity=0)
    bare = WSGIHandler()
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    app = WSGIHandler()
    return Subject(bare=bare, app=app, versions={"Django": version("Django")})
