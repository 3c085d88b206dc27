"""MariaDB and MySQL lock what they find in an index before the row: who takes two indexes takes them in one order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, Final

import pymysql
import pytest
from testservers import MariaDBServer, wait_until

from coatcheck.drivers.base import Driver
from coatcheck.drivers.mariadb import MariaDBDriver
from coatcheck.record import Committed, Delta, Put, Record, ValueKey
from coatcheck.testing.helpers import START, committed, digest, make_record, started, user

A: Final[ValueKey] = ("", "a")
LEVELS: Final = ("REPEATABLE READ", "READ COMMITTED")
PATIENCE: Final = 60.0

pytestmark = pytest.mark.server


# Under REPEATABLE READ gaps in an index are locked too, and in a table of three sessions a new digest is always beside
# one of theirs. So there is another one between those of these tests and those that they change to.
HERE: Final = b"\x01"
BETWEEN: Final = b"\x80"
THERE: Final = b"\xff"


@pytest.fixture(scope="module")
def own(mariadb_server: MariaDBServer) -> Iterator[MariaDBDriver]:
    driver = MariaDBDriver.from_url(f"{mariadb_server.create_database('deadlocks')}?timeout=60")
    driver.setup()
    driver.create(make_record(digest_=BETWEEN + digest()[1:]), START)
    yield driver
    driver.close()


def lent(server: MariaDBServer, own: MariaDBDriver, level: str, stack: ExitStack) -> tuple[Any, Driver]:
    connection = pymysql.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database="deadlocks",
        init_command=f"SET SESSION TRANSACTION ISOLATION LEVEL {level}",
    )
    stack.enter_context(closing(connection))
    return connection, own.borrow(connection)


OTHERS: Final[dict[str, tuple[str, Callable[[Driver, Record], object]]]] = {
    "a log-out": ("DELETE FROM coatcheck_session", lambda driver, record: driver.revoke(record.digest, START)),
    "a rotation": (
        "UPDATE coatcheck_session",
        lambda driver, record: driver.rotate(record.digest, THERE + digest()[1:], Delta(), 0, START),
    ),
    "another's log-in": (
        "UPDATE coatcheck_session",
        lambda driver, record: driver.rotate(
            record.digest, THERE + digest()[1:], Delta(user=user(), auth_time=START + 1, puts={A: Put(b"a")}), 0, START
        ),
    ),
    "a change": (
        "INSERT INTO coatcheck_value",
        lambda driver, record: driver.commit(record.digest, Delta(puts={A: Put(b"a")}, touch=START + 9), START),
    ),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_revocation_of_a_user_meets_another_write(
    mariadb_server: MariaDBServer, own: MariaDBDriver, level: str, other: str
) -> None:
    """The write has locked the session and is about to change it; the revocation waits, and neither gives way."""
    text, work = OTHERS[other]
    reached, go = threading.Event(), threading.Event()
    who = user()
    record, second = (make_record(user=who, digest_=HERE + digest()[1:]) for _ in range(2))
    for each in (record, second):
        committed(own.create(each, START))
    before = mariadb_server.deadlocks()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        first_connection, first = lent(mariadb_server, own, level, stack)
        second_connection, borrowed = lent(mariadb_server, own, level, stack)
        borrower: Any = first._borrower  # type: ignore[attr-defined]  # of a lent driver
        run = borrower.run

        def braked(connection: Any, statement: Any) -> Any:
            said = " ".join(statement.text.replace("`", "").split())
            if said.startswith(text) and not reached.is_set():
                reached.set()
                assert go.wait(PATIENCE)
            return run(connection, statement)

        borrower.run = braked
        writing = pool.submit(work, first, record)
        assert reached.wait(PATIENCE)
        revoking = pool.submit(borrowed.revoke_user, who, START)
        wait_until(lambda: revoking.done() or mariadb_server.lock_waits(), "a wait for a lock", PATIENCE)
        assert not revoking.done(), revoking.result()
        go.set()
        assert isinstance(writing.result(PATIENCE), (bool, Committed))
        first_connection.commit()
        assert revoking.result(PATIENCE) == (2 if other in {"a rotation", "a change"} else 1)
        second_connection.commit()
    assert mariadb_server.deadlocks() == before
    assert own.sessions_of(who, START) == []
    assert not isinstance(own.load(second.digest, START), Record)


def test_revocations_and_log_outs_by_the_dozen(mariadb_server: MariaDBServer, own: MariaDBDriver) -> None:
    """On our own connections, which would begin anew without a word."""
    before = mariadb_server.deadlocks()
    for _ in range(20):
        who = user()
        records = [started(own, user=who) for _ in range(4)]
        gate = threading.Barrier(5)

        def leave(record: Record, gate: threading.Barrier = gate) -> bool:
            gate.wait(PATIENCE)
            return own.revoke(record.digest, START)

        def revoke(gate: threading.Barrier = gate, who: str = who) -> int:
            gate.wait(PATIENCE)
            return own.revoke_user(who, START)

        with ThreadPoolExecutor(5) as pool:
            ended = pool.submit(revoke)
            left = [pool.submit(leave, record) for record in records]
            assert ended.result(PATIENCE) + sum(one.result(PATIENCE) for one in left) == 4
    assert mariadb_server.deadlocks() == before
