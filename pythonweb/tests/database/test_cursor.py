"""web.database: connection and cursor, transactions and hooks, on SQLite."""

# ruff: noqa: ANN001 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from web_databases import Hook, rows

from web import database


def test_every_member_of_the_cursor(connection) -> None:
    cursor = connection.cursor()
    assert cursor.connection is connection
    assert isinstance(cursor.baseCursor, sqlite3.Cursor)
    assert cursor.execute("INSERT INTO t VALUES (?, ?)", (1, "é")) is cursor
    assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (1, 1, None)
    cursor.executemany("INSERT INTO t (b) VALUES (?)", (["x"] for _ in range(9)))
    assert cursor.rowcount == 9
    cursor.execute("SELECT a, b FROM t ORDER BY a")
    assert [column[0] for column in cursor.description] == ["a", "b"]
    assert cursor.fetchone() == (1, "é")
    assert cursor.fetchmany() == [(2, "x")]
    cursor.arraysize = 2
    assert (cursor.arraysize, cursor.fetchmany(), cursor.fetchmany(1)) == (2, [(3, "x"), (4, "x")], [(5, "x")])
    assert next(cursor) == (6, "x")
    assert list(cursor) == [(n, "x") for n in (7, 8, 9, 10)]
    assert (cursor.fetchone(), cursor.fetchall()) == (None, [])
    cursor.setinputsizes([1])
    cursor.setoutputsize(1)
    cursor.close()
    cursor.close()
    with pytest.raises(
        database.ConnectionClosed, match=r"cursor is closed: take a new one from connection\.cursor\(\)"
    ):
        cursor.fetchone()


@pytest.mark.parametrize("values", ["abc", b"abc", 5, {"a": 1}])
def test_values_that_are_no_list(connection, values: Any) -> None:
    with pytest.raises(TypeError, match="list"):
        connection.cursor().execute("SELECT ?", values)
    with pytest.raises(TypeError, match="list"):
        connection.cursor().executemany("SELECT ?", [values])


def test_transactions(connection, file: str) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1").fetchall()
    assert not connection.inTransaction
    cursor.execute("INSERT INTO t (b) VALUES ('one')")
    assert connection.inTransaction
    assert rows(file) == []
    connection.commit()
    assert not connection.inTransaction
    cursor.execute("INSERT INTO t (b) VALUES ('two')")
    connection.rollback()
    assert rows(file) == [("one",)]
    connection.commit()
    cursor.execute("INSERT INTO t (b) VALUES ('three')")
    connection.close()
    connection.close()
    assert rows(file) == [("one",)]
    assert connection.closed
    for use in ("commit", "rollback", "cursor", "detach"):
        with pytest.raises(database.ConnectionClosed, match="this database connection is closed"):
            getattr(connection, use)()
    for member in ("baseConnection", "inTransaction"):
        with pytest.raises(database.ConnectionClosed):
            getattr(connection, member)
    with pytest.raises(database.ConnectionClosed):
        cursor.execute("SELECT 1")
    assert "closed" in repr(connection)


def test_tables_and_quotes(connection) -> None:
    assert (connection.hasTable("t"), connection.hasTable("T"), connection.hasTable("u")) == (True, True, False)
    name = 'a"b'
    connection.cursor().execute(f"CREATE TABLE {connection.quoted(name)} (a)")
    assert connection.hasTable(name)


def test_hooks_join_the_transaction(connection, file: str) -> None:
    events: list[str] = []
    hook = Hook(events)
    connection.addHook(hook)
    connection.addHook(hook)
    connection.commit()
    assert (events, rows(file)) == (["before", "after"], [("hook",)])
    connection.cursor().execute("INSERT INTO t (b) VALUES ('lost')")
    connection.rollback()
    assert (events.pop(), len(rows(file))) == ("rollback", 1)
    connection.removeHook(hook)
    connection.removeHook(hook)
    connection.commit()
    assert events == ["before", "after"]


@pytest.mark.parametrize("fail", ["before", "after", "rollback"])
def test_a_hook_that_fails(fail: str, connection, file: str) -> None:
    events: list[str] = []
    connection.addHook(Hook(events, fail))
    connection.addHook(Hook(events))
    with pytest.raises(LookupError):
        connection.rollback() if fail == "rollback" else connection.commit()
    if fail == "before":
        assert (events, connection.inTransaction, rows(file)) == (["before"], True, [])
        with pytest.raises(LookupError):
            connection.commit()
        connection.rollback()
    else:
        assert events[-2:] == [fail, fail], "the other hook is told too"
        assert len(rows(file)) == (2 if fail == "after" else 0)


def test_a_commit_that_the_database_refuses_leaves_the_transaction_and_the_hooks(connection, file: str) -> None:
    connection.cursor().execute("PRAGMA foreign_keys = ON")
    connection.cursor().execute("CREATE TABLE u (a REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)")
    events: list[str] = []
    connection.addHook(Hook(events))
    connection.cursor().execute("INSERT INTO u VALUES (99)")
    with pytest.raises(sqlite3.IntegrityError):
        connection.commit()
    assert (events, connection.inTransaction, rows(file)) == (["before"], True, [])
    connection.cursor().execute("DELETE FROM u")
    connection.commit()
    assert events == ["before", "before", "after"]


def test_a_hook_must_not_commit(connection) -> None:
    class Committing(Hook):
        def before_commit(self, connection) -> None:
            connection.commit()

    connection.addHook(Committing([]))
    with pytest.raises(database.DatabaseError, match=r"a hook must not call commit\(\)"):
        connection.commit()
