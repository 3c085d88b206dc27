"""A session that lives ten seconds, and five more for each visit.

This page does what the example of the 2005 reference does, and shows no more of the session's ID than a prefix: whoever
reads the whole of it, over a shoulder or in a screenshot, could take the session over.
"""
# ruff: noqa: INP001  # the server loads each program by its path

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from web.wsgi import base, cgi, database, environment, error, session

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
PREFIX = 8  # characters of the session's ID that are shown: enough to tell two sessions apart


class SessionPage(base.BaseApplication):
    """Greets a new visitor, welcomes one who comes back, and destroys the session when asked to."""

    def start(self) -> None:
        """Answer one request."""
        if self.environ["web.session.manager"].created:
            self.greet()
        elif self.environ["web.cgi"].getfirst("destroy") == "True":
            self.destroy()
        else:
            self.welcome_back()
        # The session's changes go into the application's own transaction and become durable with it.
        self.environ["web.database.connection"].commit()

    def greet(self) -> None:
        """First visit: the session was made by this request."""
        self.environ["web.session.store"]["Variable1"] = "Python Rules!"
        self.show("New Session Started", "<p>Set Variable1 to 'Python Rules!'.</p>", {"Visit Again": ""})

    def welcome_back(self) -> None:
        """Show what the session holds and let it live five seconds longer."""
        manager = self.environ["web.session.manager"]
        store = self.environ["web.session.store"]
        manager.setExpire(manager.expireTime + 5)
        facts = {
            "SessionID": f"{manager.sessionID[:PREFIX]}…",
            "Store Keys": list(store.keys()),
            "Store App": store.app,
            "Variable1": store["Variable1"],
            "ExpireTime": manager.expireTime,
        }
        rows = "\n".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
        text = f"<p>Every time you visit this page the expiry time increases 5 seconds.</p>\n<table>\n{rows}\n</table>"
        self.show("Welcome back", text, {"Visit Again": "", "Destroy Session": "?destroy=True"})

    def destroy(self) -> None:
        """End the session; the middleware takes the cookie back."""
        self.environ["web.session.manager"].destroy(ignoreWarning=True, sendCookieHeaders=False)
        self.show("Session Destroyed", "", {"Start Again": ""})

    def show(self, title: str, text: str, links: dict[str, str]) -> None:
        """Write the page; a link goes to this program with the query string that is given."""
        here = self.environ["SCRIPT_NAME"]
        listed = "\n".join(f'<p><a href="{escape(here + query)}">{name}</a></p>' for name, query in links.items())
        self.output(PAGE.substitute(title=title, body=f"{text}\n{listed}"))


application = error.Error(
    database.Database(
        environment.Environment(
            session.Session(
                cgi.CGI(SessionPage()),
                app="testApp",
                expire=10,
                setupEnvironment=True,
            ),
            name="testEnv",
            storage="database",
        ),
        adapter="sqlite",
        database="wsgi-session",
        autoCreate=True,
    )
)
