"""The adapters of docs/adapters.md, as they stand on the page, and clients of a site behind each of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeVar
from wsgiref.util import setup_testing_defaults

from coatcheck import AsyncSession, AsyncSessionManager, SessionNotLoaded

T = TypeVar("T")

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "adapters.md"
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_the_page() -> dict[str, Any]:
    """Run the programs of the page one after another, and return what they define."""
    names: dict[str, Any] = {"__name__": "toy"}
    for source in BLOCK.findall(PAGE.read_text("utf-8")):
        if source.startswith(("from ", "import ")):
            exec(compile(source, str(PAGE), "exec", dont_inherit=True), names)  # noqa: S102 (our own page)
    return names


TOY: Final = on_the_page()

REASONS: Final = {200: "OK", 409: "Conflict", 503: "Service Unavailable"}


class Served:
    """What a client got: the status line, the headers, the body, and what the server saw of errors."""

    def __init__(self, answer: Any, body: bytes) -> None:
        self.status = f"{answer.status} {REASONS[answer.status]}"
        self.headers: list[tuple[str, str]] = answer.headers
        self.body = body


class Anywhere(MutableMapping[str, Any]):
    """An `AsyncSession` for a synchronous handler in a thread: the loop of the request loads it when it is read."""

    def __init__(self, session: AsyncSession, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop

    def _loaded(self, use: Callable[[], T]) -> T:
        try:
            return use()
        except SessionNotLoaded:
            asyncio.run_coroutine_threadsafe(self._session.load(), self._loop).result()
            return use()

    def __getitem__(self, key: str) -> Any:
        return self._loaded(lambda: self._session[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[key] = value

    def __delitem__(self, key: str) -> None:
        self._loaded(lambda: self._session.__delitem__(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded(lambda: list(self._session)))

    def __len__(self) -> int:
        return self._loaded(lambda: len(self._session))

    def clear(self) -> None:
        self._session.clear()

    def __getattr__(self, name: str) -> Any:
        found = self._loaded(lambda: getattr(self._session, name))
        return (lambda *args, **more: self._loaded(lambda: found(*args, **more))) if callable(found) else found


def environ_of(cookie: str | None) -> dict[str, Any]:
    environ: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https"}
    setup_testing_defaults(environ)
    if cookie is not None:
        environ["HTTP_COOKIE"] = cookie
    return environ


def scope_of(cookie: str | None) -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1")] + ([] if cookie is None else [(b"cookie", cookie.encode())])
    return {"type": "http", "scheme": "https", "path": "/", "client": ("192.0.2.1", 1), "headers": headers}


def serve(manager: Any, view: Callable[[Any], Any], secret: str | None) -> Served:
    """Have the synchronous adapter of the page serve a request that *view* answers, given the request."""
    cookie = None if secret is None else f"__Host-sid={secret}"
    answer = TOY["Sessions"](view, manager)(TOY["Request"](environ_of(cookie)))
    return Served(answer, b"".join(answer.body))


async def _serve_async(manager: AsyncSessionManager, view: Any, secret: str | None, *, eager: bool) -> Served:
    cookie = None if secret is None else f"__Host-sid={secret}"
    try:
        answer = await TOY["AsyncSessions"](view, manager, eager=eager)(TOY["Request"](scope_of(cookie)))
        chunks: AsyncIterator[bytes] = answer.body if hasattr(answer.body, "__aiter__") else _each(answer.body)
        return Served(answer, b"".join([chunk async for chunk in chunks]))
    finally:
        await manager.close()  # the connections of this loop


async def _each(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def serve_async(manager: AsyncSessionManager, view: Any, secret: str | None, *, eager: bool) -> Served:
    """Have the asynchronous adapter of the page serve a request, in an event loop of its own."""
    return asyncio.run(_serve_async(manager, view, secret, eager=eager))


def plain(handler: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A view that answers what *handler* says of the session."""

    def view(request: Any) -> Any:
        return TOY["Answer"](200, [str(handler(request.session)).encode()])

    return view


def plain_async(handler: Callable[[Any], object]) -> Callable[[Any], Any]:
    """The same for the asynchronous adapter. The handler runs in a thread, and may send other requests meanwhile."""

    async def view(request: Any) -> Any:
        session = Anywhere(request.session, asyncio.get_running_loop())
        said = await asyncio.to_thread(handler, session)
        return TOY["Answer"](200, [str(said).encode()])

    return view
