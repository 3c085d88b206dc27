"""The proxy does to connections what it says: with a server that tells whether a request has reached it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from testservers import Fault, FaultProxy, RedisServer, wait_until
from testservers.base import PATIENCE

REQUEST = b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n"


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    redis_server.command("SET", "counter", 0)
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with connect(proxy) as client:
        yield client


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)


def ask(client: socket.socket) -> bytes:
    client.sendall(REQUEST)
    return client.recv(100)


def hears_nothing(client: socket.socket) -> None:
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        ask(client)
    client.settimeout(PATIENCE)


def counted(server: RedisServer) -> int:
    return int(server.command("GET", "counter"))


def test_it_passes_on_and_counts(proxy: FaultProxy, client: socket.socket) -> None:
    assert [ask(client), ask(client)] == [b":1\r\n", b":2\r\n"]
    with connect(proxy) as other:
        assert ask(other) == b":3\r\n"
    counts = proxy.counted()
    assert (counts.sent, counts.received) == (3 * len(REQUEST), 3 * 4)
    assert (counts.round_trips, counts.connections) == (3, 2)
    assert proxy.counts.round_trips == 0


@pytest.mark.parametrize(
    ("fault", "seen", "done"),
    [
        (Fault.CUT_BEFORE, ConnectionResetError, False),
        (Fault.CUT_AFTER, b"", True),
        (Fault.HALF_REPLY, b":2", True),
        (Fault.NO_REPLY, TimeoutError, True),
    ],
)
def test_a_fault_of_one_request(
    proxy: FaultProxy,
    client: socket.socket,
    redis_server: RedisServer,
    fault: Fault,
    seen: bytes | type[Exception],
    done: bool,  # noqa: FBT001 (a parameter)
) -> None:
    proxy.inject(fault, turn=2)
    assert ask(client) == b":1\r\n"
    assert proxy.fired == 0
    if isinstance(seen, bytes):
        assert ask(client) == seen
    elif seen is TimeoutError:
        hears_nothing(client)
        wait_until(lambda: counted(redis_server) == 2, "the request to arrive")
    else:
        with pytest.raises(seen):
            ask(client)
    assert proxy.fired == 1
    assert counted(redis_server) == 1 + done
    with connect(proxy) as other:
        assert ask(other) == b":%d\r\n" % (2 + done)


def test_a_slow_network(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.inject(Fault.DELAY, seconds=0.1)
    began = time.monotonic()
    assert ask(client) == b":1\r\n"
    assert time.monotonic() - began >= 0.1


def test_a_black_hole_keeps_what_it_took(proxy: FaultProxy, client: socket.socket, redis_server: RedisServer) -> None:
    proxy.inject(Fault.BLACK_HOLE)
    with connect(proxy) as other:
        for link in (client, other):
            hears_nothing(link)
        assert counted(redis_server) == 0
        proxy.heal()
        assert {client.recv(100), other.recv(100)} == {b":1\r\n", b":2\r\n"}


def test_a_server_that_is_away(proxy: FaultProxy, client: socket.socket, redis_server: RedisServer) -> None:
    assert ask(client) == b":1\r\n"
    proxy.inject(Fault.REFUSE)
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.heal()
    with connect(proxy) as other:
        assert ask(other) == b":2\r\n"


def test_connections_are_cut(proxy: FaultProxy, client: socket.socket) -> None:
    assert ask(client) == b":1\r\n"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(100)
