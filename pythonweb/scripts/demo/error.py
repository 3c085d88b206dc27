"""Programs that fail on purpose, and the page that answers for them."""
# ruff: noqa: INP001  # the server loads each program by its path

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from string import Template
from wsgiref.types import StartResponse, WSGIEnvironment

from web.wsgi import base, cgi, error

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


def divide() -> None:
    """Divide by zero."""
    visitors = 0
    1 / visitors  # the failure is the point


def look_up() -> None:
    """Ask a dict for a key that it does not have."""
    {"spam": 1}["eggs"]  # the failure is the point


def markup() -> None:
    """Fail with a message that is full of markup."""
    raise ValueError('<script>alert("1")</script> & <b>more</b>')


def chained() -> None:
    """Fail while another failure is handled."""
    try:
        look_up()
    except KeyError as missing:
        raise RuntimeError("breakfast cannot be served") from missing


KINDS: dict[str, Callable[[], None]] = {"divide": divide, "lookup": look_up, "markup": markup, "chained": chained}
BODY = "body"  # the kind that is not raised by a call, but while the body is sent


class ErrorPage(base.BaseApplication):
    """Lists the kinds of failure, and fails in the way that ``?kind=`` names."""

    def start(self) -> None:
        """Answer one request."""
        kind = self.environ["web.cgi"].getfirst("kind")
        if kind in KINDS:
            KINDS[kind]()
        texts = {name: fail.__doc__ or name for name, fail in KINDS.items()}
        texts[BODY] = "Fail while the body is sent."
        here = escape(self.environ["SCRIPT_NAME"])
        links = "\n".join(f'<li><a href="{here}?kind={name}">{escape(text)}</a></li>' for name, text in texts.items())
        self.output(
            PAGE.substitute(title="Errors on purpose", body=f"<p>Choose what goes wrong:</p>\n<ul>\n{links}\n</ul>")
        )


def pages(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The page above, or a plain WSGI answer whose body fails on its way out."""
    if environ["web.cgi"].getfirst("kind") == BODY:
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return failing_body()
    return page(environ, start_response)


def failing_body() -> Iterator[bytes]:
    """A body that fails when its first part is asked for, not when it is made."""
    parts: dict[str, bytes] = {}
    yield parts["the first part of the body"]


page = ErrorPage()
application = error.Error(cgi.CGI(pages))
