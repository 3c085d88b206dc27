"""Storage that is slow, fails, or loses its reply: what a session, its application and its client come to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from coatcheck import AsyncSessionManager, DriverUnavailable, EventKind, Policy, Session, SessionManager
from coatcheck.drivers._faces import AsyncFace
from coatcheck.drivers.base import Driver
from coatcheck.drivers.memory import AsyncMemoryDriver, MemoryDriver
from coatcheck.record import Delta, Missing, Record
from coatcheck.testing import (
    AsyncFaultyDriver,
    Blocking,
    Clock,
    DriverContract,
    FaultyDriver,
    Interleaving,
    make_record,
    signed_in,
)
from coatcheck.testing.helpers import START, puts, started

T = TypeVar("T")
Build = Callable[..., Any]
SHAPES = ["list", "generator", "write", "write and stream", "late", "unread"]
WRITING: dict[str, Callable[[Driver, Record], object]] = {
    "create": lambda driver, _: driver.create(make_record(), START),
    "commit": lambda driver, record: driver.commit(record.digest, Delta(increments={("", "n"): 1}), START),
    "rotate": lambda driver, record: driver.rotate(record.digest, b"\1" * 32, Delta(), 0, START),
    "revoke": lambda driver, record: driver.revoke(record.digest, START),
    "revoke_user": lambda driver, _: driver.revoke_user("ada", START),
    "sweep": lambda driver, _: driver.sweep(START + 10_000, 10),
    "setup": lambda driver, _: driver.setup(),
    "tear_down": lambda driver, _: driver.tear_down(),
}
READING: dict[str, Callable[[Driver, Record], object]] = {
    "load": lambda driver, record: driver.load(record.digest, START),
    "sessions_of": lambda driver, _: driver.sessions_of("ada", START),
    "missing": lambda driver, record: driver.missing([record.sid], START),
    "is_set_up": lambda driver, _: driver.is_set_up(),
}


# -- the wrapper itself


class TestFaultless(DriverContract):
    """A wrapper in which nothing goes wrong is a driver like the one inside."""

    concurrent = False
    sequences = 5

    @pytest.fixture(params=["faulty", "faulty, asynchronous", "interleaving"])
    def driver(self, request: pytest.FixtureRequest) -> Iterator[Driver]:
        if request.param == "faulty, asynchronous":
            driver: Driver = Blocking(AsyncFaultyDriver(AsyncMemoryDriver()))
        else:
            driver = (FaultyDriver if request.param == "faulty" else Interleaving)(MemoryDriver())
        yield driver
        driver.close()


class Both:
    """Storage that fails, for programs of one kind: sync or async.

    Attributes:
        faults: What says what fails.
        driver: How a test calls it.
    """

    def __init__(self, storage: Driver, *, asynchronous: bool, clock: Clock) -> None:
        self.faults: FaultyDriver | AsyncFaultyDriver
        self.driver: Driver
        if asynchronous:
            self.faults = AsyncFaultyDriver(OnThisThread(storage), sleep=clock.advance)
            self.driver = Blocking(self.faults)
        else:
            self.driver = self.faults = FaultyDriver(storage, sleep=clock.advance)


class OnThisThread(AsyncFace):
    """The asynchronous face of any driver."""

    name = "under test"

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        vars(self).update(capabilities=driver.capabilities)

    async def _do(self, operation: str, call: Callable[[], T]) -> T:
        return call()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest, storage: Driver) -> Iterator[Both]:
    made = Both(storage, asynchronous=request.param, clock=Clock())
    yield made
    if request.param:
        made.driver.close()


@pytest.mark.parametrize("operation", [*WRITING, *READING])
def test_a_call_that_fails_does_nothing(both: Both, storage: Driver, operation: str) -> None:
    record = started(storage, user="ada")
    both.faults.fail(operation)
    with pytest.raises(DriverUnavailable) as caught:
        {**WRITING, **READING}[operation](both.driver, record)
    assert caught.value.operation == operation
    assert not caught.value.outcome_unknown
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert storage.load(record.digest, START) == record


@pytest.mark.parametrize("operation", [*WRITING, *READING])
def test_only_of_a_write_whose_reply_is_lost_the_outcome_is_unknown(
    both: Both, storage: Driver, operation: str
) -> None:
    record = started(storage, user="ada")
    both.faults.lose_reply(operation, times=1)
    with pytest.raises(DriverUnavailable) as caught:
        {**WRITING, **READING}[operation](both.driver, record)
    assert caught.value.outcome_unknown is (operation in WRITING)
    if operation in ("revoke", "revoke_user", "rotate"):
        assert isinstance(storage.load(record.digest, START), Missing)
    both.driver.load(record.digest, START) if operation != "tear_down" else None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_chosen_calls_suffer_and_the_others_do_not(*, asynchronous: bool) -> None:
    clock = Clock()
    both = Both(MemoryDriver(), asynchronous=asynchronous, clock=clock)
    faulty, driver = both.faults, both.driver
    record = started(driver)
    faulty.fail("commit", skip=1, times=2)
    faulty.delay("load", "commit", seconds=3)
    outcomes = []
    for _ in range(4):
        try:
            driver.commit(record.digest, puts({("", "a"): b"x"}), START)
            outcomes.append("done")
        except DriverUnavailable:
            outcomes.append("failed")
    assert outcomes == ["done", "failed", "failed", "done"]
    assert clock.now == START + 12
    faulty.heal()
    driver.load(record.digest, START)
    assert clock.now == START + 12
    assert faulty.calls == ["create", "load", *["commit"] * 4, "load"]
    if asynchronous:
        driver.close()


def test_an_operation_that_is_not_there_is_refused() -> None:
    for names in ((), ("comit",)):
        with pytest.raises(ValueError, match="driver operations: commit, create"):
            FaultyDriver(MemoryDriver()).fail(*names)
        with pytest.raises(ValueError, match="driver operations: commit, create"):
            AsyncFaultyDriver(AsyncMemoryDriver()).lose_reply(*names)


def test_an_asynchronous_session_on_storage_that_fails() -> None:
    storage = AsyncFaultyDriver(AsyncMemoryDriver())
    manager = AsyncSessionManager(storage)

    async def program() -> None:
        cookie = await signed_in(manager, "ada", visits=1)
        storage.lose_reply("commit", times=1)
        storage.delay("load", seconds=0.001)
        session = await manager.open([cookie.header]).load()
        session.increment("visits")
        with pytest.raises(DriverUnavailable) as caught:
            await manager.save(session)
        assert caught.value.outcome_unknown
        assert (await manager.open([cookie.header]).load())["visits"] == 2
        storage.fail("load")
        with pytest.raises(DriverUnavailable):
            await manager.open([cookie.header]).load()
        assert storage.calls == ["create", "load", "commit", "load", "load"]
        await manager.close()

    asyncio.run(program())


# -- a session on it


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reads", [True, False])
def test_an_increment_whose_reply_is_lost_is_never_sent_again(
    web: Build, storage: Driver, shape: str, *, reads: bool
) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty)
    secret = site.ask(lambda session: session.update(hits=0)).secret
    faulty.calls.clear()
    faulty.lose_reply("commit")

    def visit(session: Session) -> None:
        if reads:
            assert session["hits"] == 0
        session.increment("hits")

    reply = site.ask(visit, secret, shape)
    assert faulty.calls.count("commit") == 1
    assert site.values(secret) == {"hits": 1}
    assert reply.cookie is None
    if shape == "late":  # the headers are out: the server is told
        assert isinstance(reply.error, DriverUnavailable)
        assert reply.error.outcome_unknown
    elif shape == "unread":
        assert reply.status == "503 Service Unavailable" or isinstance(reply.error, DriverUnavailable)
    else:
        assert reply.status == "503 Service Unavailable"


def test_the_program_is_told_that_the_outcome_is_unknown(storage: Driver) -> None:
    faulty = FaultyDriver(storage)
    manager = SessionManager(faulty)
    cookie = signed_in(manager, "ada", hits=1)
    for lost in (True, False):
        (faulty.lose_reply if lost else faulty.fail)("commit", times=1)
        session = manager.open([cookie.header])
        session.increment("hits")
        with pytest.raises(DriverUnavailable) as caught:
            manager.save(session)
        assert caught.value.outcome_unknown is lost
        assert manager.open([cookie.header])["hits"] == 2


@pytest.mark.parametrize("operation", ["commit", "create", "rotate"])
def test_no_write_is_sent_again_after_any_failure(web: Build, storage: Driver, operation: str) -> None:
    handlers: dict[str, Callable[[Session], object]] = {
        "commit": lambda session: session.update(a=1),
        "create": lambda session: session.update(a=1),
        "rotate": lambda session: session.rotate(),
    }
    for shape in SHAPES[:4]:
        for way in ("fail", "lose_reply"):
            faulty = FaultyDriver(storage)
            site = web(faulty)
            secret = None if operation == "create" else site.ask(lambda session: session.update(b=1)).secret
            faulty.calls.clear()
            getattr(faulty, way)(operation)
            reply = site.ask(handlers[operation], secret, shape)
            assert faulty.calls.count(operation) == 1
            assert (reply.status, reply.cookie, reply.error) == ("503 Service Unavailable", None, None)


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_a_read_that_fails_is_503_and_the_cookie_stays(web: Build, storage: Driver, shape: str) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty)
    secret = site.ask(lambda session: session.login("ada")).secret
    faulty.fail("load", times=1)
    reply = site.ask(lambda session: session.user, secret, shape)
    assert reply.status == "503 Service Unavailable"
    assert reply.headers["Retry-After"] == "5"
    assert reply.cookie is None
    assert [event.kind for event in site.events].count(EventKind.UNAVAILABLE) == 1
    assert site.ask(lambda session: session.user, secret, shape).body == b"ada", "and is still logged in afterwards"


def test_a_slow_read_takes_the_session_as_of_its_own_moment(web: Build, storage: Driver) -> None:
    clock = Clock()
    faulty = FaultyDriver(storage, sleep=clock.advance)
    site = web(faulty, Policy(idle=100.0), clock)
    secret = site.ask(lambda session: session.update(a=1)).secret
    faulty.delay("load", seconds=99)
    assert site.ask(lambda session: session["a"], secret).body == b"1"
    faulty.delay("load", seconds=3)
    site.ask(lambda session: session.get("a"), secret)
    assert isinstance(site.found(secret), Missing), "101 seconds without recorded activity, and more"


@pytest.mark.parametrize("way", ["fail", "lose_reply"])
@pytest.mark.parametrize("visitor", ["newcomer", "visitor", "reader"])
def test_a_log_in_whose_save_fails_gives_no_cookie(web: Build, storage: Driver, way: str, visitor: str) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty)
    secret = None if visitor == "newcomer" else site.ask(lambda session: session.update(cart=["hat"])).secret
    getattr(faulty, way)("create", "rotate")

    def log_in(session: Session) -> None:
        if visitor == "reader":
            assert session.user is None
        session.login("ada", keep=["cart"])

    reply = site.ask(log_in, secret)
    assert (reply.status, reply.cookie) == ("503 Service Unavailable", None)
    assert len(storage.sessions_of("ada", site.clock.now)) == (way == "lose_reply")
    if secret is not None:
        assert isinstance(site.found(secret), Record) is (way == "fail")
    faulty.heal()
    retried = site.ask(log_in, secret)
    assert retried.status == "200 OK"
    assert site.ask(lambda session: session.user, retried.secret).body == b"ada"


@pytest.mark.parametrize("reads", [True, False])
def test_a_logout_whose_revocation_fails_says_so(web: Build, storage: Driver, *, reads: bool) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty)

    def log_out(session: Session) -> None:
        if reads:
            assert session.user == "ada"
        session.logout()

    for way, ended in (("fail", False), ("lose_reply", True)):
        secret = site.ask(lambda session: session.login("ada")).secret
        getattr(faulty, way)("revoke")
        session = site.manager.open([f"__Host-sid={secret}"])
        log_out(session)
        with pytest.raises(DriverUnavailable) as caught:
            site.manager.save(session)
        assert caught.value.outcome_unknown is ended
        assert isinstance(site.found(secret), Missing) is ended
        faulty.heal()
        secret = site.ask(lambda session: session.login("ada")).secret
        getattr(faulty, way)("revoke")
        reply = site.ask(log_out, secret)
        assert reply.status == "503 Service Unavailable", "nobody is shown that they are logged out"
        assert reply.cookie is None
        assert isinstance(site.found(secret), Missing) is ended
        faulty.heal()
        assert site.manager.revoke_user("ada") == (0 if ended else 2)
        site.clock.advance(1)


def test_a_renewal_whose_reply_is_lost_leaves_nobody_outside(web: Build, storage: Driver) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty, Policy(rotate_after=300, grace=30))
    secret = site.ask(lambda session: session.login("ada")).secret
    site.clock.advance(301)
    faulty.lose_reply("rotate", times=1)
    assert site.ask(lambda session: session.user, secret).status == "503 Service Unavailable"
    assert site.ask(lambda session: session.user, secret).body == b"ada"
    site.clock.advance(31)
    renewed = site.ask(lambda session: session.user, secret)
    assert renewed.body == b"ada"
    assert renewed.secret != secret


def test_a_sweep_that_fails_is_nobodys_trouble(web: Build, storage: Driver) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty, Policy(sweep_every=1))
    faulty.fail("sweep")
    assert site.ask(lambda session: session.update(a=1)).status == "200 OK"
    assert faulty.calls[-1] == "sweep"


def test_a_merge_whose_second_load_fails_writes_nothing(web: Build, storage: Driver) -> None:
    faulty = FaultyDriver(storage)
    site = web(faulty)
    secret = site.ask(lambda session: session.update(cart=["hat"])).secret

    def slow(session: Session) -> None:
        session["cart"].append("scarf")
        site.ask(lambda other: other["cart"].append("umbrella"), secret)
        faulty.fail("load")

    reply = site.ask(slow, secret)
    assert (reply.status, reply.cookie) == ("503 Service Unavailable", None)
    assert site.values(secret) == {"cart": ["hat", "umbrella"]}


@pytest.mark.parametrize("operation", ["sessions_of", "revoke_user"])
def test_the_manager_passes_failures_on(storage: Driver, operation: str) -> None:
    faulty = FaultyDriver(storage)
    manager = SessionManager(faulty)
    signed_in(manager, "ada")
    faulty.fail(operation)
    with pytest.raises(DriverUnavailable):
        getattr(manager, operation)("ada")


def test_whether_a_session_can_be_stored_now_is_the_other_drivers_answer() -> None:
    class Down(MemoryDriver):
        def takes(self, digest: bytes, sid: str | None) -> bool:
            return digest != b"down" or sid is not None

    class AsyncDown(AsyncMemoryDriver):
        def takes(self, digest: bytes, sid: str | None) -> bool:
            return digest != b"down" or sid is not None

    for driver in (FaultyDriver(Down()), AsyncFaultyDriver(AsyncDown())):
        assert [driver.takes(b"down", None), driver.takes(b"down", "sid"), driver.takes(b"up", None)] == [
            False,
            True,
            True,
        ]
