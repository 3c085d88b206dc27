"""The WSGI applications and middleware of the Python Web Modules.

``from web.wsgi import *`` imports the modules ``base``, ``cgi``, ``database``, ``environment``, ``error``, ``session``
and the functions `runCGI` and `currentURL`. A module is imported at its first use, so a program that takes one of
them does not load the others.
"""

# ruff: noqa: N802 -- the names are those of the 2005 reference

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from wsgiref.handlers import CGIHandler
from wsgiref.types import WSGIApplication, WSGIEnvironment

if TYPE_CHECKING:
    from types import ModuleType

    from web.wsgi import base, cgi, database, environment, error, session

__all__ = ["base", "cgi", "currentURL", "database", "environment", "error", "runCGI", "session"]

_MODULES = frozenset({"base", "cgi", "database", "environment", "error", "session"})

# What a Host header may hold: a name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


def runCGI(application: WSGIApplication) -> None:
    """Answer one request with a WSGI application, as a CGI script.

    The request is read from the process's environment variables and standard input, the response is written to
    standard output. The environment says that it runs once, in one thread, with other processes.

    Args:
        application: The WSGI application, with all of its middleware around it.
    """
    CGIHandler().run(application)


def currentURL(environ: WSGIEnvironment) -> str:
    """Return the URL of a request, with its query string, fit to be used in a page or a header.

    Every character that is not allowed in a URL is percent-encoded. A Host header that is no host name is not used:
    the server's own name and port take its place.

    Args:
        environ: The WSGI environment of the request.

    Returns:
        The absolute URL, for example ``http://localhost:8000/session?destroy=True``.
    """
    scheme = _text(environ, "wsgi.url_scheme") or "http"
    host = _text(environ, "HTTP_HOST")
    if not _HOST.fullmatch(host):
        host = _text(environ, "SERVER_NAME") or "localhost"
        port = _text(environ, "SERVER_PORT")
        if port and port != {"http": "80", "https": "443"}.get(scheme):
            host += f":{port}"
    path = _quoted(_text(environ, "SCRIPT_NAME") + _text(environ, "PATH_INFO"), "/;=,:@!$&()*+~")
    query = _quoted(_text(environ, "QUERY_STRING"), "/?:@!$&()*+,;=~%[]")
    return f"{scheme}://{host}{path or '/'}" + (f"?{query}" if query else "")


def _quoted(text: str, safe: str) -> str:
    # WSGI hands bytes over as Latin-1. Both kinds of quotes are encoded, so that no attribute of HTML ends early.
    return quote(text, safe=safe, encoding="latin-1", errors="replace")


def _text(environ: WSGIEnvironment, key: str) -> str:
    value: Any = environ.get(key)
    return str(value) if value is not None else ""
