"""web.database: what a server is given, by a package that keeps it."""

# ruff: noqa: ANN001 -- the rules of all tests, and applications here need no types

from __future__ import annotations

import pytest
from web_databases import FakeError

from web import database
from web.database._placeholders import translate


def test_what_a_server_is_given(server) -> None:
    database.connect(server.adapter, "shop", "me", "pw", "host", 99, application_name="x")
    names = {"postgresql": "dbname", "mysql": "database"}
    expected = {names[server.adapter]: "shop", "user": "me", "password": "pw", "host": "host", "port": 99}
    assert expected.items() <= server.given.items()
    assert server.given["application_name"] == "x"
    assert server.given["connect_timeout"] == 10
    assert server.given.get("client_flag") == {"postgresql": None, "mysql": 2}[server.adapter]
    database.connect(server.adapter, "shop", socket="/run/s")
    assert server.given[{"postgresql": "host", "mysql": "unix_socket"}[server.adapter]] == "/run/s"
    assert not {"user", "password", "port"} & server.given.keys()


def test_a_server_that_refuses_is_named_and_no_password_is_shown(server) -> None:
    server.error = FakeError("no entry\nfor me with pw-secret")
    with pytest.raises(database.ConnectionFailed) as raised:
        database.connect(server.adapter, "shop", "me", "pw-secret", "db.example", 99)
    text = str(raised.value)
    assert text.startswith(
        f"{server.adapter} database 'shop': no entry for me with ***; check that the server runs at "
    )
    assert "db.example:99" in text
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    server.error = TypeError("unexpected keyword argument 'colour'")
    with pytest.raises(database.ParameterError, match="unexpected keyword argument 'colour'"):
        database.connect(server.adapter, "shop", colour=1)


def test_statements_for_a_server(server) -> None:
    connection = database.connect(server.adapter, "shop")
    cursor = connection.cursor()
    assert cursor.execute("SELECT '?', ? WHERE b LIKE 'a%'", [1]) is cursor
    cursor.execute("SELECT '100%', '?'")
    cursor.execute("SELECT 1 ?? 2", None)
    cursor.executemany("INSERT INTO t VALUES (?)", iter([[1], [2]]))
    assert server.bases[0].calls == [
        ("SELECT '?', %s WHERE b LIKE 'a%%'", (1,)),
        ("SELECT '100%', '?'",),
        ("SELECT 1 ? 2",),
        ("INSERT INTO t VALUES (%s)", [(1,), (2,)]),
    ]
    assert cursor.fetchall() == [(1,), (2,)]
    assert cursor.lastrowid is None
    assert connection.inTransaction
    assert connection.quoted("a") == {"postgresql": '"a"', "mysql": "`a`"}[server.adapter]


@pytest.mark.parametrize(
    ("sql", "postgresql", "mysql"),
    [
        ("a = ? AND b = ?", "a = %s AND b = %s", None),
        ("'?' ?", "'?' %s", None),
        ("'it''s ?' ?", "'it''s ?' %s", None),
        ('"?" ?', '"?" %s', None),
        ('"a""?" ?', '"a""?" %s', None),
        ("-- ?\n?", "-- ?\n%s", None),
        ("/* ? */ ?", "/* ? */ %s", None),
        ("/* /* ? */ ? */ ?", "/* /* ? */ ? */ %s", "/* /* ? */ %s */ %s"),
        ("$$ ? $$ ?", "$$ ? $$ %s", "$$ %s $$ %s"),
        ("$a$ ? $$ ? $a$ ?", "$a$ ? $$ ? $a$ %s", "$a$ %s $$ %s $a$ %s"),
        ("$1$ ?", "$1$ %s", None),
        ("a$$?", "a$$%s", None),
        (r"'\' ?", r"'\' %s", r"'\' ?"),
        (r"E'\' ?' ?", r"E'\' ?' %s", None),
        (r"'a\'?' ?", r"'a\'%s' ?", r"'a\'?' %s"),
        ("`?` ?", "`%s` %s", "`?` %s"),
        ("# ?\n?", "# %s\n%s", "# ?\n%s"),
        ("1--?", "1--?", "1--%s"),
        ("a ?? b ???", "a ? b ?%s", None),
        ("'50%' % ?", "'50%%' %% %s", None),
        ("-- 50%", "-- 50%%", None),
        ("'open ?", "'open ?", None),
        ("/* open ?", "/* open ?", None),
        ("$$ open ?", "$$ open ?", "$$ open %s"),
        ("", "", None),
    ],
)
def test_placeholders(sql: str, postgresql: str, mysql: str | None) -> None:
    assert translate(sql) == postgresql
    assert translate(sql, mysql=True) == (postgresql if mysql is None else mysql)


def test_placeholders_take_time_in_proportion() -> None:
    for sql in ("'" * 99_999, "/*" * 50_000, "$a$" * 50_001, "E'" * 50_001, "?" * 100_000):
        translate(sql)
        translate(sql, mysql=True)
