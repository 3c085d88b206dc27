"""The facts of a request that matter to its session, read once from WSGI or ASGI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["Incoming"]

_SCHEMES: Final = {"ws": "http", "wss": "https"}
_FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"via"})


class Incoming(NamedTuple):
    """What a request says of itself. Its repr shows neither cookies nor credentials.

    Attributes:
        cookies: The values of its Cookie headers, each as it came.
        scheme: "http" or "https", as the server saw it.
        host: The Host header with its port, or the server's name; empty if not known.
        path: The decoded path of the request, its bytes as latin-1 (PEP 3333); empty if not known.
        client: The address of the peer, which is a proxy's where there is one; None if not known.
        proxied: True if a Forwarded, X-Forwarded-For or Via header says that a proxy passed the request on. Any client
            can send such a header.
        user_agent: The User-Agent header, or None.
        authorization: The Authorization header, or None.
    """

    cookies: Sequence[str] = ()
    scheme: str = "https"
    host: str = ""
    path: str = ""
    client: str | None = None
    proxied: bool = False
    user_agent: str | None = None
    authorization: str | None = None

    def __repr__(self) -> str:
        return f"<Incoming {self.scheme}://{self.host}{self.path}>"

    @classmethod
    def from_wsgi(cls, environ: WSGIEnvironment) -> Self:
        """Read the facts of a WSGI request (PEP 3333). The environ itself is not kept."""
        get = environ.get
        cookie = get("HTTP_COOKIE")
        # Past the constructor, which takes a third of the time: every request pays for this, also an untouched session.
        return tuple.__new__(
            cls,
            (
                () if cookie is None else (cookie,),
                get("wsgi.url_scheme", "http"),
                get("HTTP_HOST") or get("SERVER_NAME", ""),
                get("SCRIPT_NAME", "") + get("PATH_INFO", ""),
                get("REMOTE_ADDR"),
                "HTTP_FORWARDED" in environ or "HTTP_X_FORWARDED_FOR" in environ or "HTTP_VIA" in environ,
                get("HTTP_USER_AGENT"),
                get("HTTP_AUTHORIZATION"),
            ),
        )

    @classmethod
    def from_asgi(cls, scope: Mapping[str, Any]) -> Self:
        """Read the facts of an ASGI connection scope, HTTP or WebSocket.

        A client may send its cookies in several Cookie headers (RFC 9113 8.2.3); all of them are kept, in their order.
        """
        cookies: list[str] = []
        found: dict[bytes, str] = {}
        proxied = False
        for name, value in scope.get("headers") or ():
            lower = name.lower()
            if lower == b"cookie":
                cookies.append(value.decode("latin-1"))
            elif lower in (b"host", b"user-agent", b"authorization"):
                found.setdefault(lower, value.decode("latin-1"))
            elif lower in _FORWARDED:
                proxied = True
        scheme = scope.get("scheme") or "http"
        client, server = scope.get("client"), scope.get("server")
        return cls(
            tuple(cookies),
            _SCHEMES.get(scheme, scheme),
            found.get(b"host") or (str(server[0]) if server else ""),
            str(scope.get("path", "")).encode("utf-8", "surrogateescape").decode("latin-1"),
            client[0] if client else None,
            proxied,
            found.get(b"user-agent"),
            found.get(b"authorization"),
        )
