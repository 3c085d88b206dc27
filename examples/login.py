"""A log-in form, a list of one's own devices, and a button that logs the others out.

Run it, then open http://localhost:8000/ and log in as ada with the password "engine". Every change is a POST, and all
that is shown is escaped. A site of its own would limit the attempts, and keep its users in a database.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from coatcheck import Policy, Session, SessionManager
from coatcheck.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_FORM = 10_000  # bytes

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Devices</title></head><body>
{}
</body></html>
"""

LOGIN = """<h1>Log in</h1>
<p role="alert">{}</p>
<form method="post" action="/login">
<label>Name <input name="user" value="{}" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>
</form>"""

DEVICES = """<h1>Hello {}</h1>
<table><tr><th>Logged in</th><th>Last seen</th><th></th></tr>
{}
</table>
<form method="post" action="/logout"><button>Log out</button></form>
<form method="post" action="/revoke"><button>Log out everywhere else</button></form>"""


def hashed(password: str, salt: bytes) -> bytes:
    """Hash a password so that a stolen table of users costs a lot to guess from."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def new_user(password: str) -> tuple[bytes, bytes]:
    """Give what is stored of a user: salt and hash."""
    salt = secrets.token_bytes(16)
    return salt, hashed(password, salt)


USERS = {"ada": new_user("engine"), "grace": new_user("compiler")}
NOBODY = new_user(secrets.token_hex())  # an unknown name takes as long as a wrong password

# Run as a program, this is http for development: not every client keeps a Secure cookie then, not even on this machine.
manager = SessionManager("sqlite:///sessions.db", Policy(insecure_http=__name__ == "__main__"))


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request."""
    session: Session = environ["coatcheck.session"]
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/") or "/"
    if method in ("GET", "HEAD") and path == "/":
        page = login_page() if session.user is None else device_page(session, session.user)
        return answer(start_response, "200 OK", page)
    action = {"/login": log_in, "/logout": log_out, "/revoke": revoke}.get(path)
    if action is None:
        return answer(start_response, "404 Not Found", "<h1>Not found</h1>")
    if method != "POST":
        return answer(start_response, "405 Method Not Allowed", "<h1>Not allowed</h1>", ("Allow", "POST"))
    # SameSite=Lax keeps the cookie out of other sites' forms; this keeps out a log-in that another site sends.
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return answer(start_response, "403 Forbidden", "<h1>Forbidden</h1>")
    refusal = action(session, form_of(environ))
    if refusal is not None:
        return answer(start_response, "403 Forbidden", refusal)
    return answer(start_response, "303 See Other", "", ("Location", "/"))


def log_in(session: Session, form: dict[str, str]) -> str | None:
    """Check the password and log in; give a page where that fails."""
    user, password = form.get("user", ""), form.get("password", "")
    salt, known = USERS.get(user, NOBODY)
    if not hmac.compare_digest(hashed(password, salt), known):
        return login_page("Name or password are wrong.", user)
    session.login(user)
    return None


def log_out(session: Session, _form: dict[str, str]) -> None:
    """End this session."""
    session.logout()


def revoke(session: Session, _form: dict[str, str]) -> None:
    """End all sessions of the user but this one."""
    if session.user is not None:
        manager.revoke_user(session.user, keep=session.sid)


def login_page(problem: str = "", user: str = "") -> str:
    """Write the log-in form."""
    return LOGIN.format(escape(problem), escape(user))


def device_page(session: Session, user: str) -> str:
    """List the live sessions of *user*."""
    rows = [
        f"<tr><td>{moment(device.auth_time or device.created)}</td><td>{moment(device.seen)}</td>"
        f"<td>{'this device' if device.sid == session.sid else ''}</td></tr>"
        for device in manager.sessions_of(user)
    ]
    return DEVICES.format(escape(user), "\n".join(rows))


def moment(seconds: float) -> str:
    """Write a moment for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def form_of(environ: WSGIEnvironment) -> dict[str, str]:
    """Read a form; one that is too long counts as empty."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > MAX_FORM:
        return {}
    text = environ["wsgi.input"].read(int(length)).decode("utf-8", "replace")
    return {name: values[0] for name, values in parse_qs(text).items()}


def answer(start_response: StartResponse, status: str, page: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    """Send a page."""
    body = PAGE.format(page).encode()
    given = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, [*given, ("Cache-Control", "no-store"), *headers])
    return [body]


application = SessionMiddleware(site, manager)

if __name__ == "__main__":
    import sys
    from wsgiref.simple_server import make_server

    port = int(sys.argv[1]) if sys.argv[1:] else 8000  # python examples/login.py 8001 takes another
    with make_server("127.0.0.1", port, application) as server:
        print(f"Serving on http://localhost:{server.server_port}/", flush=True)
        server.serve_forever()
