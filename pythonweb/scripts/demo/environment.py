"""What a program finds in its WSGI environ.

Cookies, credentials and what the middleware keeps for the program are shown by their kind alone: a page that prints a
cookie hands the session to everybody who sees the page.
"""
# ruff: noqa: INP001  # the server loads each program by its path

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from web.wsgi import base, cgi, database, environment, error, session

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
SECRET = ("COOKIE", "AUTHORIZATION", "TOKEN", "SECRET", "PASSWORD", "API_KEY")


class EnvironmentPage(base.BaseApplication):
    """A table of the environ; it asks nothing of the session, so this page starts none."""

    def start(self) -> None:
        """Answer one request."""
        rows = "\n".join(
            f"<tr><th>{escape(key)}</th><td>{describe(key, self.environ[key])}</td></tr>"
            for key in sorted(self.environ)
        )
        self.output(PAGE.substitute(title="The WSGI environ", body=f"<table>\n{rows}\n</table>"))


def describe(key: str, value: Any) -> str:
    """One value as HTML, without what must stay secret."""
    if any(word in key.upper() for word in SECRET):
        return f'<span class="quiet">hidden ({len(str(value))} characters)</span>'
    if isinstance(value, str | int | tuple):
        return escape(str(value))
    kind = type(value)
    return f'<span class="quiet">{escape(f"{kind.__module__}.{kind.__qualname__}")}</span>'


application = error.Error(
    database.Database(
        environment.Environment(
            session.Session(cgi.CGI(EnvironmentPage()), app="environment", setupEnvironment=True),
            name="testEnv",
            storage="database",
        ),
        adapter="sqlite",
        database="wsgi-session",
        autoCreate=True,
    )
)
