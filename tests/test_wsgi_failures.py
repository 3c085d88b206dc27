"""Storage that is down, and the sweep: fail closed, say nothing, touch no cookie (checklist G3, G4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import CoatcheckError, ConflictError, DriverUnavailable, EventKind, Policy, SessionUnavailable

if TYPE_CHECKING:
    from tests.conftest import House, Reply, Site

Act = Callable[[Any], object]
PLAIN = [("Content-Type", "text/html"), ("Set-Cookie", "mine=1"), ("X-Page", "secret")]
BODY = b"The service is temporarily unavailable. Please try again in a moment.\n"


class Body:
    """A body, with a close that is counted."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1


def listed(act: Act) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start("200 OK", PLAIN)
        return [b"page", b"more"]

    return app


def streamed(act: Act) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start("200 OK", PLAIN)
        yield b"page"
        yield b"more"

    return app


def written(act: Act) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        write = start("200 OK", PLAIN)
        write(b"page")
        write(b"more")
        return [b"rest"]

    return app


def written_and_streamed(act: Act) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start("200 OK", PLAIN)(b"page")
        return Body(b"more")

    return app


def empty(act: Act) -> Any:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        act(environ["coatcheck.session"])
        start("200 OK", PLAIN)
        return iter(())

    return app


SHAPES = [listed, streamed, written, written_and_streamed, empty]


def _is_unavailable(reply: Reply) -> None:
    assert reply.status == "503 Service Unavailable"
    assert reply.body == BODY
    assert reply.all("Content-Length") == [str(len(BODY))]
    assert reply.all("Retry-After") == ["5"]
    assert reply.all("Cache-Control") == ["no-store"]
    assert reply.all("Content-Type") == ["text/plain; charset=utf-8"]
    assert reply.all("Set-Cookie") == []
    assert reply.all("X-Page") == []


def _generic(reply: Reply, *secrets: str) -> None:
    text = repr(reply.headers) + repr(reply.body)
    for said in ("memory", "on purpose", "Traceback", "commit", "load", "coatcheck", *secrets):
        assert said not in text


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("act", [lambda s: s["a"], lambda s: s.user, lambda s: "a" in s, lambda s: s.login("x", ["a"])])
def test_a_session_that_cannot_be_loaded_is_503(
    house: House, site: Callable[..., Site], shape: Callable[[Act], Any], act: Act
) -> None:
    client = house.visitor(a=1)
    house.driver.down = frozenset({"load"})
    reply = site(house, shape(act)).get(client.cookie)
    _is_unavailable(reply)
    _generic(reply, client.secret)
    assert house.kinds() == {EventKind.UNAVAILABLE: 1}
    house.driver.down = frozenset()
    assert client.read() == {"a": 1}


WRITES: dict[str, tuple[Act, str]] = {
    "write": (lambda s: s.update(b=2), "commit"),
    "read and write": (lambda s: s.update(a=s["a"] + 1), "commit"),
    "log-in": (lambda s: s.login("ann"), "rotate"),
    "log-out": (lambda s: s.logout(), "revoke"),
    "rotation": (lambda s: s.rotate(), "rotate"),
    "log-out and write": (lambda s: [s.logout(), s.update(b=2)], "create"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("act", "down"), WRITES.values(), ids=WRITES)
def test_a_session_that_cannot_be_saved_is_503_and_tried_once(
    house: House, site: Callable[..., Site], shape: Callable[[Act], Any], act: Act, down: str
) -> None:
    client = house.visitor(a=1)
    house.driver.down = frozenset({down})
    reply = site(house, shape(act)).get(client.cookie)
    _is_unavailable(reply)
    _generic(reply, client.secret)
    assert house.driver.asked.count(down) == 1
    house.driver.down = frozenset()
    if down != "create":  # there the log-out itself was done
        assert client.read() == {"a": 1}
        assert house.manager.sessions_of("ann") == []


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_session_that_cannot_be_stored_is_503_without_a_cookie(
    house: House, site: Callable[..., Site], shape: Callable[[Act], Any]
) -> None:
    house.driver.down = frozenset({"create"})
    for act in (lambda s: s.login("ann"), lambda s: s.update(a=1)):
        _is_unavailable(site(house, shape(act)).get())
    assert house.driver.stored == 0


def test_an_application_that_swallows_the_error_cannot_use_the_session_all_the_same(
    house: House, site: Callable[..., Site]
) -> None:
    raised: list[type[Exception]] = []

    def act(session: Any) -> None:
        uses: list[Act] = [
            lambda s: s.get("a"), lambda s: s.update(a=2), lambda s: s.user, lambda s: s.login("eve"),
            lambda s: s.logout(), lambda s: s.rotate(), lambda s: s.expire_at(1.0), lambda s: s.increment("n"),
            lambda s: s.clear(), lambda s: s.pop("a", None), lambda s: s.sid, lambda s: s.is_new, list, len,
        ]  # fmt: skip
        for use in uses:
            try:
                use(session)
            except CoatcheckError as error:
                raised.append(type(error))

    client = house.visitor(a=1)
    house.driver.down = frozenset({"load"})
    reply = site(house, listed(act)).get(client.cookie)
    assert raised == [DriverUnavailable] + [SessionUnavailable] * 13
    assert (reply.status, reply.all("Set-Cookie")) == ("200 OK", ["mine=1"])  # its own answer, and no cookie of ours
    assert house.driver.asked == ["load"]
    house.driver.down = frozenset()
    assert client.read() == {"a": 1}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_application_that_swallows_the_first_error_and_trips_over_the_second_is_503(
    house: House, site: Callable[..., Site], shape: Callable[[Act], Any]
) -> None:
    def act(session: Any) -> None:
        with pytest.raises(DriverUnavailable):
            session.get("a")
        session["a"] = 2

    client = house.visitor(a=1)
    house.driver.down = frozenset({"load"})
    _is_unavailable(site(house, shape(act)).get(client.cookie))
    assert house.driver.asked == ["load"]


def test_available_tells_without_raising_and_the_page_stays_up(house: House, site: Callable[..., Site]) -> None:
    told: list[bool] = []
    client = house.visitor(a=1)
    server = site(house, listed(lambda s: told.extend([s.available, s.available])))
    house.driver.down = frozenset({"load"})
    reply = server.get(client.cookie)
    assert reply.status == "200 OK"
    assert reply.all("Set-Cookie") == ["mine=1"]
    assert reply.all("Vary") == ["Cookie"]
    house.driver.down = frozenset()
    server.get(client.cookie)
    server.get()
    assert told == [False, False, True, True, True, True]


def test_an_error_of_storage_that_is_not_the_sessions_is_the_applications_own(
    house: House, site: Callable[..., Site]
) -> None:
    house.driver.down = frozenset({"sessions_of"})
    with pytest.raises(DriverUnavailable):
        site(house, listed(lambda _: house.manager.sessions_of("ann"))).get()


def test_storage_that_fails_while_the_body_streams_is_an_error_of_the_close(
    house: House, site: Callable[..., Site]
) -> None:
    client = house.visitor(a=1)

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        yield b"page"
        environ["coatcheck.session"]["b"] = 2
        house.driver.down = frozenset({"commit"})

    server = site(house, app)
    with pytest.raises(DriverUnavailable):
        server.get(client.cookie)
    assert (server.last.status, server.last.body) == ("200 OK", b"page")
    assert house.driver.asked == ["commit"]


def test_a_load_that_fails_while_the_body_streams_is_raised_and_not_answered_twice(
    house: House, site: Callable[..., Site]
) -> None:
    client = house.visitor(a=1)
    house.driver.down = frozenset({"load"})

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        yield b"page"
        yield str(environ["coatcheck.session"]["a"]).encode()

    server = site(house, app)
    with pytest.raises(DriverUnavailable):
        server.get(client.cookie)
    assert (server.last.status, server.last.body) == ("200 OK", b"page")


@pytest.mark.parametrize("shape", [listed, streamed])
def test_a_conflict_that_the_policy_makes_an_error_is_an_error_and_no_503(
    build: Callable[..., House], site: Callable[..., Site], shape: Callable[[Act], Any]
) -> None:
    house = build(Policy(on_conflict="error"))
    client = house.visitor(a=1)

    def act(session: Any) -> None:
        session["a"] = session["a"] + 1
        with client.twin().request() as other:
            other["a"] = 10

    with pytest.raises(ConflictError, match="key 'a'"):
        site(house, shape(act)).get(client.cookie)
    assert client.read() == {"a": 10}


def test_the_body_of_a_refused_answer_is_closed(house: House, site: Callable[..., Site]) -> None:
    for down in ("load", "commit"):
        body = Body(b"page")

        def app(environ: dict[str, Any], start: Any, body: Body = body) -> Iterable[bytes]:
            environ["coatcheck.session"]["a"] = 1
            start("200 OK", PLAIN)
            return body

        client = house.visitor(a=1)
        house.driver.down = frozenset({"commit", down})
        _is_unavailable(site(house, app).get(client.cookie))
        assert body.closed == 1
        house.driver.down = frozenset()


# -- the sweep ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [listed, streamed, written, empty])
def test_a_sweep_comes_after_the_answer_and_after_the_body_was_closed(
    build: Callable[..., House], site: Callable[..., Site], shape: Callable[[Act], Any]
) -> None:
    house = build(Policy(sweep_every=1, idle=60))
    house.visitor(a=1)
    house.clock.advance(61)
    order: list[str] = []
    house.driver.before["sweep"] = lambda: order.append("sweep")
    inner = shape(lambda s: s.update(b=1))

    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        class Closing(list[bytes]):
            def close(self) -> None:
                order.append("closed")

        return Closing(inner(environ, start)) if shape is listed else inner(environ, start)

    server = site(house, app)
    body: Any = server.start()
    order.extend(chunk.decode() for chunk in body)
    assert "sweep" not in order
    body.close()
    assert order[-1] == "sweep"
    assert ("closed" in order) == (shape is listed)
    assert house.driver.stored == 1


def test_a_sweep_comes_once_in_so_many_writes_and_never_for_a_read(
    build: Callable[..., House], site: Callable[..., Site]
) -> None:
    house = build(Policy(sweep_every=10))
    client = house.visitor(a=1)
    for _ in range(25):
        site(house, listed(lambda s: s["a"])).get(client.cookie)
        site(house, listed(lambda _: None)).get(client.cookie)
    assert house.driver.asked.count("sweep") == 0
    for _ in range(25):
        site(house, listed(lambda s: s.increment("n"))).get(client.cookie)
    assert house.driver.asked.count("sweep") == 2


def test_sweeping_can_be_left_to_the_application(build: Callable[..., House], site: Callable[..., Site]) -> None:
    house = build(Policy(sweep_every=0, idle=60))
    client = house.visitor(a=1)
    for _ in range(5):
        site(house, listed(lambda s: s.increment("n"))).get(client.cookie)
    assert "sweep" not in house.driver.asked
    house.clock.advance(61)
    assert house.manager.sweep() == 1


@pytest.mark.parametrize("shape", [listed, streamed])
def test_a_sweep_that_fails_is_logged_and_harms_nobody(
    build: Callable[..., House],
    site: Callable[..., Site],
    shape: Callable[[Act], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = build(Policy(sweep_every=1))
    house.driver.down = frozenset({"sweep"})
    reply = site(house, shape(lambda s: s.update(a=1))).get()
    assert reply.status == "200 OK"
    assert "could not sweep" in caplog.text


def test_one_sweep_removes_no_more_than_its_limit(build: Callable[..., House], site: Callable[..., Site]) -> None:
    house = build(Policy(sweep_every=1, sweep_limit=3, idle=60))
    for _ in range(10):
        house.visitor(a=1)
    house.clock.advance(61)
    left = []
    for _ in range(4):
        site(house, listed(lambda s: s.update(a=1))).get()
        left.append(house.driver.stored)
    assert left == [8, 6, 4, 4]
