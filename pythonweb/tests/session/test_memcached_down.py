"""With one of two memcached servers down, the ID that a program is told is the ID of a session that is kept."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from testservers import MemcachedServer
from testservers.fixtures import need

from coatcheck import DriverUnavailable
from web.session import driver, manager

VISITORS = 16


@pytest.mark.server
def test_create_tells_an_id_that_a_living_server_keeps(
    server_folder: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(MemcachedServer)
    monkeypatch.setenv("HTTP_COOKIE", "")
    with ExitStack() as stack:
        servers = [stack.enter_context(MemcachedServer(server_folder / f"{namespace}-{n}")) for n in range(2)]
        storage = driver(
            "memcached", namespace, url=f"memcached://{','.join(server.address for server in servers)}?timeout=1"
        )
        made = manager(storage)  # looks whether all servers are there
        servers[0].kill()
        told: list[str] = []
        failed = 0
        while len(told) < VISITORS:
            try:
                told.append(made.create(sendCookieHeaders=False))
            except DriverUnavailable:  # the one that finds out is told so, and gets no ID
                failed += 1
                continue
            made.store("shop")["n"] = len(told)
            assert made.sessionID == told[-1]
        assert failed <= 1
        made.create(sendCookieHeaders=False)
        assert [made.exists(each) for each in told] == [True] * VISITORS
