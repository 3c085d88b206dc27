"""What the tests of memcached share: a look at its items, and swaps that are lost."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from testservers import MemcachedServer

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached import AsyncMemcachedDriver
from coatcheck.drivers.memcached.requests import Request, StoreItem
from coatcheck.testing import Blocking


def before_swaps(monkeypatch: pytest.MonkeyPatch, driver: Driver, act: Callable[[], object], times: int = 1) -> None:
    """Have something done each time that *driver* is about to swap an item, so that the swap is lost."""
    inner = driver.driver if isinstance(driver, Blocking) else driver
    ask = inner._ask  # type: ignore[attr-defined]
    left = times

    def interfere(request: Request) -> None:
        nonlocal left
        if isinstance(request, StoreItem) and request.cas is not None and left:
            left -= 1
            act()

    def watched(operation: str, request: Request) -> Any:
        interfere(request)
        return ask(operation, request)

    async def watched_async(operation: str, request: Request) -> Any:
        interfere(request)
        return await ask(operation, request)

    monkeypatch.setattr(inner, "_ask", watched_async if isinstance(inner, AsyncMemcachedDriver) else watched)


def exptimes(server: MemcachedServer, prefix: str) -> dict[str, int]:
    """Give for each key of a prefix the seconds that it has left; -1 for never."""
    with socket.create_connection((server.host, server.port), 5) as connection, connection.makefile("rwb") as file:
        file.write(b"lru_crawler metadump all\r\n")
        file.flush()
        found = {}
        while (line := file.readline()) != b"END\r\n":
            if line == b"OK\r\n":  # so newer servers begin
                continue
            key, exp = re.match(rb"key=(\S+) exp=(-?\d+)", line).groups()  # type: ignore[union-attr]
            if key.startswith(prefix.encode()):
                found[key.decode()] = -1 if exp == b"-1" else int(exp) - int(time.time())
        return found
