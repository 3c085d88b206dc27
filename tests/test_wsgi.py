"""The middleware's manners: every shape of answer that PEP 3333 knows, with the session saved at the right moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import CoatcheckError, Session

if TYPE_CHECKING:
    from tests.conftest import House, Site

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]
FAILED = (LookupError, LookupError("half-way"), None)


def session_of(environ: dict[str, Any]) -> Session:
    session = environ["coatcheck.session"]
    assert isinstance(session, Session)
    return session


class Body:
    """A body that notes what is done to it.

    Args:
        work: The chunks; a function among them is called in its place.
    """

    def __init__(self, *work: bytes | Callable[[], object]) -> None:
        self.work = iter(work)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for step in self.work:
            if isinstance(step, bytes):
                return step
            step()
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


class Once:
    """A body that is no iterator itself and has no close()."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)


def listed(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    start("200 OK", PLAIN)
    return [b"he", b"llo"]


def late_change(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    session_of(environ)["a"] = 1  # the headers are not out before the application has returned
    return (b"hello",)


def generated(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    start("200 OK", PLAIN)
    yield b"he"
    yield b""
    yield b"llo"


def empty_first(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    session_of(environ)["a"] = 1
    yield b""
    yield b"hello"


def started_late(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    def body() -> Iterator[bytes]:
        session_of(environ)["a"] = 1
        start("200 OK", PLAIN)
        yield b"hello"

    return body()


def written(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    write = start("200 OK", PLAIN)
    write(b"he")
    write(b"llo")
    return []


def written_and_listed(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    start("200 OK", PLAIN)(b"he")
    return [b"llo"]


def written_and_generated(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    start("200 OK", PLAIN)(b"he")
    return Body(b"llo")


def an_object(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    start("200 OK", PLAIN)
    return Once(b"hello")


def corrected(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    session_of(environ)["a"] = 1
    start("500 Oh no", [("Content-Type", "text/html"), ("X-Wrong", "1")])
    start("200 OK", PLAIN, FAILED)
    return [b"hello"]


WHOLE: list[App] = [
    listed, late_change, generated, empty_first, started_late, written, written_and_listed, written_and_generated,
    an_object, corrected,
]  # fmt: skip


@pytest.mark.parametrize("app", WHOLE)
@pytest.mark.parametrize("checked", [True, False], ids=["validated", "plain"])
def test_every_shape_of_answer_comes_through_with_the_session_saved(
    house: House,
    site: Callable[..., Site],
    app: App,
    checked: bool,  # noqa: FBT001
) -> None:
    server = site(house, app, checked=checked)
    reply = server.get()
    assert (reply.status, reply.body) == ("200 OK", b"hello")
    assert reply.cookie is not None
    assert reply.all("Content-Type") == ["text/plain"]
    assert reply.all("X-Wrong") == []
    assert house.manager.open([reply.cookie.partition(";")[0]])["a"] == 1
    assert house.driver.asked[0] == "create"
    assert house.driver.stored == 1


@pytest.mark.parametrize("app", WHOLE)
def test_of_a_body_that_nobody_asks_for_the_session_is_saved_all_the_same(
    house: House, site: Callable[..., Site], app: App
) -> None:
    server = site(house, app, checked=False)
    body = server.start(REQUEST_METHOD="HEAD")
    if hasattr(body, "close"):
        body.close()
    # An application that does not even begin before it is iterated has done nothing yet.
    did_nothing = app in (generated, empty_first, started_late)
    assert house.driver.stored == (not did_nothing)
    assert (server.last.status == "200 OK") != did_nothing


@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        ("HEAD", "200 OK", PLAIN, []),
        ("GET", "304 Not Modified", [], []),
        ("GET", "204 No Content", [], []),
        ("POST", "303 See Other", [("Location", "/x"), *PLAIN], []),
        ("GET", "200 OK", [*PLAIN, ("Content-Length", "0")], []),
        ("GET", "500 Internal Server Error", PLAIN, [b"sorry"]),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_answers_without_a_body_and_errors_of_the_application_are_saved_too(
    house: House, site: Callable[..., Site], method: str, status: str, headers: list[tuple[str, str]],
    body: list[bytes], streamed: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        start(status, headers)
        return iter(body) if streamed else body

    reply = site(house, app).get(REQUEST_METHOD=method)
    assert (reply.status, reply.body) == (status, b"".join(body))
    assert reply.cookie is not None
    assert set(headers) <= set(reply.headers)
    assert house.driver.stored == 1


# -- the body is closed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["to the end", "abandoned", "never begun"])
def test_the_body_is_closed_exactly_once(house: House, site: Callable[..., Site], how: str) -> None:
    body = Body(b"one", b"two")

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        start("200 OK", PLAIN)
        return body

    answer: Any = site(house, app, checked=False).start()
    if how != "never begun":
        assert next(answer) == b"one"
    if how == "to the end":
        assert list(answer) == [b"two"]
    assert body.closed == 0
    answer.close()
    assert body.closed == 1
    assert house.driver.stored == 1


@pytest.mark.parametrize("at", ["save", "first chunk", "second chunk", "start"])
def test_the_body_is_closed_exactly_once_after_an_error_too(house: House, site: Callable[..., Site], at: str) -> None:
    def fail() -> None:
        raise LookupError(at)

    steps: dict[str, list[Any]] = {
        "save": [b"one"],
        "first chunk": [fail],
        "second chunk": [b"one", fail],
        "start": [b"one"],
    }
    body = Body(*steps[at])

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = []
        if at != "start":
            start("200 OK", PLAIN)
        if at == "save":
            session_of(environ)["a"].append(object())
        return body

    expected = {"save": CoatcheckError, "start": AssertionError}.get(at, LookupError)
    server = site(house, app, checked=False)
    with pytest.raises(expected):
        server.get()
    assert body.closed == 1
    assert house.driver.stored == (at == "second chunk")


def test_a_list_with_a_close_is_closed_when_the_save_fails(house: House, site: Callable[..., Site]) -> None:
    class Closing(list[bytes]):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    body = Closing([b"one"])

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = []
        session_of(environ)["a"].append(object())
        start("200 OK", PLAIN)
        return body

    with pytest.raises(CoatcheckError):
        site(house, app, checked=False).get()
    assert body.closed == 1


# -- start_response -------------------------------------------------------------------------------------------------


def test_start_response_twice_without_exc_info_is_an_error_and_nothing_is_saved(
    house: House, site: Callable[..., Site]
) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        start("200 OK", PLAIN)
        start("200 OK", PLAIN)
        return [b"x"]

    with pytest.raises(AssertionError, match="twice without exc_info"):
        site(house, app).get()
    assert house.driver.asked == []


@pytest.mark.parametrize("by_write", [True, False])
def test_an_error_after_the_first_output_is_raised_again_by_the_server(
    house: House,
    site: Callable[..., Site],
    by_write: bool,  # noqa: FBT001
) -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        write = start("200 OK", PLAIN)
        if by_write:
            write(b"begun")
        else:
            yield b"begun"
        session_of(environ)["a"] = 2
        start("500 Oh no", PLAIN, FAILED)
        yield b"never"

    server = site(house, app)
    with pytest.raises(LookupError, match="half-way"):
        server.get()
    assert (server.last.status, server.last.body) == ("200 OK", b"begun")
    assert server.last.cookie is not None
    assert house.manager.open([server.last.cookie.partition(";")[0]])["a"] == 1


def test_an_error_page_in_place_of_headers_that_are_not_out_yet_keeps_the_cookie(
    house: House, site: Callable[..., Site]
) -> None:
    # An empty first chunk makes the middleware hand on the headers, but the server has not sent them.
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        session_of(environ).login("ann")
        start("200 OK", PLAIN)
        yield b""
        start("500 Oh no", PLAIN, FAILED)
        yield b"sorry"

    reply = site(house, app).get(house.visitor(a=1).cookie)
    assert (reply.status, reply.body) == ("500 Oh no", b"sorry")
    assert reply.cookie is not None
    assert house.manager.open([reply.cookie.partition(";")[0]]).user == "ann"
    assert reply.all("Vary") == ["Cookie"]
    assert reply.all("Cache-Control") == ["no-store"]
