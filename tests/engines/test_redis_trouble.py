"""Redis: scripts that fail half-way, keys that another program spoilt, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ResponseError
from testservers import RedisCluster, RedisSentinel, RedisServer
from testservers.base import free_port
from testservers.engines import with_options

from coatcheck.drivers import open_async_driver
from coatcheck.drivers.base import Driver
from coatcheck.drivers.redis import RedisDriver
from coatcheck.drivers.redis.trouble import Lost
from coatcheck.drivers.redis.work import answer
from coatcheck.errors import DriverUnavailable
from coatcheck.record import Committed, Conflict, Delta, Gone, Missing, Reason, Record, ValueKey
from coatcheck.testing import Blocking
from coatcheck.testing.helpers import START, committed, loaded, make_record, puts, started, successor

A: ValueKey = ("", "a")
B: ValueKey = ("", "b")
C: ValueKey = ("", "c")
LOGIN = Delta(user="eve", auth_time=START, puts=puts({A: b"logged in"}).puts, drops={B: None}, increments={C: 1})
Open = Callable[..., RedisDriver]


@pytest.fixture
def driver(redis_driver: RedisDriver) -> RedisDriver:
    return redis_driver


@pytest.fixture(params=["one server", "async", "copies", "cluster"])
def anywhere(request: pytest.FixtureRequest, namespace: str, open_at: Open) -> Iterator[tuple[Driver, Any]]:
    """A driver and the servers, in each of the ways to them that differ; with a spoilt index of the user ada."""
    kind = {"copies": "redis_sentinel", "cluster": "redis_cluster"}.get(request.param, "redis_server")
    servers = request.getfixturevalue(kind)
    options = {"durable": "replicas:1"} if request.param == "copies" else {}
    url = with_options(servers.url, prefix=namespace, **options)
    driver: Driver = open_at(servers.url, **options)
    if request.param == "async":
        driver = Blocking(open_async_driver(url))
    driver.setup()
    index = f"{namespace}:{{u:ada}}:u"
    server = home_of(servers, index)
    server.command("SET", index, "x")
    yield driver, server
    server.command("DEL", index)
    driver.tear_down()
    driver.close()


def home_of(servers: RedisServer | RedisSentinel | RedisCluster, key: str) -> RedisServer:
    if isinstance(servers, RedisServer):
        return servers
    return servers.primary() if isinstance(servers, RedisSentinel) else servers.primary_of(key)


def keys_of_sessions(server: RedisServer, namespace: str) -> list[bytes]:
    found: list[bytes] = server.command("KEYS", f"{namespace}:*")
    return [key for key in found if b":d:" in key or b":s:" in key]


# Scripts that fail half-way


def test_a_log_in_whose_index_is_spoilt_is_no_log_in(anywhere: tuple[Driver, RedisServer], namespace: str) -> None:
    driver, server = anywhere
    record = make_record(user="ada", values={A: b"a"})
    with pytest.raises(DriverUnavailable, match=r"WRONGTYPE.*another program") as caught:
        driver.create(record, START)
    assert caught.value.__cause__ is not None
    assert driver.load(record.digest, START) == Missing(Reason.UNKNOWN)
    assert keys_of_sessions(server, namespace) == []
    anonymous = started(driver, values={A: b"a"})
    before = loaded(driver, anonymous.digest, START)
    with pytest.raises(DriverUnavailable):
        driver.commit(anonymous.digest, Delta(user="ada", auth_time=START, puts=puts({A: b"b"}).puts), START)
    assert loaded(driver, anonymous.digest, START) == before
    new = successor(driver, anonymous.digest)
    with pytest.raises(DriverUnavailable):
        driver.rotate(anonymous.digest, new, Delta(user="ada", auth_time=START), 0, START)
    assert loaded(driver, anonymous.digest, START) == before
    assert driver.load(new, START) == Missing(Reason.UNKNOWN)


def test_a_script_that_fails_may_have_written(driver: RedisDriver, redis_server: RedisServer) -> None:
    redis_server.command("SET", driver._operations.keys.base + b"{u:ada}:u", "x")
    with pytest.raises(DriverUnavailable, match="WRONGTYPE") as caught:
        driver.create(make_record(user="ada"), START)
    assert caught.value.outcome_unknown


COMMANDS = [
    *("evalsha", "script", "hget", "hgetall", "hset", "hdel", "hkeys", "hmget", "get", "set", "rename", "unlink"),
    *("exists", "persist", "pexpire", "pttl", "zadd", "zrem", "zrange", "zcard", "zremrangebyscore"),
]


@pytest.fixture
def limited(redis_server: RedisServer, namespace: str, open_at: Open) -> Iterator[Callable[[str], RedisDriver]]:
    """Gives a driver whose user may not use a command."""

    def limited_by(forbidden: str) -> RedisDriver:
        redis_server.command("ACL", "SETUSER", namespace, "on", ">secret", "~*", "+@all", f"-{forbidden}")
        return open_at(redis_server.url.replace("://", f"://{namespace}:secret@"))

    yield limited_by
    redis_server.command("ACL", "DELUSER", namespace)


@pytest.mark.parametrize("forbidden", COMMANDS)
@pytest.mark.parametrize("operation", ["create", "commit", "rotate"])
def test_no_command_that_is_forbidden_leaves_half_a_session(
    driver: RedisDriver,
    redis_server: RedisServer,
    namespace: str,
    limited: Callable[[str], RedisDriver],
    operation: str,
    forbidden: str,
) -> None:
    """What is acknowledged is done; whatever else happens, a session with a user is listed, and all have an end."""
    record = started(driver, user="ada", values={A: b"a", B: b"b"})
    redis_server.command("SCRIPT", "FLUSH")
    weak = limited(forbidden)
    if forbidden != "script":
        redis_server.command("ACL", "SETUSER", namespace, "+script")
    new = make_record(user="eve", values={A: b"a"}) if operation == "create" else None
    writes: dict[str, Callable[[], object]] = {
        "create": lambda: new and weak.create(new, START),
        "commit": lambda: weak.commit(record.digest, LOGIN, START),
        "rotate": lambda: weak.rotate(record.digest, successor(driver, record.digest), LOGIN, 30, START),
    }
    error: DriverUnavailable | None = None
    try:
        assert isinstance(writes[operation](), Committed)
    except DriverUnavailable as caught:
        error = caught
    if error is None:
        assert len(driver.sessions_of("eve", START)) == 1
    else:
        assert "docs/engines/redis.md" in str(error)
        assert error.outcome_unknown == (forbidden not in {"evalsha", "script"})
    listed = {info.sid for user in ("ada", "eve") for info in driver.sessions_of(user, START)}
    for key in redis_server.command("KEYS", f"{namespace}:d:*"):
        found = driver.load(key.removeprefix(f"{namespace}:d:".encode()), START)
        if isinstance(found, Record):
            assert redis_server.command("TTL", key) > 0
            assert found.user is None or found.sid in listed


@pytest.mark.parametrize("forbidden", ["hmget", "hgetall", "get"])
def test_a_read_that_is_forbidden_is_never_no_session(
    driver: RedisDriver, limited: Callable[[str], RedisDriver], forbidden: str
) -> None:
    record = started(driver, user="ada")
    rotated = started(driver, user="ada")
    committed(driver.rotate(rotated.digest, successor(driver, rotated.digest), Delta(), 30, START))
    weak = limited(forbidden)
    operations: list[Callable[[], object]] = [
        lambda: not isinstance(weak.load(record.digest, START), Record),
        lambda: not isinstance(weak.load(rotated.digest, START), Record),
        lambda: weak.missing([record.sid], START),
        lambda: len(weak.sessions_of("ada", START)) != 2,
        lambda: isinstance(weak.commit(record.digest, Delta(touch=START + 1), START), Gone),
    ]
    for is_wrong in operations:
        with suppress(DriverUnavailable):
            assert not is_wrong()


@pytest.mark.parametrize(
    "reply",
    [None, 0, 2, b"OK", b"1", [], [b"done"], [b"done", 1, 2], [b"what"], [b"confirm", b"", b""], ResponseError("no")],
)
def test_only_a_reply_that_says_so_is_an_acknowledgement(reply: object) -> None:
    with pytest.raises(Lost):
        answer(reply, Delta(increments={C: 1}), 7)


def test_each_reply_of_a_script_has_its_meaning() -> None:
    assert answer(1, Delta(), 7) == Committed(7)
    assert answer([b"done", b"3"], Delta(increments={C: 1}), 7) == Committed(7, {C: 3})
    assert answer([b"conflict"], Delta(), 7) == Conflict()
    with pytest.raises(Lost):
        answer(1, Delta(increments={C: 1}), 7)


# Keys that another program spoilt


def test_a_spoilt_index_is_told_of(anywhere: tuple[Driver, RedisServer]) -> None:
    driver, _ = anywhere
    for operation in (
        lambda: driver.sessions_of("ada", START),
        lambda: driver.revoke_user("ada", START),
    ):
        with pytest.raises(DriverUnavailable, match=r"WRONGTYPE.*another program") as caught:
            operation()
        assert caught.value.__cause__ is not None
    assert driver.sessions_of("eve", START) == []


def test_tear_down_leaves_what_is_only_under_the_same_prefix(
    redis_server: RedisServer, redis_cluster: RedisCluster, namespace: str, open_at: Open
) -> None:
    names = ("cache", "d:1", "d:", "s:1", "{u:ada}:x", "{8f}:cache", "schemata", "u", "queue:d:" + "x" * 32, "{zz}:s:1")
    for servers in (redis_server, redis_cluster):
        driver = open_at(servers.url)
        driver.setup()
        others = [f"{namespace}:{name}" for name in names]
        for other in others:
            home_of(servers, other).command("SET", other, "the application's")
        for user in ("ada", "}:u\n{", None):
            record = started(driver, user=user)
            committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 30, START))
            driver.revoke_user(user or "nobody", START)
        driver.tear_down()
        nodes = [servers] if isinstance(servers, RedisServer) else servers.primaries()
        left = {key.decode() for node in nodes for key in node.command("KEYS", f"{namespace}:*")}
        assert left == set(others)
        for other in others:
            home_of(servers, other).command("DEL", other)


# The first failure


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("options", [{}, {"durable": "replicas:1"}])
def test_the_first_failure_tells_the_plain_cause(kind: str, options: dict[str, str], namespace: str) -> None:
    url = with_options(f"redis://127.0.0.1:{free_port()}", prefix=namespace, **options)
    driver: Driver = RedisDriver.from_url(url) if kind == "sync" else Blocking(open_async_driver(url))
    with pytest.raises(DriverUnavailable, match="cannot be reached") as caught:
        driver.load(b"?" * 32, START)
    assert "a moment ago" not in str(caught.value)
    with pytest.raises(DriverUnavailable, match=r"a moment ago.*cannot be reached"):
        driver.load(b"?" * 32, START)
    driver.close()
