"""What CGI scripts use of `web` itself: the header line, the request's fields, an error page.

Imports are local, so that a script that uses one function does not load what the others need.
"""

# ruff: noqa: PLC0415 -- see above
# ruff: noqa: A002 -- the parameters' names in the 2005 reference

from __future__ import annotations

import atexit
import codecs
import html
import os
import secrets
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from web._printed import printed

if TYPE_CHECKING:
    from web.wsgi.cgi import FieldStorage

__all__ = ["ErrorAnswer", "encode", "fields", "header"]

_PLAIN = "The server could not answer this request. What went wrong is in its log, under the reference {reference}."
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Internal Server Error</title></head>
<body><h1>Internal Server Error</h1>
<p>{text}</p>
</body></html>
"""


def encode(text: object) -> str:
    """Escape text for a page.

    Args:
        text: Anything; it is taken as ``str(text)``.

    Returns:
        The text with ``&``, ``<``, ``>`` and both kinds of quotes as character references.
    """
    return html.escape(str(text))


def header(type: str = "text/html") -> str:
    """Return the Content-Type line of a CGI script's response, once: ``print(web.header())`` ends the headers.

    Args:
        type: The content type. The charset of standard output is named after a text type that names none.

    Returns:
        ``Content-Type: ...`` and a line break, to which `print` adds the empty line. An empty string if the headers
        were sent, or if this function was called before.

    Raises:
        ValueError: *type* cannot stand in a header.
    """
    if not type or not type.isascii() or not type.isprintable():
        raise ValueError(f"header({type!r}) is not a content type: pass one such as 'text/plain'")
    so_far = printed()
    if so_far.typed or so_far.closed:
        return ""
    so_far.typed = True
    is_open = type.lower().startswith("text/") and "charset=" not in type.lower()
    value = f"{type.rstrip('; ')}; charset={_charset()}" if is_open else type
    return f"Content-Type: {value}\n"


_fields: FieldStorage | None = None


def fields() -> FieldStorage:
    """Return the fields of the request that a CGI script answers, read from its environment and its standard input.

    A form that is malformed or too large is answered with 400 or 413 and a line with the reason, and the script ends.

    Raises:
        RuntimeError: This process is no CGI script that answers a request.
    """
    global _fields  # noqa: PLW0603 -- a CGI script has one request
    if _fields is None:
        from wsgiref.handlers import read_environ

        from web.wsgi.cgi import CGI, FormError

        if "REQUEST_METHOD" not in os.environ:
            raise RuntimeError(
                "web.cgi has the fields of the request that a CGI script answers, and REQUEST_METHOD is not set here:"
                " in a WSGI application use environ['web.cgi'] of the middleware web.wsgi.cgi.CGI"
            )
        try:
            _fields = CGI(_nothing).fields({**read_environ(), "wsgi.input": sys.stdin.buffer})
        except FormError as error:
            _answer(error.status, "text/plain", f"{error}\n", plain=True)
            raise SystemExit(1) from None
        atexit.register(_fields.close)
    return _fields


class ErrorAnswer:
    """The response of a CGI script that fails.

    Args:
        output: See `web.error.info`.
        format: See there.
        context: See there.
        debug: Who sees the report: True for all clients, False for none, None for a browser on this machine.
            Others see a reference.
    """

    def __init__(self, output: str, format: str, context: int, debug: bool | None) -> None:  # noqa: FBT001 -- contract
        from web.error import checkReport

        checkReport(output, format, context)
        self._output = output
        self._format = format
        self._context = context
        self._debug = debug
        printed()

    def hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Take the place of `sys.excepthook`."""
        if isinstance(error, Exception) and "REQUEST_METHOD" in os.environ:
            self.to(error)
        else:
            sys.__excepthook__(kind, error, trace)

    def to(self, error: Exception) -> None:
        """Print the answer to an error, and write the error to the log."""
        from web.error import info
        from web.wsgi.error import Error

        middleware = Error(_nothing, self._debug)
        middleware.request = dict(os.environ)
        middleware.reference = secrets.token_hex(6)
        middleware.report("failed", error)
        plain = self._format == "text" or not printed().takes_html
        if middleware.showsTraceback():
            form = "text" if plain else "html"
            text = info(self._output, form, error, self._context, redact=middleware.secrets())
        else:
            text = _PLAIN.format(reference=middleware.reference)
            text = f"{text}\n" if plain else _PAGE.format(text=text)
        _answer("500 Internal Server Error", "text/plain" if plain else "text/html", text, plain=plain)


def _charset() -> str:
    return codecs.lookup(sys.stdout.encoding or "utf-8").name


def _answer(status: str, type: str, text: str, *, plain: bool) -> None:
    """Print a response, with the headers that the script has not printed, unless they were sent already."""
    so_far = printed()
    lines = []
    if not so_far.closed:
        wanted = {
            "Status": status,
            "Content-Type": f"{type}; charset={_charset()}",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        if not plain:
            wanted["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        if so_far.headers and not so_far.headers.endswith("\n"):
            lines.append("")
        given = so_far.names
        lines += [f"{name}: {value}" for name, value in wanted.items() if name.lower() not in given]
    charset = _charset()
    body = text.encode(charset, "backslashreplace" if plain else "xmlcharrefreplace").decode(charset)
    sys.stdout.write("\n".join([*lines, "", body]))


def _nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ARG001 -- never called
    return []
