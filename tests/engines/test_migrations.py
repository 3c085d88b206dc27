"""The tables of an older coatcheck: they are brought up to date while programs with that one go on using them.

`first_schema/` keeps the tables before the first migration as they were, and the statements of the programs of that
time: what is done here by "an old program" is done by these, on connections of its own.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psycopg
import pymysql
import pytest
from testservers import wait_until
from testservers.engines import PATIENCE, Engine, params

from coatcheck.drivers.base import Driver
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Delta, Record, Value, ValueKey
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, loaded, puts

A: ValueKey = ("", "a")
N: ValueKey = ("", "n")
WRITERS = 3
ROUNDS = 5  # of each writer before the tables change, and after

ENGINES = params("sqlite", "postgresql", "mariadb")
engines = pytest.mark.parametrize("engine", ENGINES, indirect=True)


class OldProgram:
    """A program with the coatcheck before the first migration."""

    def __init__(self, engine: Engine, namespace: str) -> None:
        self.engine = engine
        self.kind = engine.name.removesuffix("-async")
        self.prefix = "" if self.kind == "sqlite" else namespace
        quote = "`" if self.kind == "mariadb" else '"'
        text = (Path(__file__).parent / "first_schema" / f"{self.kind}.sql").read_text("utf-8")
        named = re.sub(r"\bcoatcheck_\w+", lambda found: f"{quote}{self.prefix}{found[0]}{quote}", text)
        sections = [part.partition("\n") for part in named.split("-- name: ")[1:]]
        self.ddl = [statement.strip() for name, _, statement in sections if name == "ddl"]
        self.statements = {name: statement.strip() for name, _, statement in sections if name != "ddl"}
        self._quote = quote
        self._meta = ("key", "value") if self.kind == "sqlite" else ("name", "content")

    def connect(self) -> Any:
        """Open a connection."""
        server = self.engine.server
        if self.kind == "sqlite":
            path = self.engine.url.removeprefix("sqlite:///").partition("?")[0]
            connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            return connection
        if self.kind == "postgresql":
            return psycopg.connect(server.url, autocommit=True)
        return pymysql.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            autocommit=True,
            init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )

    def run(self, connection: Any, name: str, *parameters: object) -> list[Any]:
        """Have one of its statements done."""
        return self.send(connection, self.statements[name], *parameters)

    def send(self, connection: Any, text: str, *parameters: object) -> list[Any]:
        with closing(connection.cursor()) as cursor:
            cursor.execute(text, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def setup(self) -> None:
        """Create the tables."""
        with closing(self.connect()) as connection:
            for statement in self.ddl:
                self.send(connection, statement)
            self.run(connection, "set_meta", "schema", "1")
            self.run(connection, "set_meta", "prefix", self.prefix)

    def create(self, connection: Any, record: Record) -> None:
        """Store a session, with the counter N at 0."""
        more = () if self.kind == "sqlite" else (0.0, 0.0)
        self.begin(connection)
        self.run(
            connection, "create", record.sid, record.digest, record.created, record.seen, record.deadline, record.idle,
            record.absolute, record.user, record.auth_time, record.rotated, *more,
        )  # fmt: skip
        self._put(connection, record.digest, 0)
        self.send(connection, "COMMIT")

    def count(self, connection: Any, of: bytes, number: int) -> None:
        """Write the counter N of a session, and record activity."""
        self.begin(connection)
        session = self._put(connection, of, number)
        self.run(connection, "update", START + number, None, None, None, 0.0, session)
        self.send(connection, "COMMIT")

    def _put(self, connection: Any, of: bytes, number: int) -> object:
        ((session, *_),) = self.run(connection, "find", of)
        content = (number,) if self.kind == "sqlite" else (None, number)
        self.run(connection, "put", session, *N, number + 1, *content)
        return session

    def begin(self, connection: Any) -> None:
        self.send(connection, "BEGIN IMMEDIATE" if self.kind == "sqlite" else "BEGIN")

    def reads(self, connection: Any, of: bytes) -> bool:
        """Check whether it can load a session."""
        return bool(self.run(connection, "load", of))

    def finds_its_tables(self) -> bool:
        """Check what it looks at before it uses tables: the version that they say they have."""
        found = self.meta()
        return (found["schema"], found["prefix"]) == ("1", self.prefix)

    def table(self, name: str) -> str:
        """Return the name of a table in a statement."""
        return f"{self._quote}{self.prefix}coatcheck_{name}{self._quote}"

    def meta(self) -> dict[str, str]:
        """Return what the tables say of themselves."""
        with closing(self.connect()) as connection:
            rows = self.send(connection, f"SELECT {', '.join(self._meta)} FROM {self.table('meta')}")  # noqa: S608 (ours)
        return {_text(name): _text(content) for name, content in rows}

    def set_migration(self, number: int) -> None:
        """Have the tables say that they are those of another migration."""
        name, content = self._meta
        with closing(self.connect()) as connection:
            change = f"SET {content} = '{number}' WHERE {name} = 'migration'"
            self.send(connection, f"UPDATE {self.table('meta')} {change}")


def _text(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)


@dataclass
class Writer:
    """What one writer was told that it is done: the last number for each of its sessions."""

    done: dict[bytes, int] = field(default_factory=dict)
    rounds: int = 0


class Writers:
    """Old programs at work."""

    def __init__(self, program: OldProgram) -> None:
        self.program = program
        self.writers = [Writer() for _ in range(WRITERS)]
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(writer,)) for writer in self.writers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def go_on(self) -> None:
        """Wait until each writer has done some more rounds."""
        goals = [writer.rounds + ROUNDS for writer in self.writers]
        wait_until(
            lambda: (
                self.failures or all(writer.rounds >= goal for writer, goal in zip(self.writers, goals, strict=True))
            ),
            "the old programs",
        )
        assert not self.failures, self.failures

    def _work(self, writer: Writer) -> None:
        try:
            with closing(self.program.connect()) as connection:
                while not self._stop.is_set():
                    record = make_record(user=f"user {id(writer)}")
                    self.program.create(connection, record)
                    writer.done[record.digest] = 0
                    for old in list(writer.done)[-4:]:
                        self.program.count(connection, old, writer.done[old] + 1)
                        writer.done[old] += 1
                        assert self.program.reads(connection, old)
                    writer.rounds += 1
        except BaseException as error:  # noqa: BLE001 (told by the test)
            self.failures.append(error)


@pytest.fixture
def old(engine: Engine, namespace: str) -> OldProgram:
    """A program with the older coatcheck, which has created its tables."""
    program = OldProgram(engine, namespace)
    program.setup()
    return program


@pytest.fixture
def record(old: OldProgram) -> Record:
    """A session that the old program stored."""
    record = make_record(user="ann")
    with closing(old.connect()) as connection:
        old.create(connection, record)
    return replace(record, values={N: Value(0, 1)})


@engines
def test_no_session_is_lost_while_the_tables_change(engine: Engine, old: OldProgram) -> None:
    with Writers(old) as writers:
        writers.go_on()
        one, two = engine.open(), engine.open()
        with ThreadPoolExecutor(2) as both:
            for done in [both.submit(driver.setup) for driver in (one, two)]:
                done.result()
        assert one.is_set_up()
        new = [replace(make_record(user="ann"), note=b"phone") for _ in range(5)]
        for record in new:
            committed(two.create(record, START))
        writers.go_on()
        for record in new:
            committed(two.commit(record.digest, Delta(note=b"laptop", increments={N: 1}), START))
        writers.go_on()
    assert not writers.failures, writers.failures
    assert sum(len(writer.done) for writer in writers.writers) > WRITERS * ROUNDS
    for writer in writers.writers:
        for each, number in writer.done.items():
            found = loaded(one, each, START)
            assert found.values[N].data == number
            assert (found.note, found.seen) == (b"", START + number)
    with closing(old.connect()) as connection:
        for record in new:
            assert old.reads(connection, record.digest)
            old.count(connection, record.digest, 7)
            found = loaded(one, record.digest, START)
            assert (found.values[N].data, found.note) == (7, b"laptop")
    assert old.finds_its_tables()


@engines
def test_both_versions_work_on_one_session(engine: Engine, old: OldProgram, record: Record) -> None:
    driver = engine.open()
    driver.setup()
    committed(driver.commit(record.digest, Delta(note=b"phone", increments={N: 4}), START))
    with closing(old.connect()) as connection:
        old.count(connection, record.digest, 5)
    found = loaded(driver, record.digest, START)
    assert (found.note, found.values[N].data, found.user) == (b"phone", 5, "ann")
    assert [info.note for info in driver.sessions_of("ann", START)] == [b"phone"]
    driver.setup()
    assert loaded(driver, record.digest, START) == found


@engines
def test_tables_that_are_not_up_to_date_are_told_with_the_remedy(
    engine: Engine, old: OldProgram, record: Record
) -> None:
    """On a server nobody changes them unasked; a file of SQLite's is brought up to date by who opens it first."""
    driver = engine.open()
    assert not driver.is_set_up()
    if old.kind == "sqlite":
        assert loaded(driver, record.digest, START).values[N].data == 0
        assert driver.is_set_up()
        return
    works: list[Callable[[], object]] = [
        lambda: driver.load(record.digest, START),
        lambda: driver.create(make_record(), START),
        lambda: driver.commit(record.digest, Delta(note=b"x"), START),
        lambda: driver.sessions_of("ann", START),
        lambda: driver.end([record.sid], START),
    ]
    for work in works:
        with pytest.raises(ConfigurationError, match=r"older coatcheck: make them, or bring them up to date, with"):
            work()
    driver.setup()
    assert loaded(driver, record.digest, START).values[N].data == 0


@pytest.mark.parametrize("engine", [param for param in ENGINES if not param.values[0].asynchronous], indirect=True)
def test_a_lent_connection_brings_them_up_to_date_in_setup(engine: Engine, old: OldProgram, record: Record) -> None:
    with closing(old.connect()) as connection:
        lent = engine.open().borrow(connection)
        assert not lent.is_set_up()
        with pytest.raises((ConfigurationError, DriverUnavailable), match="older coatcheck"):
            lent.load(record.digest, START)
        if old.kind != "mariadb":  # which would commit the application's transaction for it
            old.begin(connection)
        lent.setup()
        old.send(connection, "COMMIT")
        assert lent.is_set_up()
        assert loaded(lent, record.digest, START).values[N].data == 0


@engines
def test_a_later_migration_is_left_alone(engine: Engine, old: OldProgram) -> None:
    """One that this coatcheck does not know has only added something."""
    driver = engine.open()
    driver.setup()
    old.set_migration(99)
    again = engine.open()
    assert again.is_set_up()
    again.setup()
    committed(again.create(make_record(values={A: b"a"}), START))
    assert old.meta()["migration"] == "99"


@engines
def test_a_table_that_is_made_anew_has_all_columns(engine: Engine, old: OldProgram, record: Record) -> None:
    driver: Driver = engine.open()
    driver.setup()
    with closing(old.connect()) as connection:
        old.send(connection, f"DROP TABLE {old.table('session')}")
    again = engine.open()
    assert not again.is_set_up()
    again.setup()
    new = replace(make_record(), note=b"phone")
    committed(again.create(new, START))
    assert loaded(again, new.digest, START).note == b"phone"
    assert not isinstance(again.load(record.digest, START), Record)
    committed(again.commit(new.digest, puts({A: b"a"}), START))
    assert not isinstance(again.load(digest(), START), Record)
