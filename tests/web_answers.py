"""What an application of web.wsgi answers."""

# ruff: noqa: ANN001, ANN202, FBT002 -- the rules of all tests, and applications here need no types

from __future__ import annotations

from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from web.wsgi import base


class Answer:
    """One response, read as a server reads it: the headers go out with the first byte of the body."""

    def __init__(self, application, checked=True, **over: Any) -> None:
        environ: dict[str, Any] = {"QUERY_STRING": "", **over}
        setup_testing_defaults(environ)
        self.status: str = ""
        self.headers: list[tuple[str, str]] = []
        self.starts: list[str] = []
        self.body = b""
        sent: list[bytes] = []

        def start_response(status, headers, exc_info=None):
            if exc_info and sent:
                raise exc_info[1]
            assert exc_info or not self.status, "start_response called twice"
            self.status, self.headers = status, headers
            self.starts.append(status)
            return sent.append

        body = (validator(application) if checked else application)(environ, start_response)
        try:
            for chunk in body:
                assert self.status, "a chunk before start_response"
                sent.append(chunk)
        finally:
            if hasattr(body, "close"):
                body.close()
            self.body = b"".join(sent)

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) < 2, f"{name} twice"
        return found[0] if found else None


def app_of(*items: Any, **attributes: Any) -> base.BaseApplication:
    class Application(base.BaseApplication):
        def start(self) -> None:
            for name, value in attributes.items():
                setattr(self, name, value)
            self.output(*items)

    return Application()


PLAIN = [("Content-Type", "text/plain")]
