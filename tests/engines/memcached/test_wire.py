"""Memcached's protocol: requests, and replies in any pieces."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached.requests import Delete, Get, Item, Lines, Request, StoreItem, Touch
from coatcheck.drivers.memcached.wire import Garbled, Refused, feed, put
from coatcheck.errors import DriverUnavailable
from coatcheck.testing import digest
from coatcheck.testing.helpers import START


def replied(request: Request, reply: bytes, step: int) -> Any:
    _, parser = put(request)
    for start in range(0, len(reply), step):
        for found in feed(parser, reply[start : start + step]):
            assert start + step >= len(reply)
            return found
    pytest.fail("the reply was not complete")


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_replies_are_put_together_from_any_pieces(step: int) -> None:
    get = Get(0, ("a", "b"))
    assert replied(get, b"END\r\n", step) == {}
    assert replied(get, b"VALUE a 0 0 5\r\n\r\nEND\r\n", step) == {"a": Item(b"", 5)}
    both = b"VALUE b 0 5 12\r\nEND\r\n\r\nVALUE a 0 2 3\r\n\r\n\r\nEND\r\n"
    assert replied(get, both, step) == {"b": Item(b"END\r\n", 12), "a": Item(b"\r\n", 3)}
    store = StoreItem(0, "a", b"x", 0, None)
    assert replied(store, b"STORED\r\n", step) is True
    for word in (b"NOT_STORED", b"EXISTS", b"NOT_FOUND"):
        assert replied(store, word + b"\r\n", step) is False
    assert replied(Touch(0, "a", 1), b"TOUCHED\r\n", step) is True
    assert replied(Delete(0, "a"), b"NOT_FOUND\r\n", step) is False
    assert replied(Lines(0, "stats"), b"STAT a 1\r\nkey=x\nEND\r\n", step) == ["STAT a 1", "key=x"]


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (Get(0, ("a",)), b"VALUE b 0 1 5\r\nx\r\nEND\r\n"),  # somebody else's session
        (Get(0, ("a",)), b"STORED\r\n"),
        (Get(0, ("a",)), b"VALUE a 0 1\r\nx\r\nEND\r\n"),
        (Get(0, ("a",)), b"VALUE a 0 -1 5\r\n"),
        (Get(0, ("a",)), b"VALUE a 0 1 5\r\nxyzEND\r\n"),
        (Get(0, ("a",)), b"END\r\nEND\r\n"),
        (StoreItem(0, "a", b"x", 0, 1), b"END\r\n"),
        (StoreItem(0, "a", b"x", 0, 1), b"STORED\r\nSTORED\r\n"),
        (StoreItem(0, "a", b"x", 0, 1), b"SERVER_ERROR a\r\nSTORED\r\n"),
        (StoreItem(0, "a", b"x", 0, 1), b"HTTP/1.1 400 Bad Request\r\n"),
        (Touch(0, "a", 1), b"\x00" * 5000),
    ],
)
def test_what_is_no_answer_is_recognized(request_: Request, reply: bytes) -> None:
    with pytest.raises(Garbled):
        replied(request_, reply, len(reply))


@pytest.mark.parametrize("reply", [b"ERROR", b"CLIENT_ERROR bad", b"SERVER_ERROR out of memory", b"BUSY crawling"])
def test_a_refusal_is_told(reply: bytes) -> None:
    for request in (Get(0, ("a",)), StoreItem(0, "a", b"x", 0, 1), Lines(0, "stats")):
        with pytest.raises(Refused) as caught:
            replied(request, reply + b"\r\n", 1000)
        assert caught.value.said == reply.decode()


def test_another_kind_of_server(open_one: Callable[[str], Driver]) -> None:
    """Whoever listens there: what it says is an error, and never a session or none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        driver = open_one(f"memcached://127.0.0.1:{listener.getsockname()[1]}?timeout=1")

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DriverUnavailable, match="is it memcached"):
            driver.load(digest(), START)
        thread.join()
