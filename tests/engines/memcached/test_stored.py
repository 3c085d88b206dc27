"""memcached: what an older coatcheck stored."""

from __future__ import annotations

import socket
from collections.abc import Callable

from first_documents import DIGEST, POINTER, SESSION, SID
from testservers import MemcachedServer

from coatcheck.drivers.base import Driver
from coatcheck.drivers.memcached.common import Setup, arguments_in
from coatcheck.record import Delta, Value
from coatcheck.testing.helpers import START, committed, loaded


def test_items_of_the_first_version_go_on(
    open_one: Callable[[str], Driver], url: str, memcached_server: MemcachedServer
) -> None:
    servers, options = arguments_in(url)
    keys = Setup(servers, **options).operations._keys
    with (
        socket.create_connection((memcached_server.host, memcached_server.port), 60) as connection,
        connection.makefile("rwb") as file,
    ):
        for key, data in ((keys.of_session(SID), SESSION), (keys.of_digest(DIGEST), POINTER)):
            file.write(b"set %b 0 600 %d\r\n%b\r\n" % (key.encode(), len(data), data))
            file.flush()
            assert file.readline() == b"STORED\r\n"
    driver = open_one(url)
    found = loaded(driver, DIGEST, START)
    assert (found.sid, found.user, found.note, dict(found.values)) == (SID, "ann", b"", {("", "n"): Value(7, 1)})
    committed(driver.commit(DIGEST, Delta(note=b"phone", increments={("", "n"): 1}), START))
    found = loaded(driver, DIGEST, START)
    assert (found.note, found.values["", "n"].data) == (b"phone", 8)
